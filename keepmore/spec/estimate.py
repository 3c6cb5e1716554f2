"""Questions of what a dataset would take, and their answers, in the store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from keepmore.errors import InvalidRequest
from keepmore.spec import budget as budgets
from keepmore.spec import distance as distances
from keepmore.spec.budget import Budget, DistanceBudget
from keepmore.spec.job import EFFORTS, Limits, Selection

MOST_IMAGES = 10_000
FEWEST_IMAGES = 2
SAMPLE_IMAGES = 128


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """What `dataset` would take at `distances`, judged by so many of its images."""

    dataset: str
    distances: tuple[float, ...]
    effort: int = 3
    budget: Budget | None = None
    selection: Selection = field(default_factory=Selection)
    limits: Limits = field(default_factory=Limits)
    images: int = SAMPLE_IMAGES
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "distances", distances.check(self.distances))
        if self.effort not in EFFORTS:
            raise InvalidRequest(f"{self.effort} is not possible; use {EFFORTS[0]} to {EFFORTS[-1]}", field="effort")
        if not FEWEST_IMAGES <= self.images <= MOST_IMAGES:
            raise InvalidRequest(
                f"{self.images} is not possible; sample {FEWEST_IMAGES} to {MOST_IMAGES:,}", field="images"
            )
        if isinstance(self.budget, DistanceBudget):
            self.budget.bytes(dict.fromkeys(self.distances, 0))

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"budget": budgets.as_json(self.budget), "distances": list(self.distances)}

    @staticmethod
    def from_json(written: dict[str, Any]) -> EstimateRequest:
        """The question that `as_json` wrote."""
        parts = {
            "distances": tuple(written["distances"]),
            "budget": budgets.from_json(written["budget"]),
            "selection": Selection(**written["selection"]),
            "limits": Limits(**written["limits"]),
        }
        return EstimateRequest(**{**written, **parts})


SAMPLE_IMAGES = 128
