"""The figures of reports and advice, as SVG. The only module that imports matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, LogLocator, NullFormatter, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from keepmore.advice.answer import Advice

SIZE_INCHES = (5.2, 3.7)
WIDE_INCHES = (13.2, 3.6)
SQUARE_INCHES = (6.2, 5.6)
MOST_BARS = 40
MOST_CELLS_WRITTEN = 12
BLUE, ORANGE, GRAY = "#1f5fa8", "#d1601f", "#8a8f98"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "keepmore",
    "svg.fonttype": "none",  # the browser has the fonts for class names in any script
    "text.parse_math": False,  # a class may have dollar signs in its name
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e3e6ea",
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}

# Rows of a report: JSON, because reports of earlier releases are drawn, too.
Rows = Sequence[Mapping[str, Any]]


def images_kept(rows: Rows) -> str:
    """Bars: images kept at each distance, with the factor over distance 0."""

    def draw(axes: Axes) -> None:
        counts = [row["images"] for row in rows]
        axes.bar(_names(rows), counts, color=BLUE, width=0.62)
        for place, row in enumerate(rows):
            factor = f"\n{row['factor']:.2f}×" if row["factor"] else ""
            axes.annotate(
                f"{row['images']:,}{factor}", (place, row["images"]), (0, 4), textcoords="offset points", ha="center"
            )
        axes.set_ylim(0, max(1, *counts) * 1.22)
        axes.set_ylabel("images within the budget")

    return _svg(draw, "Images kept at equal storage")


def accuracy(rows: Rows) -> str:
    """Top-1 on the evaluation images with 95 % intervals: a line over the fixed distances, and a point for each rule,
    which does not lie between two of them."""

    def draw(axes: Axes) -> None:
        fixed = [place for place, row in enumerate(rows) if row["pool_bytes"] is not None]
        rules = [place for place in range(len(rows)) if place not in fixed]
        _points(axes, rows, fixed, ORANGE, "-")
        _points(axes, rows, rules, BLUE, "")
        axes.set_xticks(range(len(rows)), _names(rows))
        axes.margins(x=0.08, y=0.12)

    return _svg(draw, "Accuracy at equal storage, 95 % interval")


def _points(axes: Axes, rows: Rows, places: Sequence[float], color: str, line: str) -> None:
    """Top-1 of the rows at `places`: whole numbers name the rows themselves."""
    marked_rows = [rows[int(place)] for place in places]
    if not marked_rows:
        return
    top1 = np.array([row["top1"] for row in marked_rows]) * 100
    ends = np.array([row["interval"] for row in marked_rows]).T * 100
    axes.errorbar(
        places, top1, np.abs(ends - top1), color=color, marker="o", capsize=4, linewidth=2, markersize=6, linestyle=line
    )
    for place, value in zip(places, top1, strict=True):
        axes.annotate(f"{value:.1f}", (place, value), (9, 7), textcoords="offset points", fontsize=10)
    axes.set_ylabel("top-1 accuracy (%)")


def accuracy_and_cost(rows: Rows) -> str:
    """Top-1 with 95 % intervals over the monthly cost of each subset; each point is named."""

    def draw(axes: Axes) -> None:
        costs = [row["monthly_cost"] for row in rows]
        top1 = np.array([row["top1"] for row in rows]) * 100
        ends = np.array([row["interval"] for row in rows]).T * 100
        axes.errorbar(costs, top1, yerr=np.abs(ends - top1), color=ORANGE, marker="o", capsize=4, linestyle="")
        for cost, value, row in zip(costs, top1, rows, strict=True):
            axes.annotate(row["distance"], (cost, value), (8, 4), textcoords="offset points", fontsize=10)
        axes.set_xlim(0, max(costs) * 1.25)
        axes.set_xlabel("monthly cost of the kept images")
        axes.set_ylabel("top-1 accuracy (%)")

    return _svg(draw, "Accuracy and monthly cost, 95 % interval")


def loss(rows: Rows) -> str:
    """The loss over the steps of training, one line per variant: the mean of its seeds."""

    def draw(axes: Axes) -> None:
        for row, shade in zip(rows, _shades(len(rows)), strict=True):
            mean = np.mean([run["loss"] for run in row["curves"]], axis=0)
            axes.plot(row["curves"][0]["step"], mean, color=shade, label=row["distance"], linewidth=1.6)
        axes.legend(title="distance", ncols=2, frameon=False, fontsize=9, title_fontsize=9)
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")

    return _svg(draw, "Loss while training, mean of the seeds")


def confusion(matrix: Mapping[str, Any], variant: str) -> str:
    """For the test images of each class (rows), the share that was predicted as each class (columns); of all seeds."""

    def draw(axes: Axes) -> None:
        counts = np.array(matrix["counts"], float)
        shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        _heat(axes, shares, matrix["classes"], matrix["classes"], "{:.0f}", most=100)
        axes.set_xlabel("named as")
        axes.set_ylabel("class")

    return _svg(draw, f"Confusion at {variant}, % of each class", SQUARE_INCHES)


def domain(variants: Sequence[str], tests: Sequence[str], tested: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Top-1 by the training images (rows) and by the distance of the test images (columns)."""

    def draw(axes: Axes) -> None:
        top1 = np.array([[100 * one["top1"] for one in row] for row in tested])
        _heat(axes, top1, list(variants), list(tests), "{:.1f}")
        axes.set_xlabel("test images at distance")
        axes.set_ylabel("trained at distance")

    return _svg(draw, "Top-1 (%) by training and test distance")


def _heat(
    axes: Axes, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], form: str, most: float = 0
) -> None:
    """A table of shades, with its values where they can be read."""
    low, high = (0, most) if most else (float(values.min()), float(values.max()))
    axes.imshow(values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.grid(visible=False)
    for ticks, names, angle in ((axes.set_xticks, columns, 90), (axes.set_yticks, rows, 0)):
        labels = names if len(names) <= MOST_BARS else []
        rotation = angle if len(names) > MOST_CELLS_WRITTEN // 2 else 0
        ticks(range(len(labels)), labels, rotation=rotation, fontsize=9)
    if max(values.shape) <= MOST_CELLS_WRITTEN:
        for (row, column), value in np.ndenumerate(values):
            color = "white" if value > low + 0.6 * (high - low) else "black"
            axes.text(column, row, form.format(value), ha="center", va="center", fontsize=9, color=color)


def bytes_per_image_chart(rows: Rows) -> str:
    """Bars: mean bytes of an image of the whole pool at each distance."""

    def draw(axes: Axes) -> None:
        kilobytes = [row["bytes_per_image"] / 1000 for row in rows]
        axes.bar(_names(rows), kilobytes, color=GRAY, width=0.62)
        for place, value in enumerate(kilobytes):
            axes.annotate(f"{value:.1f}", (place, value), (0, 4), textcoords="offset points", ha="center")
        axes.set_ylim(0, max(0.1, *kilobytes) * 1.15)
        axes.set_ylabel("kB per image (mean of the pool)")

    return _svg(draw, "Bytes per image")


def class_balance(rows: Rows) -> str:
    """Images of each class in the subset at each distance: grouped bars, or curves where there are many classes."""

    def draw(axes: Axes) -> None:
        shades = _shades(len(rows))
        for place, row in enumerate(rows):
            counts = list(row["classes"].values())
            if len(counts) > MOST_BARS:
                axes.plot(np.arange(1, len(counts) + 1), sorted(counts, reverse=True), color=shades[place])
            else:
                width = 0.84 / len(rows)
                at = np.arange(len(counts)) + (place - (len(rows) - 1) / 2) * width
                axes.bar(at, counts, width, color=shades[place])
        names = list(rows[0]["classes"])
        if len(names) > MOST_BARS:
            axes.set_xlabel(f"{len(names):,} classes, by images kept")
        else:
            axes.set_xticks(np.arange(len(names)), names, rotation=90 if len(names) > 14 else 0, fontsize=10)
            axes.set_xlabel("class")
        handles = axes.lines if axes.lines else axes.containers
        axes.legend(handles, _names(rows), title="distance", ncols=min(6, len(rows)), frameon=False, loc="upper left")
        axes.set_ylim(0, max(1, *(max(row["classes"].values()) for row in rows)) * 1.35)
        axes.set_ylabel("images kept")

    return _svg(draw, "Class balance of the subsets", WIDE_INCHES)


def fitted_surface(advice: Advice) -> str:
    """The pilots' errors and the fitted law over the number of images, one line per distance; both axes logarithmic."""

    def draw(axes: Axes) -> None:
        for curve, shade in zip(advice.curves, _shades(len(advice.curves)), strict=True):
            pilots = [pilot for pilot in advice.pilots if pilot.distance == curve.distance]
            images = [point.images for point in curve.points]
            errors = [100 * (1 - point.accuracy) for point in curve.points]
            axes.plot(images, errors, color=shade, label=curve.distance)
            images, errors = [pilot.images for pilot in pilots], [100 * (1 - pilot.top1) for pilot in pilots]
            axes.plot(images, errors, marker="o", markersize=5, linestyle="", color=shade)
        _log_axes(axes, "images trained on", "top-1 error (%)", StrMethodFormatter("{x:,.0f}"))
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7), numticks=20))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())

    return _svg(draw, "Pilots (points) and the fitted law (lines)")


def accuracy_by_storage(advice: Advice) -> str:
    """Predicted accuracy over stored bytes, one line per distance; the best of them thick, the budgets' advice
    marked."""
    return _svg(lambda axes: _accuracy_over(axes, advice, "bytes", "bytes stored"), "Predicted accuracy by storage")


def accuracy_by_cost(advice: Advice) -> str:
    """As `accuracy_by_storage`, over the monthly cost; raises ValueError where the advice was given without a price."""
    if advice.price_per_gb_month is None:
        raise ValueError("advice without a price has no monthly costs")
    return _svg(lambda axes: _accuracy_over(axes, advice, "monthly_cost", "monthly cost"), "Predicted accuracy by cost")


def _accuracy_over(axes: Axes, advice: Advice, name: Literal["bytes", "monthly_cost"], label: str) -> None:
    x_of = attrgetter(name)
    best = [point.prediction for point in advice.envelope if x_of(point.prediction) > 0]
    low, high = np.array([point.interval for point in best]).T * 100
    places = [x_of(point) for point in best]
    axes.fill_between(places, low, high, color=ORANGE, alpha=0.15, linewidth=0)
    axes.plot(places, [100 * point.accuracy for point in best], color=ORANGE, linewidth=5, alpha=0.6, label="best")
    for curve, shade in zip(advice.curves, _shades(len(advice.curves)), strict=True):
        points = [point for point in curve.points if x_of(point) > 0]
        accuracies = [100 * point.accuracy for point in points]
        axes.plot([x_of(point) for point in points], accuracies, color=shade, linewidth=1.3, label=curve.distance)
    recommended = [(x_of(budget), 100 * budget.recommended.prediction.accuracy) for budget in advice.budgets]
    if marks := [pair for pair in recommended if pair[0] > 0]:
        axes.plot(*zip(*marks, strict=True), marker="D", markersize=7, linestyle="", color=ORANGE)
    formatter = EngFormatter("B") if name == "bytes" else StrMethodFormatter("{x:g}")
    _log_axes(axes, label, "predicted top-1 accuracy (%)", formatter)


def _log_axes(axes: Axes, x_label: str, y_label: str, x_formatter: Formatter) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(x_formatter)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(title="distance", ncols=2, frameon=False, fontsize=9, title_fontsize=9)


def _shades(count: int) -> Any:
    return mpl.colormaps["viridis"](np.linspace(0.85, 0.1, count))


def _names(rows: Rows) -> list[str]:
    """Names of the variants; that of a rule on two lines, so that it fits beside others."""
    return [row["distance"].replace("-", "\n", 1) for row in rows]


def _svg(draw: Callable[[Axes], None], title: str, size: tuple[float, float] = SIZE_INCHES) -> str:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # only measured here; the browser draws the text
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel("Butteraugli distance (0: original JPEG)")
        draw(axes)
        axes.set_title(title)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
