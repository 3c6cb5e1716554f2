"""The request for a subset, and the record of the result. Pure: needs no codec and no store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from keepmore.spec import budget as budgets
from keepmore.spec.budget import Budget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Selection


@dataclass(frozen=True, slots=True)
class SubsetSpec:
    """The budget and order that all variants of a subset share; `budget_bytes` is the value of `budget`, or None."""

    job: str
    budget: Budget | None
    budget_bytes: int | None
    selection: Selection
    effort: int

    def as_json(self) -> dict[str, Any]:
        return {
            "job": self.job,
            "budget": budgets.as_json(self.budget),
            "budget_bytes": self.budget_bytes,
            "selection": asdict(self.selection),
            "effort": self.effort,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> SubsetSpec:
        budget, selection = budgets.from_json(record["budget"]), Selection(**record["selection"])
        return SubsetSpec(record["job"], budget, record["budget_bytes"], selection, record["effort"])


@dataclass(frozen=True, slots=True)
class SpreadResult:
    """The result of a spread: how its distances were scaled, and how many images are kept at each."""

    scale: float
    distances: dict[str, int]

    def describe(self) -> str:
        used = sorted(map(float, self.distances)) or [ORIGINAL]
        return f"distances {text(used[0])} to {text(used[-1])}, scaled by {self.scale:.4g}"


@dataclass(frozen=True, slots=True)
class FitDistance:
    """The result of a fit: its distance, and whether one more image would be over the budget there."""

    distance: float
    exact: bool

    def describe(self) -> str:
        at = f"distance {text(self.distance)}"
        if self.exact:
            return at
        if self.distance == ORIGINAL:
            return f"{at}: the budget holds more originals than that"
        return f"{at}, the nearest one: the budget holds another image"


RuleResult = SpreadResult | FitDistance
RESULTS: tuple[type[RuleResult], ...] = get_args(RuleResult)


def rule_result(record: Mapping[str, Any]) -> RuleResult:
    """The result of a rule, from its record, whose fields tell the kind. Raises ValueError for those of no kind."""
    for kind in RESULTS:
        if set(record) == {field.name for field in fields(kind)}:
            return kind(**record)
    raise ValueError(f"a rule's result with the fields {', '.join(sorted(record))} is not one of this release")


@dataclass(frozen=True, slots=True)
class SubsetRow:
    """What is kept in a variant: `manifest` is an address, `classes` counts images, `levels` is a rule's result."""

    images: int
    bytes: int
    digest: str
    manifest: str
    classes: dict[str, int]
    levels: RuleResult | None = None

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        return record if self.levels else {name: value for name, value in record.items() if name != "levels"}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> SubsetRow:
        levels = record.get("levels")
        return SubsetRow(**{**record, "levels": rule_result(levels) if levels else None})


@dataclass(frozen=True, slots=True)
class Subset:
    """The record of a subset: `pool_images` is how many there were to choose from; rows are by the variants' names."""

    spec: SubsetSpec
    id: str
    pool_images: int
    rows: dict[str, SubsetRow]

    def as_json(self) -> dict[str, Any]:
        rows = {variant: row.as_json() for variant, row in self.rows.items()}
        return {**self.spec.as_json(), "subset": self.id, "pool_images": self.pool_images, "distances": rows}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Subset:
        rows = {variant: SubsetRow.from_json(row) for variant, row in record["distances"].items()}
        return Subset(SubsetSpec.from_json(record), record["subset"], record["pool_images"], rows)
