"""The report's figures, as SVG. The only module that imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE_INCHES = (6.4, 4.0)
WIDE_INCHES = (13.2, 3.6)
BLUE, ORANGE, GRAY = "#1f5fa8", "#d1601f", "#8a8f98"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "keepmore",
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
        axes.set_ylim(0, max(counts) * 1.22)
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
        axes.set_ylim(0, max(kilobytes) * 1.15)
        axes.set_ylabel("kB an image (mean of the pool)")

    return _svg(draw, "Bytes an image")


def class_balance(rows: Rows) -> str:
    """Grouped bars: images of each class in the pool's subset at each distance."""

    def draw(axes: Axes) -> None:
        names = list(rows[0]["classes"])
        width = 0.84 / len(rows)
        shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.1, len(rows)))
        for place, row in enumerate(rows):
            at = np.arange(len(names)) + (place - (len(rows) - 1) / 2) * width
            axes.bar(at, list(row["classes"].values()), width, color=shades[place], label=row["distance"])
        turned = len(names) > 14
        axes.set_xticks(
            np.arange(len(names)), names, rotation=90 if turned else 0, fontsize=6 if len(names) > 60 else 10
        )
        axes.set_ylabel("images kept")
        axes.legend(
            title="distance", ncols=min(6, len(rows)), frameon=False, loc="upper left", bbox_to_anchor=(0, 1.02)
        )
        axes.set_ylim(0, max(max(row["classes"].values()) for row in rows) * 1.35)
        axes.set_xlabel("class")

    return _svg(draw, "Class balance of the subsets", WIDE_INCHES)


def _names(rows: Rows) -> list[str]:
    return [row["distance"] for row in rows]


def _svg(draw: Callable[[Axes], None], title: str, size: tuple[float, float] = SIZE_INCHES) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel("Butteraugli distance (0: original JPEG)")
        draw(axes)
        axes.set_title(title)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]
