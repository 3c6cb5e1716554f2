"""The report's figures, as SVG. The only module that imports matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE_INCHES = (5.2, 3.7)
WIDE_INCHES = (13.2, 3.6)
MOST_BARS = 40
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

Rows = Sequence[dict[str, Any]]


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
    """A line with 95 % intervals: top-1 on the evaluation images for the subset at each distance."""

    def draw(axes: Axes) -> None:
        top1 = np.array([row["top1"] for row in rows]) * 100
        ends = np.array([row["interval"] for row in rows]).T * 100
        axes.errorbar(
            _names(rows), top1, yerr=np.abs(ends - top1), color=ORANGE, marker="o", capsize=4, linewidth=2, markersize=6
        )
        for place, value in enumerate(top1):
            axes.annotate(f"{value:.1f}", (place, value), (9, 7), textcoords="offset points", fontsize=10)
        axes.margins(x=0.08, y=0.12)
        axes.set_ylabel("top-1 accuracy (%)")

    return _svg(draw, "Accuracy at equal storage, 95 % interval")


def bytes_an_image(rows: Rows) -> str:
    """Bars: mean bytes of an image of the whole pool at each distance."""

    def draw(axes: Axes) -> None:
        kilobytes = [row["bytes_per_image"] / 1000 for row in rows]
        axes.bar(_names(rows), kilobytes, color=GRAY, width=0.62)
        for place, value in enumerate(kilobytes):
            axes.annotate(f"{value:.1f}", (place, value), (0, 4), textcoords="offset points", ha="center")
        axes.set_ylim(0, max(0.1, *kilobytes) * 1.15)
        axes.set_ylabel("kB an image (mean of the pool)")

    return _svg(draw, "Bytes an image")


def class_balance(rows: Rows) -> str:
    """Images of each class in the subset at each distance: grouped bars, or curves where there are many classes."""

    def draw(axes: Axes) -> None:
        shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.1, len(rows)))
        for place, row in enumerate(rows):
            counts = list(row["classes"].values())
            if len(counts) > MOST_BARS:
                axes.plot(np.arange(1, len(counts) + 1), sorted(counts, reverse=True), color=shades[place])
            else:
                width = 0.84 / len(rows)
                at = np.arange(len(counts)) + (place - (len(rows) - 1) / 2) * width
                axes.bar(at, counts, width, color=shades[place])
        _name_classes(axes, list(rows[0]["classes"]))
        drawn = axes.lines if axes.lines else axes.containers
        axes.legend(drawn, _names(rows), title="distance", ncols=min(6, len(rows)), frameon=False, loc="upper left")
        axes.set_ylim(0, max(1, *(max(row["classes"].values()) for row in rows)) * 1.35)
        axes.set_ylabel("images kept")

    return _svg(draw, "Class balance of the subsets", WIDE_INCHES)


def _name_classes(axes: Axes, names: list[str]) -> None:
    if len(names) > MOST_BARS:
        axes.set_xlabel(f"{len(names):,} classes, by images kept")
        return
    axes.set_xticks(np.arange(len(names)), names, rotation=90 if len(names) > 14 else 0, fontsize=10)
    axes.set_xlabel("class")


def _names(rows: Rows) -> list[str]:
    """Names of the arms; that of a level on two lines, so that it stands beside others."""
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
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]
