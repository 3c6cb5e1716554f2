"""Accuracy from right and wrong answers: intervals, and which of two variants is better. Pure: arrays in, numbers out.

A variant is one way to train. `correct` says for every seed (a training of its own) and every test image whether the
model was right; shape (seeds, test images). All variants share their test images, and no two share a training. Seeds
and images are crossed, so an accuracy varies with both: the two-way random effects model (Owen 2007, "The pigeonhole
bootstrap", section 2, has the variances).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from keepmore.training.results import ClassAccuracy, Comparison, Difference, Summary, Verdict

Z_95 = 1.959963984540054
RATE = 0.95
# Fewer test images that were ever wrong (or ever right) do not show how far seeds agree on them.
FEW_IMAGES = 10

Correct = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a variance, and the degrees of freedom it was estimated with. A part that is subtracted is negative."""

    variance: float
    freedom: float


def wilson(share: float, images: float, z: float = Z_95) -> tuple[float, float]:
    """The score interval for a share of `images` (Wilson 1927), within 0..1; 95 % unless `z` says otherwise."""
    middle = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(correct: Correct) -> Summary:
    """Top-1 of a variant from `correct`, shape (seeds, test images), with an interval for new images and new seeds.

    Var(mean) = Var(images)/n + Var(seeds)/S - MS(interaction)/(n S), where the last two count only when they are above
    0 together. The interval is Wilson's score interval (1927) of the effective sample size p (1 - p) / Var(mean), with
    a quantile of Student's t whose degrees of freedom are Satterthwaite's (1946). So it stays within 0..1 and has a
    width at 0 % and 100 % too. Of one seed, it is the plain one over test images. Raises ValueError without an answer.
    """
    seeds, images = _shape(correct)
    by_seed = correct.mean(axis=1)
    top1 = float(by_seed.mean())
    if seeds == 1 or images == 1:
        interval = wilson(top1, images)
        kind = "95 % Wilson interval over the test images; how much seeds differ is not counted"
    else:
        by_image = correct.mean(axis=0)
        variance, freedom = _total([_Part(float(by_image.var(ddof=1)) / images, images - 1), *_seed_parts(correct)])
        # How many independent answers would leave the same variance; at most as many as there are.
        effective = min(top1 * (1 - top1) / variance, correct.size) if variance > 0 else correct.size
        if min(correct.any(axis=0).sum(), (~correct).any(axis=0).sum()) < FEW_IMAGES:
            effective = min(effective, images)
        interval = wilson(top1, effective, _quantile(freedom))
        kind = "95 % Wilson interval over test images and seeds"
    deviation = float(by_seed.std(ddof=1)) if seeds > 1 else None
    return Summary(images, top1, interval, kind, tuple(by_seed.tolist()), deviation)


def _shape(correct: Correct) -> tuple[int, int]:
    if correct.ndim != 2 or correct.size == 0:
        raise ValueError(f"correct: shape {correct.shape} is not (seeds, test images), one of each or more")
    return correct.shape[0], correct.shape[1]


def _seed_parts(correct: Correct) -> list[_Part]:
    """The contribution of seeds to the variance of a variant's mean; zero where they differ by no more than chance."""
    seeds, images = correct.shape
    if seeds < 2:
        return []
    by_seed, by_image = correct.mean(axis=1), correct.mean(axis=0)
    residuals = correct - by_seed[:, None] - by_image + by_seed.mean()
    freedom = (seeds - 1) * (images - 1)
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    by_chance = float((residuals**2).sum()) / freedom / (seeds * images)
    return [_Part(of_seeds, seeds - 1), _Part(-by_chance, freedom)] if of_seeds > by_chance else []


def _total(parts: Sequence[_Part]) -> tuple[float, float]:
    """The variance of all parts, and its degrees of freedom (Satterthwaite 1946)."""
    variance = sum(part.variance for part in parts)
    doubt = sum(part.variance**2 / part.freedom for part in parts)
    return variance, variance**2 / doubt if doubt > 0 else parts[0].freedom


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + RATE) / 2))


def compare(ours: Correct, theirs: Correct) -> Difference:
    """Top-1 of `ours` less that of `theirs`, shapes (seeds, test images) with the same images in both.

    The interval is paired over images and counts the seeds of both variants, as `summary` does; a variant of one seed
    borrows the other's variance between seeds. Half an answer is added to each cell of the table of pairs (Agresti and
    Min 2005), so that variants that agree on everything still get an interval. Where both variants have one seed, p is
    that of McNemar's exact test (1947), and it is about these two models, not about other seeds. Raises ValueError
    where the shapes do not match, or for fewer than two test images.
    """
    images = _shape(ours)[1]
    if _shape(theirs)[1] != images or images < 2:
        raise ValueError(f"the variants have {images} and {theirs.shape[1]} test images; they share two or more")
    by_image = ours.mean(axis=0) - theirs.mean(axis=0)
    middle = float(by_image.sum()) / (images + 2)
    spread = (float((by_image**2).sum()) + 1) / (images + 2) - middle**2
    if len(ours) > 1 and len(theirs) > 1:
        seed_parts = _seed_parts(ours) + _seed_parts(theirs)
    else:  # the variance of one seed more, beside that of the mean of several
        several = max(ours, theirs, key=len)
        seed_parts = [_Part(part.variance * (1 + len(several)), part.freedom) for part in _seed_parts(several)]
    variance, freedom = _total([_Part(spread / (images + 1), images - 1), *seed_parts])
    half = _quantile(freedom) * math.sqrt(variance)
    interval = max(-1.0, middle - half), min(1.0, middle + half)
    difference = float(by_image.mean())
    if len(ours) == len(theirs) == 1:
        method = "McNemar's exact test over test images; seeds are not counted"
        only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        tail = special.bdtr(min(only_ours, only_theirs), only_ours + only_theirs, 0.5)
        p_value = 1.0 if only_ours == only_theirs else min(1.0, 2 * float(tail))
    else:
        p_value = float(2 * special.stdtr(freedom, -abs(middle) / math.sqrt(variance)))
        method = "paired t over test images and seeds"
    return Difference(difference, interval, p_value, _verdict(difference, p_value), method)


def _verdict(difference: float, p_value: float) -> Verdict:
    if p_value >= 1 - RATE:
        return "cannot tell"
    return "better" if difference > 0 else "worse"


def comparisons(correct: Mapping[str, Correct]) -> list[Comparison]:
    """Every variant against the first one (the reference), then every variant against the one with the highest top-1.

    `correct`: arrays of shape (seeds, test images) by the variant's name. Within each of the two families p values are
    adjusted as Holm (1979) does, and verdicts follow them. The best variant is picked by the same test images, which
    overestimates it slightly. Nothing is compared on one test image. Raises ValueError as `compare` does.
    """
    if not correct or any(answers.shape[-1] < 2 for answers in correct.values()):
        return []
    best = max(correct, key=lambda name: float(correct[name].mean()))
    return [*_family(correct, next(iter(correct)), "reference"), *_family(correct, best, "best")]


def _family(correct: Mapping[str, Correct], against: str, family: Literal["reference", "best"]) -> list[Comparison]:
    differences = {name: compare(ours, correct[against]) for name, ours in correct.items() if name != against}
    adjusted = holm([difference.p_value for difference in differences.values()])
    return [
        Comparison(name, against, family, difference, p_value, _verdict(difference.difference, p_value))
        for (name, difference), p_value in zip(differences.items(), adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, in their order, adjusted for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.asarray(p_values)[order] * factors))
    in_order: list[float] = adjusted.tolist()
    return in_order


def per_class(correct: Correct, truth: NDArray[np.integer[Any]], classes: Sequence[str]) -> dict[str, ClassAccuracy]:
    """Test images, top-1 and its interval for every class that has a test image.

    `correct` has shape (seeds, test images), `truth` the number of each image's class in `classes`, shape (images,).
    """
    accuracies = {}
    for number, name in enumerate(classes):
        of_class = truth == number
        if of_class.any():
            result = summary(correct[:, of_class])
            accuracies[name] = ClassAccuracy(result.test_images, result.top1, result.interval)
    return accuracies


def confusion(predicted: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], classes: int) -> NDArray[np.int64]:
    """How often each class was predicted for each: shape (classes, classes), rows the truth, summed over seeds.

    `predicted` has shape (seeds, test images), `truth` (test images,); both are numbers of 0..classes - 1, or
    ValueError is raised.
    """
    pairs = truth.astype(np.int64) * classes + predicted
    numbers = np.concatenate([predicted.ravel(), truth])
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < classes:
        raise ValueError(f"class numbers run from {numbers.min()} to {numbers.max()}; there are {classes} classes")
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)
