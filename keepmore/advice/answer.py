"""Advice as records. Distances are named as `distance.text` does, accuracies are shares of 0..1, intervals are 95 %.

`monthly_cost` is None without a price for 10^9 bytes and month.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from keepmore.spec.advice import AdviceRequest

FORMAT = 1
# Records whose fields are merged into those of the record that contains them.
SPREAD_FIELDS = ("prediction", "origin")

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The accuracy predicted for `images` images, and the bytes that they take; `extrapolated`: far from all pilots."""

    images: int
    bytes: int
    monthly_cost: float | None
    accuracy: float
    interval: Interval
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class PoolDistance:
    """The size of the whole pool at a distance."""

    distance: str
    bytes_per_image: float
    bytes: int
    monthly_cost: float | None


@dataclass(frozen=True, slots=True)
class PoolSizes:
    images: int
    labelled: int
    distances: list[PoolDistance]


@dataclass(frozen=True, slots=True)
class Pilot:
    """A pilot as it was measured, and the law's accuracy for it."""

    distance: str
    images: int
    bytes_per_image: float
    top1: float
    interval: Interval
    predicted: float


@dataclass(frozen=True, slots=True)
class Constant:
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class LawFit:
    """The law's constants by name, how well it describes its pilots (see `scaling_law.Fit`), and the bootstrap."""

    constants: dict[str, Constant]
    r2: float
    rmse: float
    left_out_points: float
    replicates: int
    seed: int


@dataclass(frozen=True, slots=True)
class BudgetDistance:
    """What fits a budget at one distance."""

    distance: str
    whole_pool: bool
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Recommended(BudgetDistance):
    """The best distance; `alike` are those that the pilots cannot distinguish from it."""

    alike: list[str]


@dataclass(frozen=True, slots=True)
class Lead:
    """How much more accurate the best distance is than another one."""

    difference: float
    interval: Interval
    verdict: Literal["same", "better", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Plain(BudgetDistance):
    """Distance 8, the rule of thumb, and the recommendation's lead over it."""

    ahead: Lead


@dataclass(frozen=True, slots=True)
class Optimum:
    """The law's own optimum, at any distance within the requested ones."""

    distance: str
    bytes_per_image: float
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class BudgetAdvice:
    """The advice for one budget; `plain` is None where distance 8 was not requested or holds no image."""

    bytes: int
    monthly_cost: float | None
    distances: list[BudgetDistance]
    recommended: Recommended
    optimum: Optimum
    plain: Plain | None


@dataclass(frozen=True, slots=True)
class Limit:
    """The accuracy in the limit of infinitely many images like the pool's."""

    accuracy: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Most:
    """The whole pool at its best distance."""

    distance: str
    prediction: Prediction
    limit: Limit


@dataclass(frozen=True, slots=True)
class TargetAdvice:
    """The smallest budget that reaches an accuracy; without distance and prediction where the pool does not reach it.

    `reached_share` is that of the bootstrap's laws; an end of `bytes_interval` is None where the pool does not suffice.
    """

    accuracy_wished: float
    reached: bool
    reached_share: float
    bytes_interval: tuple[int | None, int | None]
    most: Most
    distance: str | None = None
    prediction: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """Predictions for growing numbers of images at a distance."""

    distance: str
    bytes_per_image: float
    points: list[Prediction]


@dataclass(frozen=True, slots=True)
class EnvelopePoint:
    """The best distance at a budget."""

    distance: str
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that an advice answers, the job that it is about, and how many images its pilots had."""

    advice: str
    job: str
    request: AdviceRequest
    pilot_images: int


@dataclass(frozen=True, slots=True)
class Advice:
    format: int
    pool: PoolSizes
    price_per_gb_month: float | None
    test_images: int
    seeds: int
    pilots: list[Pilot]
    fit: LawFit
    budgets: list[BudgetAdvice]
    wished: TargetAdvice | None
    curves: list[Curve]
    envelope: list[EnvelopePoint]
    origin: Origin | None = None

    def as_json(self) -> dict[str, Any]:
        return _record_as_json(self)


def _record_as_json(record: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in fields(record):
        value = _as_json(getattr(record, each.name))
        if each.name not in SPREAD_FIELDS:
            values[each.name] = value
        elif value is not None:
            values |= value
    return values


def _as_json(value: Any) -> Any:
    if isinstance(value, AdviceRequest):
        return value.as_json()
    if hasattr(value, "__dataclass_fields__"):
        return _record_as_json(value)
    if isinstance(value, Mapping):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_as_json(each) for each in value]
    return value
