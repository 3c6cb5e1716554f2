"""The storage scaling law: a model's error from the number of its training images and their bytes. Pure, seeded.

Err(n, L) = A n^-alpha + B L^-beta + c, for n images of L mean bytes each (Mentzer and Montanari 2024, "Scaling Training
Data with Lossy Image Compression"). Errors are shares of 0..1; "pilots" are the small trainings that the law is fitted
to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from keepmore.errors import PilotsInsufficient
from keepmore.spec import pilot_grid

Floats = NDArray[np.float64]

CONSTANTS = ("a", "alpha", "b", "beta", "c")
EXPONENTS = (0.02, 3.0)
STARTS = 6
RATE = 0.95
TRIES = 50
TINY = 1e-9

LEAST_R2 = 0.8
MOST_LEFT_OUT_POINTS = 3.0


@dataclass(frozen=True, slots=True)
class Law:
    """The law's five constants, each 0 or more."""

    a: float
    alpha: float
    b: float
    beta: float
    c: float

    def error(self, n: ArrayLike, size: ArrayLike) -> Floats:
        """Errors of models trained on `n` images of `size` mean bytes; any shapes that broadcast. Not cut at 1."""
        law_errors: Floats = errors(np.array([self.constants]), n, size)[0]
        return law_errors

    @property
    def constants(self) -> tuple[float, float, float, float, float]:
        return self.a, self.alpha, self.b, self.beta, self.c

    def optimum(self, storage: float, most_images: float) -> tuple[float, float]:
        """How many images of how many bytes each, (n, L), make the least error of `storage` = n L bytes.

        L* = (beta B / (alpha A))^(1/(alpha+beta)) s^(alpha/(alpha+beta)) (Mentzer and Montanari 2024). The error is
        convex in log L, so where n is held to 1..most_images the nearest L is best.
        """
        least = storage / most_images
        if self.a * self.alpha == 0:
            size = storage if self.b > 0 else least
        elif self.b * self.beta == 0:
            size = least
        else:  # in logarithms: small exponents give numbers beyond the range of floats
            rates = math.log(self.beta * self.b) - math.log(self.alpha * self.a)
            log_size = (rates + self.alpha * math.log(storage)) / (self.alpha + self.beta)
            at_bounds = log_size >= math.log(storage), log_size <= math.log(least)
            size = storage if at_bounds[0] else least if at_bounds[1] else math.exp(log_size)
        return min(storage / size, most_images), size


@dataclass(frozen=True, slots=True)
class Fit:
    """A law, and how well it describes its pilots.

    `r2` is the share of the (weighted) variance of the errors that it explains, `rmse` its root mean squared residual.
    `left_out_points` is how far it is off pilots of a size that it was not fitted to: mean absolute error, in
    points (hundredths), over refits without each n in turn; NaN where there is only one n.
    """

    law: Law
    r2: float
    rmse: float
    left_out_points: float


@dataclass(frozen=True, slots=True)
class _Problem:
    """Pilots in units where a fit is easy: logs from their geometric means, so that A and B are errors there."""

    log_n: Floats
    log_size: Floats
    error: Floats
    roots: Floats
    middle: tuple[float, float]

    @staticmethod
    def of(n: Floats, size: Floats, error: Floats, weights: Floats) -> _Problem:
        log_n, log_size = np.log(n), np.log(size)
        middle = float(log_n.mean()), float(log_size.mean())
        roots = np.sqrt(weights / weights.mean())
        return _Problem(log_n - middle[0], log_size - middle[1], error, roots, middle)

    def terms(self, alpha: float, beta: float) -> Floats:
        """Of each pilot, what A, B and c are multiplied with; shape (3, pilots)."""
        return np.stack([np.exp(-alpha * self.log_n), np.exp(-beta * self.log_size), np.ones_like(self.log_n)])

    def residuals(self, x: Floats) -> Floats:
        a, alpha, b, beta, c = x
        weighted: Floats = self.roots * (np.array([a, b, c]) @ self.terms(alpha, beta) - self.error)
        return weighted

    def jacobian(self, x: Floats) -> Floats:
        a, alpha, b, beta, _ = x
        of_n, of_size, one = self.terms(alpha, beta)
        slopes = [of_n, -a * self.log_n * of_n, of_size, -b * self.log_size * of_size, one]
        return np.stack(slopes, axis=1) * self.roots[:, None]

    def start(self, alpha: float, beta: float) -> Floats:
        """The best A, B and c for these exponents: a linear problem (Lawson and Hanson 1974)."""
        (a, b, c), _ = optimize.nnls((self.terms(alpha, beta) * self.roots).T, self.error * self.roots)
        return np.array([a, alpha, b, beta, c])

    def solved(self, starts: list[Floats]) -> Floats:
        """The best of the bounded least squares from each of `starts`, shape (5,)."""
        least = max(float(self.error.min()), TINY)
        low = np.array([0, EXPONENTS[0], 0, EXPONENTS[0], 0])
        high = np.array([np.inf, EXPONENTS[1], np.inf, EXPONENTS[1], least])
        room = np.array([1e-3, 1e-3, 1e-3, 1e-3, least / 100])
        solutions = [
            optimize.least_squares(
                self.residuals,
                np.clip(start, low + room, high - room),
                self.jacobian,
                (low, high),
                method="trf",
                x_scale="jac",
                max_nfev=TRIES,
            )
            for start in starts
        ]
        best: Floats = min(solutions, key=lambda solution: float(solution.cost)).x
        return best

    def scaled(self, law: Law) -> Floats:
        a, b = law.a * math.exp(-law.alpha * self.middle[0]), law.b * math.exp(-law.beta * self.middle[1])
        return np.array([a, law.alpha, b, law.beta, law.c])

    def law(self, x: Floats) -> Law:
        a, alpha, b, beta, c = x.tolist()
        return Law(a * math.exp(alpha * self.middle[0]), alpha, b * math.exp(beta * self.middle[1]), beta, c)


def errors(laws: Floats, n: ArrayLike, size: ArrayLike) -> Floats:
    """Errors of many laws at once: `laws` has shape (laws, 5), columns as CONSTANTS; shape (laws, *that of n, size)."""
    n, size = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(size, np.float64))
    a, alpha, b, beta, c = laws.T.reshape(5, len(laws), *[1] * n.ndim)
    law_errors: Floats = a * n**-alpha + b * size**-beta + c
    return law_errors


def fit(
    n: ArrayLike,
    size: ArrayLike,
    error: ArrayLike,
    weights: ArrayLike | None = None,
    starts: int = STARTS,
    seed: int = 0,
) -> Fit:
    """The law of pilots with `n` images of `size` mean bytes that had `error` (0..1); all of shape (pilots,).

    Bounded least squares from `starts` pairs of exponents, drawn with `seed` uniformly in their logarithms; `weights`
    are in proportion to 1 / variance. Raises ValueError for no pilots, or an n or size that is not above 0.
    """
    n, size, error = (np.asarray(values, np.float64) for values in (n, size, error))
    weight = np.ones_like(n) if weights is None else np.asarray(weights, np.float64)
    if n.size == 0 or not n.shape == size.shape == error.shape == weight.shape or min(n.min(), size.min()) <= 0:
        raise ValueError("n, size and error are of one shape (pilots,), with numbers above 0")
    problem = _Problem.of(n, size, error, weight)
    exponent_logs = np.random.default_rng(seed).uniform(math.log(0.1), math.log(2), (starts - 1, 2))
    exponents = [(0.4, 0.8), *np.exp(exponent_logs).tolist()]
    law = problem.law(problem.solved([problem.start(*pair) for pair in exponents]))
    residuals = law.error(n, size) - error
    mean_square = float(np.average(residuals**2, weights=weight))
    variance = float(np.average((error - np.average(error, weights=weight)) ** 2, weights=weight))
    r2 = 1 - mean_square / variance if variance > 0 else 0.0
    return Fit(law, r2, math.sqrt(mean_square), _left_out_points(law, n, size, error, weight))


def refit(law: Law, n: Floats, size: Floats, error: Floats, weights: Floats) -> Law:
    """The law of other pilots, sought from `law` and from its exponents alone."""
    problem = _Problem.of(n, size, error, weights)
    return problem.law(problem.solved([problem.scaled(law), problem.start(law.alpha, law.beta)]))


def _left_out_points(law: Law, n: Floats, size: Floats, error: Floats, weights: Floats) -> float:
    deviations: list[float] = []
    for left_out in np.unique(n):
        out, rest = n == left_out, n != left_out
        if rest.any():
            other = refit(law, n[rest], size[rest], error[rest], weights[rest])
            deviations += np.abs(other.error(n[out], size[out]) - error[out]).tolist()
    return 100 * float(np.mean(deviations)) if deviations else math.nan


def draws(correct: NDArray[np.bool_], n: ArrayLike, distance: ArrayLike, images: int, pool: int) -> Floats:
    """What other draws of images would add to the pilots' errors: shape (pilots, 2 seeds), to be multiplied with as
    many numbers of mean 0 and variance 1.

    Each seed trains on a draw of its own from the pilots' `images`, the same at every distance, so that its
    contribution is correlated over all pilots. The pilots' images are themselves a draw from `pool` images, which all
    seeds share. Both parts are as of sampling without replacement (Cochran 1977, chapter 2): where n of N are drawn,
    draws differ by 1 - n/N of the variance of draws from endless images. Where n is N, the seeds do not show this; it
    is extrapolated from the next smaller n, in proportion to n^-1/2. `n` and `distance` have shape (pilots,), `correct`
    (pilots, seeds, test images). One seed does not show the effect of draws: zeros.
    """
    n, distance = np.asarray(n, np.float64), np.asarray(distance, np.float64)
    wrong = 1 - correct.mean(axis=2)
    seeds = wrong.shape[1]
    if seeds < 2:
        return np.zeros((len(n), 2))
    apart = n < images
    endless = (wrong - wrong.mean(axis=1, keepdims=True)) / np.sqrt(np.where(apart, 1 - n / images, 1))[:, None]
    for place in np.flatnonzero(~apart).tolist():
        smaller = np.flatnonzero(apart & (distance == distance[place]))
        if len(smaller):
            nearest = smaller[n[smaller].argmax()]
            endless[place] = endless[nearest] * math.sqrt(n[nearest] / n[place])
    share = np.minimum(n / images, 1)
    own = np.sqrt((1 - share) / (seeds * (seeds - 1)))
    shared = np.sqrt(share * (1 - min(images / pool, 1)) / (seeds - 1))
    return np.hstack([endless * own[:, None], endless * shared[:, None]])


def bootstrap(
    fitted: Law,
    correct: NDArray[np.bool_],
    n: ArrayLike,
    size: ArrayLike,
    deviations: Floats,
    replicates: int = 200,
    seed: int = 0,
) -> Floats:
    """Laws of resampled pilots: shape (replicates, 5), columns as CONSTANTS.

    `correct` has shape (pilots, seeds, test images); `deviations` is the result of `draws`. A replicate draws test
    images, the same for all pilots (the bootstrap, Efron 1979), and adds what other draws of training images would;
    with few seeds that is uncertain, hence Student's t. It is refitted from `fitted`. The error of the law itself is
    not in it.
    """
    n, size = np.asarray(n, np.float64), np.asarray(size, np.float64)
    rng = np.random.default_rng(seed)
    _, seeds, images = correct.shape
    counts = rng.multinomial(images, np.full(images, 1 / images), size=replicates)
    wrong = (1 - correct.mean(axis=1)) @ counts.T / images
    numbers = rng.normal(size=(deviations.shape[1], replicates))
    if seeds > 1:
        numbers *= np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, replicates))
    error = np.clip(wrong + deviations @ numbers, 0, 1)
    weights = np.ones_like(n)
    return np.array([refit(fitted, n, size, error[:, run], weights).constants for run in range(replicates)])


def intervals(values: Floats, rate: float = RATE) -> Floats:
    """Percentile intervals over the first axis (Efron 1979): shape (2, ...), low ends and high ends.

    For the constants, `values` are the laws of `bootstrap`; for predictions, their `errors`.
    """
    ends: Floats = np.quantile(values, [(1 - rate) / 2, (1 + rate) / 2], axis=0)
    return ends


def check(fitted: Fit, n: ArrayLike, distance: ArrayLike, correct: NDArray[np.bool_], deviations: Floats) -> None:
    """Raises PilotsInsufficient, with the reason, where a fit to these pilots does not support advice.

    `n` and `distance` have shape (pilots,), `correct` (pilots, seeds, test images); `deviations` is as for `bootstrap`.
    """
    n, distance = np.asarray(n, np.float64), np.asarray(distance, np.float64)
    pilot_grid.check(len(np.unique(n)), len(np.unique(distance)), correct.shape[-1])
    for reason in (_does_not_fall(n, distance, correct, deviations), _does_not_fit(fitted)):
        if reason:
            raise PilotsInsufficient(f"pilots: {reason}")


def _does_not_fall(n: Floats, distance: Floats, correct: NDArray[np.bool_], deviations: Floats) -> str | None:
    """One-sided test of the slope of error over log n within distances, over test images and draws (with degrees of
    freedom as Satterthwaite 1946)."""
    log_n = np.log(n)
    for value in np.unique(distance):
        log_n[distance == value] -= log_n[distance == value].mean()
    spread = float((log_n**2).sum())
    if spread < TINY:
        return "no distance was tried with two numbers of images or more"
    contrast = log_n / spread
    by_image = contrast @ (1 - correct.mean(axis=1))
    images, seeds = len(by_image), correct.shape[1]
    of_images, of_draws = float(by_image.var(ddof=1)) / images, float(((contrast @ deviations) ** 2).sum())
    variance = of_images + of_draws
    doubt = of_images**2 / (images - 1) + of_draws**2 / max(1, seeds - 1)
    quantile = float(special.stdtrit(variance**2 / doubt, RATE)) if doubt > 0 else 0.0
    doublings = math.log(2) * float(by_image.mean()), math.log(2) * math.sqrt(variance)
    if doublings[0] + quantile * doublings[1] < 0:
        return None
    return (
        f"their error does not fall with the number of images beyond noise ({100 * doublings[0]:+.2f} points for twice "
        f"as many, standard error {100 * doublings[1]:.2f}); use more test images, seeds or images"
    )


def _does_not_fit(fitted: Fit) -> str | None:
    if fitted.r2 < LEAST_R2:
        return f"the law explains {fitted.r2:.2f} of the variance of their errors (R²), less than {LEAST_R2}"
    if not fitted.left_out_points <= MOST_LEFT_OUT_POINTS:
        return (
            f"fitted without one size, the law is {fitted.left_out_points:.2f} points off that size, "
            f"more than {MOST_LEFT_OUT_POINTS:g}; use more seeds or images (`seeds`, `images`)"
        )
    return None
