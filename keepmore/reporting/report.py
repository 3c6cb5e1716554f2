"""Figures of a job -> report.json, and one self-contained page with plots and photographs."""

from __future__ import annotations

import base64
import io
import json
import platform
import shlex
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from keepmore import __version__
from keepmore.codec import jpegxl
from keepmore.codec import version as codec_version
from keepmore.compression import index, merge
from keepmore.compression.index import Summary
from keepmore.datasets.reader import SourceReader
from keepmore.jobs.job import Job
from keepmore.net.access import Access
from keepmore.reporting import html as pages
from keepmore.reporting import plots, verdicts
from keepmore.spec import variants as variant_specs
from keepmore.spec.budget import BYTES_PER_GB, BytesBudget, DistanceBudget, MoneyBudget
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Request
from keepmore.spec.training import Training, tuning_words
from keepmore.storage import layout
from keepmore.storage.base import Store

FORMAT = 1
EXAMPLES = 200
PHOTOGRAPHS = 2
CROP_PIXELS = 320
LADDER_SHOWN = 5  # every so many levels of a ladder there is a photograph


def figures(job: Job, store: Store) -> dict[str, Any]:
    """Everything the report says, as plain data: what was asked, what came out, and what ran."""
    request = job.request
    summary = Summary.from_json(json.loads(store.get(layout.index_summary(job.id))))
    check = json.loads(store.get(layout.codec_check(job.id)))
    made = json.loads(store.get(layout.subset(job.id, request.subset_id)))
    rows = _distances(job, store, summary, made["distances"])
    training = request.training_id if request.training else None
    return {
        "format": FORMAT,
        "job": job.id,
        "created_at": job.created_at,
        "request": request.as_json(),
        "command": command(request),
        "versions": {"keepmore": __version__, "python": platform.python_version(), "numpy": version("numpy")}
        | {"pyarrow": version("pyarrow")}
        | codec_version.versions(),
        "codec": codec_version.codec(),
        "index": summary.as_json(),
        "skipped": json.loads(store.get(layout.listing(job.id)))["skipped"],
        "warnings": check["warnings"] + _warnings(summary, rows),
        "distances": rows,
        "budget_bytes": made["budget_bytes"],
        "subset": made["subset"],
        "training": training,
        "comparison": training and json.loads(store.get(layout.comparison(job.id, training))),
        "errors": [
            image.as_json()
            for image in islice(index.errors(store, layout.index(job.id), layout.evaluation(job.id)), EXAMPLES)
        ],
    }


def _distances(job: Job, store: Store, summary: Summary, subsets: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a variant: bytes of the pool, then the subset, then the training if there is one.

    Of levels there are no bytes of the pool: they depend on the budget.
    """
    request = job.request
    rows: list[dict[str, Any]] = []
    first = subsets.get(text(ORIGINAL), {}).get("images")
    pools = {text(distance): _pool(summary, distance) for distance in request.distances}
    for variant in request.variants:
        row: dict[str, Any] = {"distance": variant, "pool_bytes": None, "bytes_per_image": None, "encodings": None}
        row |= pools.get(variant, {}) | subsets[variant]
        row["factor"] = row["images"] / first if first else None
        if isinstance(request.budget, MoneyBudget):
            row |= _costs(row, request.budget)
        if request.training:
            row |= json.loads(store.get(layout.training(job.id, request.training_id, variant)))
        rows.append(row)
    return rows


def _costs(row: dict[str, Any], budget: MoneyBudget) -> dict[str, float | None]:
    """What the kept images cost a month, and what the whole pool would."""
    price = float(budget.price_per_gb_month) / BYTES_PER_GB
    whole = row["pool_bytes"]
    return {"monthly_cost": price * row["bytes"], "pool_monthly_cost": None if whole is None else price * whole}


def _pool(summary: Summary, distance: float) -> dict[str, Any]:
    return {
        "pool_bytes": summary.pool_bytes[distance],
        "bytes_per_image": summary.pool_bytes[distance] / max(1, summary.pool),
        "encodings": summary.encodings.get(distance, {"original": summary.pool}),
    }


def _warnings(summary: Summary, rows: list[dict[str, Any]]) -> list[str]:
    found = []
    if len(summary.classes) == 1:
        found.append(f"every label is {next(iter(summary.classes))}: is the dataset one folder too deep?")
    found += verdicts.notes(rows)
    if count := summary.errors.get(merge.IN_EVALUATION):
        found.append(f"{count} images of the pool are byte for byte images of the evaluation split, so none is kept")
    if summary.unlabelled and summary.classes:
        found.append(f"{summary.unlabelled} images have no label: they may be kept, and no model is trained on them")
    return found


def command(request: Request) -> str:
    """The command line that asks for `request` again."""
    words = ["keepmore", "run", request.dataset, "--distances", variant_specs.written(request.distances, request.rules)]
    words += ["--effort", str(request.effort)]
    if request.budget:
        words += ["--budget", _written_budget(request.budget)]
    words += ["--order", request.selection.order, "--seed", str(request.selection.seed)]
    if request.selection.balance is not None:
        words.append("--balance" if request.selection.balance else "--no-balance")
    if request.evaluation:
        held_out = request.evaluation.holdout
        words += ["--evaluate", request.evaluation.dataset or ""] if held_out is None else ["--holdout", str(held_out)]
    if request.training:
        words += _training_words(request.training)
    words += ["--max-pixels", str(request.limits.max_pixels), "--max-bytes", str(request.limits.max_bytes)]
    return shlex.join(words)


def _training_words(training: Training) -> list[str]:
    words = ["--train", training.model, "--weights", training.weights, "--method", training.method]
    words += ["--steps", str(training.steps), "--seeds", str(training.seeds)]
    if training.epochs is not None:
        words += ["--epochs", str(training.epochs)]
    if training.test_distances:
        words += ["--test-distances", ",".join(map(text, training.test_distances))]
    for word in tuning_words(training.tuning) if training.tuning else ():
        words += ["--tune", word]
    return words


def _written_budget(budget: BytesBudget | DistanceBudget | MoneyBudget) -> str:
    match budget:
        case BytesBudget(size):
            return str(size)
        case DistanceBudget(distance, fraction):
            return f"as:{text(distance)}*{fraction}"
        case MoneyBudget(cost, price):
            return f"cost:{cost}@{price}"


def page(job: Job, store: Store, made: dict[str, Any], access: Access) -> str:
    """The report as one HTML page that needs nothing beside it."""
    return html(made, list(_photographs(job, store, access)))


def html(made: dict[str, Any], photographs: Sequence[dict[str, Any]]) -> str:
    """The page of what `figures` gave, also of an earlier release's."""
    rows = made["distances"]
    drawn = {"images": plots.images_kept(rows)}
    if fixed := _fixed(rows):
        drawn["bytes"] = plots.bytes_an_image(fixed)
    if made["index"]["classes"]:
        drawn["classes"] = plots.class_balance(rows)
    trained = "top1" in rows[0]
    if trained:
        drawn |= _drawn(rows)
    filters: dict[str, Callable[..., str]] = {
        "told": variant_specs.told,
        "points": lambda ends: " to ".join(f"{100 * end:+.1f}" for end in ends),
        "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    }
    compared = made.get("comparison")
    return pages.render(
        "report.html",
        filters,
        **made,
        trained=trained,
        plots=drawn,
        photographs=photographs,
        headline=headline(made),
        judged=verdicts.by_arm(compared),
        verdicts=verdicts.table(compared),
        best=verdicts.best(rows) if trained else None,
        grid=verdicts.grid(rows),
        kept=verdicts.kept(rows),
        places=verdicts.places(rows),
    )


def _drawn(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The plots of a training, as far as its results have what they show."""
    drawn = {"accuracy": plots.accuracy(rows)}
    if rows[0].get("monthly_cost") is not None:
        drawn["cost"] = plots.accuracy_and_cost(rows)
    if all(run["loss"] for row in rows for run in row.get("curves", [{"loss": None}])):
        drawn["loss"] = plots.loss(rows)
    best = verdicts.best(rows)
    if best.get("confusion"):
        drawn["confusion"] = plots.confusion(best["confusion"], f"distance {best['distance']}")
    names, tested = verdicts.grid(rows)
    if names:
        drawn["domain"] = plots.domain([row["distance"] for row in rows], names, tested)
    return drawn


def headline(made: dict[str, Any]) -> str | None:
    """What the job found, in a sentence: its largest distance against the original, at equal storage."""
    rows = _fixed(made["distances"])
    if len(rows) < 2 or made["budget_bytes"] is None or rows[-1]["factor"] is None:
        return None
    first, last = rows[0], rows[-1]
    found = f"At equal storage, distance {last['distance']} keeps {last['factor']:.2f} times as many images"
    if "top1" not in first:
        return f"{found} as the original files."
    judged = verdicts.clause(last, first, made.get("comparison"))
    return f"{found} as the original files; {judged}."


def _fixed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of fixed distances: those with bytes of the whole pool."""
    return [row for row in rows if row["pool_bytes"] is not None]


def _photographs(job: Job, store: Store, access: Access) -> Iterator[dict[str, Any]]:
    """Some of the pool's images at every fixed distance, or where there is none at some of those that all images were
    compressed at: their bytes, and the middle of each as a browser can show it.
    """
    distances = job.request.distances or job.request.compressed[::LADDER_SHOWN]
    for row in islice(_readable_rows(store, layout.index(job.id)), PHOTOGRAPHS):
        versions = []
        for distance in distances:
            encoding = row[index.column("encoding", distance)]
            key = layout.object(row["source_sha256"], encoding, distance, job.request.effort, codec_version.codec())
            data = _source(job, row, access) if distance == ORIGINAL else store.get(key)
            versions.append(
                {
                    "distance": text(distance),
                    "bytes": row[index.column("bytes", distance)],
                    "encoding": encoding,
                    "picture": _inline(jpegxl.decode_rgb(data, job.request.limits.max_pixels)),
                }
            )
        yield {"path": row["path"], "label": row["label"], "versions": versions}


def _readable_rows(store: Store, key: str) -> Iterator[dict[str, Any]]:
    """Good rows of the index, in an order that has nothing to do with their names or classes."""
    for batch in index.rows(store, key):
        good = batch.filter(pc.is_null(batch["error_code"]))
        yield from good.sort_by([("path_hash", "ascending")]).to_pylist()


def _source(job: Job, row: dict[str, Any], access: Access) -> bytes:
    with SourceReader(job.request.limits.max_bytes, access) as reader:
        return reader.read(row["source_uri"], row["source_bytes"])


def _inline(image: Image.Image) -> str:
    """The middle of an image, pixel for pixel, as a data URI of lossless WebP."""
    left, top = (max(0, (side - CROP_PIXELS) // 2) for side in image.size)
    crop = image.crop((left, top, min(image.width, left + CROP_PIXELS), min(image.height, top + CROP_PIXELS)))
    buffer = io.BytesIO()
    crop.save(buffer, "WEBP", lossless=True, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
