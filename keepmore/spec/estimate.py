"""A request for an estimate: a frozen record, its checks, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from keepmore.spec import budget as budgets
from keepmore.spec import distance as distances
from keepmore.spec.budget import Budget, DistanceBudget
from keepmore.spec.fields import check_fields, described
from keepmore.spec.job import EFFORT, SEED, Limits, Selection

SAMPLE_IMAGES = 128


@dataclass(frozen=True, slots=True)
class EstimateRequest:
    """What `dataset` would take at `distances`, estimated from a sample of `images` of its images."""

    dataset: str
    distances: tuple[float, ...]
    effort: int = described(3, **EFFORT)
    budget: Budget | None = None
    selection: Selection = field(default_factory=Selection)
    limits: Limits = field(default_factory=Limits)
    images: int = described(SAMPLE_IMAGES, least=2, most=10_000, description="How many to sample.")
    seed: int = described(0, **SEED)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distances", distances.check(self.distances))
        check_fields(self)
        if isinstance(self.budget, DistanceBudget):
            self.budget.bytes(dict.fromkeys(self.distances, 0))

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"budget": budgets.as_json(self.budget), "distances": list(self.distances)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> EstimateRequest:
        """The request that `as_json` wrote."""
        parts = {
            "distances": tuple(record["distances"]),
            "budget": budgets.from_json(record["budget"]),
            "selection": Selection(**record["selection"]),
            "limits": Limits(**record["limits"]),
        }
        return EstimateRequest(**{**record, **parts})
