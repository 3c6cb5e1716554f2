"""The report of a job as one self-contained page with plots and photographs."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from keepmore.codec import jpegxl
from keepmore.codec import version as codec_version
from keepmore.compression import index
from keepmore.datasets.reader import SourceReader
from keepmore.jobs.job import Job
from keepmore.net.access import Access
from keepmore.reporting import html as pages
from keepmore.reporting import plots, verdicts
from keepmore.reporting.figures import Figures
from keepmore.reporting.verdicts import Rows
from keepmore.selection.subset import rule_result
from keepmore.spec.distance import ORIGINAL, text
from keepmore.storage import layout
from keepmore.storage.base import Store

PHOTOGRAPHS = 2
CROP_PIXELS = 320
LADDER_SHOWN = 5  # one photograph for this many levels of a ladder


@dataclass(frozen=True, slots=True)
class Version:
    """A photograph at a distance: `picture` is a data URI of its middle."""

    distance: str
    bytes: int
    encoding: str
    picture: str


@dataclass(frozen=True, slots=True)
class Photograph:
    path: str
    label: str | None
    versions: list[Version]


def page(job: Job, store: Store, figures: Figures, access: Access) -> str:
    """The report as one HTML page that needs no other file."""
    return html(figures.as_json(), list(_photographs(job, store, access)))


def html(report: Mapping[str, Any], photographs: Sequence[Photograph]) -> str:
    """The page of a report's JSON, also of an earlier release's."""
    rows, comparison = report["distances"], report.get("comparison")
    trained = "top1" in rows[0]
    filters: dict[str, Callable[..., str]] = {
        "rule_result": lambda row: rule_result(row["levels"]).describe() if row.get("levels") else "",
        "points": lambda ends: " to ".join(f"{100 * end:+.1f}" for end in ends),
        "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    }
    return pages.render(
        "report.html",
        filters,
        **report,
        trained=trained,
        plots=_subset_plots(report) | (_training_plots(rows) if trained else {}),
        photographs=photographs,
        headline=headline(report),
        judged=verdicts.by_variant(comparison),
        verdicts=verdicts.table(comparison),
        best=verdicts.best(rows) if trained else None,
        grid=verdicts.grid(rows),
        kept=verdicts.weights(rows),
        places=verdicts.folders(rows),
    )


def _subset_plots(report: Mapping[str, Any]) -> dict[str, str]:
    rows = report["distances"]
    svgs = {"images": plots.images_kept(rows)}
    if fixed := _fixed(rows):
        svgs["bytes"] = plots.bytes_per_image_chart(fixed)
    if report["index"]["classes"]:
        svgs["classes"] = plots.class_balance(rows)
    return svgs


def _training_plots(rows: Rows) -> dict[str, str]:
    """The plots of a training, as far as its results have the data."""
    svgs = {"accuracy": plots.accuracy(rows)}
    if rows[0].get("monthly_cost") is not None:
        svgs["cost"] = plots.accuracy_and_cost(rows)
    if all(run["loss"] for row in rows for run in row.get("curves", [{"loss": None}])):
        svgs["loss"] = plots.loss(rows)
    best = verdicts.best(rows)
    if best.get("confusion"):
        svgs["confusion"] = plots.confusion(best["confusion"], f"distance {best['distance']}")
    names, tested = verdicts.grid(rows)
    if names:
        svgs["domain"] = plots.domain([row["distance"] for row in rows], names, tested)
    return svgs


def headline(report: Mapping[str, Any]) -> str | None:
    """The job's result in a sentence: its largest distance against the original, at equal storage."""
    rows = _fixed(report["distances"])
    if len(rows) < 2 or report["budget_bytes"] is None or rows[-1]["factor"] is None:
        return None
    first, last = rows[0], rows[-1]
    sentence = f"At equal storage, distance {last['distance']} keeps {last['factor']:.2f} times as many images"
    if "top1" not in first:
        return f"{sentence} as the original files."
    return f"{sentence} as the original files; {verdicts.clause(last, first, report.get('comparison'))}."


def _fixed(rows: Rows) -> Rows:
    """The rows of fixed distances: those with bytes of the whole pool."""
    return [row for row in rows if row["pool_bytes"] is not None]


def _photographs(job: Job, store: Store, access: Access) -> Iterator[Photograph]:
    """Some of the pool's images at every fixed distance or, where there is none, at some of the distances at which all
    images were compressed.
    """
    distances = job.request.distances or job.request.compressed[::LADDER_SHOWN]
    good = (batch.filter(pc.is_null(batch["error_code"])) for batch in index.rows(store, layout.index(job.id)))
    # In an order that does not depend on names or classes.
    rows = (row for batch in good for row in batch.sort_by([("path_hash", "ascending")]).to_pylist())
    with SourceReader(job.request.limits.max_bytes, access) as reader:
        for row in islice(rows, PHOTOGRAPHS):
            versions = [_version(job, store, row, distance, reader) for distance in distances]
            yield Photograph(row["path"], row["label"], versions)


def _version(job: Job, store: Store, row: Mapping[str, Any], distance: float, reader: SourceReader) -> Version:
    """`row` is one of the index."""
    size, encoding = row[index.column("bytes", distance)], row[index.column("encoding", distance)]
    if distance == ORIGINAL:
        data = reader.read(row["source_uri"], row["source_bytes"])
    else:
        sha256, effort = row["source_sha256"], job.request.effort
        data = store.get(layout.object(sha256, encoding, distance, effort, codec_version.codec()))
    picture = _data_uri(jpegxl.decode_rgb(data, job.request.limits.max_pixels))
    return Version(text(distance), size, encoding, picture)


def _data_uri(image: Image.Image) -> str:
    """The middle of an image, pixel for pixel, as lossless WebP."""
    left, top = (max(0, (side - CROP_PIXELS) // 2) for side in image.size)
    crop = image.crop((left, top, min(image.width, left + CROP_PIXELS), min(image.height, top + CROP_PIXELS)))
    buffer = io.BytesIO()
    crop.save(buffer, "WEBP", lossless=True, method=3)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
