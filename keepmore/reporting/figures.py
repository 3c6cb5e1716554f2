"""The content of a report, read from the store: the request, the results and the versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

from keepmore import __version__
from keepmore.codec import version as codec_version
from keepmore.compression import index, merge
from keepmore.compression.index import FailedImage, Summary
from keepmore.compression.listing import Listing
from keepmore.jobs.job import Job
from keepmore.reporting import verdicts
from keepmore.reporting.command import command
from keepmore.selection.subset import Subset, SubsetRow
from keepmore.spec.budget import BYTES_PER_GB, MoneyBudget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Request
from keepmore.storage import layout
from keepmore.storage.base import Store

FORMAT = 1
EXAMPLES = 200


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """The whole pool at a distance. Rules have none: their bytes depend on the budget."""

    pool_bytes: int | None = None
    bytes_per_image: float | None = None
    encodings: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What the kept images cost per month, and what the whole pool would."""

    monthly_cost: float
    pool_monthly_cost: float | None


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """One variant: its pool, its subset, the factor of its images over distance 0, and the training.

    `result` is JSON, because an earlier release may have written it.
    """

    distance: str
    pool: PoolFigures
    subset: SubsetRow
    factor: float | None
    costs: Costs | None
    result: Mapping[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        names = {"distance": self.distance} | asdict(self.pool) | self.subset.as_json() | {"factor": self.factor}
        return names | (asdict(self.costs) if self.costs else {}) | dict(self.result or {})


@dataclass(frozen=True, slots=True)
class Figures:
    """`comparison` is JSON as `result` is; `errors` are rows of the errors list, EXAMPLES at most."""

    job: str
    created_at: str
    request: Request
    index: Summary
    skipped: dict[str, int]
    warnings: list[str]
    variants: list[VariantFigures]
    budget_bytes: int | None
    subset: str
    training: str | None
    comparison: Mapping[str, Any] | None
    errors: Sequence[FailedImage]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "job": self.job,
            "created_at": self.created_at,
            "request": self.request.as_json(),
            "command": command(self.request),
            "versions": {"keepmore": __version__, "python": platform.python_version(), "numpy": version("numpy")}
            | {"pyarrow": version("pyarrow")}
            | codec_version.versions(),
            "codec": codec_version.codec(),
            "index": self.index.as_json(),
            "skipped": self.skipped,
            "warnings": self.warnings,
            "distances": [variant.as_json() for variant in self.variants],
            "budget_bytes": self.budget_bytes,
            "subset": self.subset,
            "training": self.training,
            "comparison": self.comparison,
            "errors": [image.as_json() for image in self.errors],
        }


def figures(job: Job, store: Store) -> Figures:
    request = job.request
    summary = Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))
    subset = Subset.from_json(json.loads(store.get(layout.subset(job.id, request.subset_id))))
    variants = [_variant(job, store, summary, subset, name) for name in request.variants]
    training = request.training_id if request.training else None
    return Figures(
        job=job.id,
        created_at=job.created_at,
        request=request,
        index=summary,
        skipped=Listing.read(store, job.id).skipped,
        warnings=json.loads(store.get(layout.codec_check(job.id)))["warnings"] + _warnings(summary, variants),
        variants=variants,
        budget_bytes=subset.spec.budget_bytes,
        subset=subset.id,
        training=training,
        comparison=json.loads(store.get(layout.comparison(job.id, training))) if training else None,
        errors=list(islice(index.errors(store, layout.index(job.id), layout.evaluation(job.id)), EXAMPLES)),
    )


def _variant(job: Job, store: Store, summary: Summary, subset: Subset, name: str) -> VariantFigures:
    request, row, pool, costs, result = job.request, subset.rows[name], PoolFigures(), None, None
    distances = {text(distance): distance for distance in request.distances}
    if name in distances:
        size, distance = summary.pool_bytes[distances[name]], distances[name]
        encodings = summary.encodings.get(distance, {"original": summary.pool})
        pool = PoolFigures(size, size / max(1, summary.pool), encodings)
    if isinstance(request.budget, MoneyBudget):
        price = float(request.budget.price_per_gb_month) / BYTES_PER_GB
        costs = Costs(price * row.bytes, None if pool.pool_bytes is None else price * pool.pool_bytes)
    if request.training:
        result = json.loads(store.get(layout.training(job.id, request.training_id, name)))
    originals = subset.rows.get(text(ORIGINAL))
    factor = row.images / originals.images if originals and originals.images else None
    return VariantFigures(name, pool, row, factor, costs, result)


def _warnings(summary: Summary, variants: Sequence[VariantFigures]) -> list[str]:
    warnings = []
    if len(summary.classes) == 1:
        warnings.append(
            f"every label is {next(iter(summary.classes))}; where folders are the classes, name the folder that "
            "holds them"
        )
    warnings += verdicts.notes([variant.as_json() for variant in variants])
    if count := summary.errors.get(merge.IN_EVALUATION):
        warnings.append(
            f"images of the pool that are also in the evaluation split, byte for byte, and so not kept: {count:,}"
        )
    if summary.unlabelled and summary.classes:
        warnings.append(
            f"images without a label, which may be kept, but no model is trained on them: {summary.unlabelled:,}"
        )
    return warnings
