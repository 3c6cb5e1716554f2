"""The answer to an estimate's request, as a record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from keepmore.spec.estimate import EstimateRequest


@dataclass(frozen=True, slots=True)
class Figure:
    """An expected value with its interval."""

    expected: int
    low: int
    high: int

    @staticmethod
    def of(expected: float, low: float, high: float) -> Figure:
        return Figure(round(expected), math.floor(low), math.ceil(high))


@dataclass(frozen=True, slots=True)
class DistanceEstimate:
    """Bytes that the pool takes at a distance, and how many of its images fit the budget, where there is one."""

    bytes: Figure
    images: Figure | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a pool of `images` takes, estimated from `sampled` of them; intervals contain the true value with
    probability `rate`."""

    images: int
    sampled: int
    rate: float
    failed: Figure
    source_bytes: Figure
    budget_bytes: Figure | None
    distances: dict[str, DistanceEstimate]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EstimateAnswer:
    """`skipped` counts listed entries that are not images, by reason."""

    request: EstimateRequest
    skipped: dict[str, int]
    estimate: Estimate

    def as_json(self) -> dict[str, Any]:
        return {"request": self.request.as_json(), "skipped": self.skipped, **self.estimate.as_json()}
