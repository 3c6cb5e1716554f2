"""Requests for jobs: frozen records, their checks, and their JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from keepmore import sampling
from keepmore.errors import InvalidRequest
from keepmore.spec import budget as budgets
from keepmore.spec import variants as variant_specs
from keepmore.spec.budget import LARGEST_BYTES, Budget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.fields import check_fields, described
from keepmore.spec.training import Training
from keepmore.spec.variants import FitCount, VariantSpec

# Pillow refuses more than this on its own, so a higher limit would have no effect.
LARGEST_PIXELS = 178_956_970
ID_DIGITS = 12
OWN = "own"  # instead of its id: the subset of the job's own request

SEED: dict[str, Any] = {"least": 0, "most": 2**63 - 1}
EFFORT: dict[str, Any] = {"least": 1, "most": 10}


@dataclass(frozen=True, slots=True)
class Selection:
    """How images are ordered before the longest prefix that fits is taken; `balance` None: where there are labels."""

    order: str = described("random", choices=tuple(sampling.ORDERS))
    balance: bool | None = described(None, description="Fill the classes in turn; null: where there are labels.")
    seed: int = described(0, **SEED)

    def __post_init__(self) -> None:
        check_fields(self, "selection.")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Images to test on: a dataset of their own, or a fraction of every class held out of the pool."""

    dataset: str | None = None
    holdout: float | None = None
    seed: int = described(0, **SEED)

    def __post_init__(self) -> None:
        if (not self.dataset) == (self.holdout is None):
            raise InvalidRequest(
                "give one of `dataset` (in the command --evaluate) and `holdout` (--holdout)", field="evaluation"
            )
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise InvalidRequest(
                f"{self.holdout} is not a part of the images; use 0.2, for example", field="evaluation.holdout"
            )
        check_fields(self, "evaluation.")


@dataclass(frozen=True, slots=True)
class SubsetRequest:
    """Which images to choose: as many as fit `budget` (None: all), in the order that `selection` says."""

    budget: Budget | None = None
    selection: Selection = field(default_factory=Selection)

    @property
    def id(self) -> str:
        """Names the subset: the same request has the same name."""
        return _digest([budgets.as_json(self.budget), asdict(self.selection)])

    def as_json(self) -> dict[str, Any]:
        return {"budget": budgets.as_json(self.budget), "selection": asdict(self.selection)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> SubsetRequest:
        return SubsetRequest(budgets.from_json(record["budget"]), Selection(**record["selection"]))


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on one image, checked before it is decoded; a larger one is a row in the errors list."""

    max_pixels: int = described(64_000_000, least=1, most=LARGEST_PIXELS)
    max_bytes: int = described(100_000_000, least=1, most=LARGEST_BYTES)

    def __post_init__(self) -> None:
        check_fields(self, "limits.")


@dataclass(frozen=True, slots=True)
class Request:
    """A job's request, complete and checked. `dataset` and `evaluation.dataset` are absolute URIs.

    `distances` are the fixed ones; `rules` stand beside them, or alone. Without a budget every image of the pool is
    kept. `webhook`: an http(s) URL that is called when the job ends.
    """

    dataset: str
    distances: tuple[float, ...]
    effort: int = described(3, **EFFORT)
    budget: Budget | None = None
    selection: Selection = field(default_factory=Selection)
    evaluation: Evaluation | None = None
    training: Training | None = None
    limits: Limits = field(default_factory=Limits)
    webhook: str | None = described(None, description="An https:// URL that is called when the job ends.")
    rules: tuple[VariantSpec, ...] = ()

    def __post_init__(self) -> None:
        fixed, rules = variant_specs.checked(self.distances, self.rules)
        object.__setattr__(self, "distances", fixed)
        object.__setattr__(self, "rules", rules)
        check_fields(self)
        if isinstance(self.budget, budgets.DistanceBudget):
            self.budget.bytes(dict.fromkeys(self.compressed, 0))
        self.check_budget(self.budget)
        if self.training and not self.evaluation:
            raise InvalidRequest(
                "there is nothing to test on; give an evaluation dataset or a hold-out (`evaluation`; in the command "
                "--evaluate or --holdout)",
                field="training",
            )

    def datasets(self) -> list[tuple[str, str]]:
        """The fields that name a dataset, and what they name."""
        fields = [("dataset", self.dataset)]
        if self.evaluation and self.evaluation.dataset:
            fields.append(("evaluation.dataset", self.evaluation.dataset))
        return fields

    def check_budget(self, budget: Budget | None) -> None:
        """Raises InvalidRequest where the rules need a budget and there is none."""
        if budget is None and self.fits:
            raise InvalidRequest(
                f"{self.fits[0].expression} needs a budget for its images to fill; give one", field="distances"
            )

    @property
    def fits(self) -> tuple[FitCount, ...]:
        return tuple(rule for rule in self.rules if isinstance(rule, FitCount))

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants that are compared: the fixed distances, then the rules. Each has a manifest and a
        training."""
        return (*map(text, self.distances), *(rule.name for rule in self.rules))

    @property
    def compressed(self) -> tuple[float, ...]:
        """The distances at which every image of the pool is compressed, ascending."""
        ladders = (d for rule in self.rules for d in rule.ladder)
        return tuple(sorted({*self.distances, *ladders})) or (ORIGINAL,)

    @property
    def subset(self) -> SubsetRequest:
        return SubsetRequest(self.budget, self.selection)

    @property
    def subset_id(self) -> str:
        return self.subset.id

    @property
    def training_id(self) -> str:
        return training_id(self.subset_id, self.training, self.evaluation)

    def as_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["budget"] = budgets.as_json(self.budget)
        del record["rules"]
        record["distances"] = variant_specs.as_json(self.distances, self.rules)
        record["training"] = self.training and self.training.as_json()
        return record

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Request:
        """The request that `as_json` wrote."""
        evaluation, training = record["evaluation"], record["training"]
        distances, rules = variant_specs.from_json(record["distances"])
        return Request(
            dataset=record["dataset"],
            distances=distances,
            rules=rules,
            effort=record["effort"],
            budget=budgets.from_json(record["budget"]),
            selection=Selection(**record["selection"]),
            evaluation=None if evaluation is None else Evaluation(**evaluation),
            training=None if training is None else Training.from_json(training),
            limits=Limits(**record["limits"]),
            webhook=record.get("webhook"),
        )


def training_id(subset_id: str, training: Training | None, evaluation: Evaluation | None) -> str:
    return _digest([subset_id, training and training.as_json(), evaluation and asdict(evaluation)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]
