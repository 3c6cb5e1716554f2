"""The plots of docs/results.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.accuracy_results import FRACTIONS, fixed
from keepmore.reporting.plots import STYLE


def draw(results: dict[str, Any], folder: Path) -> None:
    """Write both plots into `folder`, as SVG."""

    def storage(axes: Axes) -> None:
        variants = list(results["random"]["1"])
        shades = mpl.colormaps["viridis"](np.linspace(0.9, 0.05, len(variants)))
        for shade, variant in zip(shades, variants, strict=True):
            points = [results["random"][name][variant] for name in (*FRACTIONS, "all")]
            line = ([one.bytes / 1e6 for one in points], [100 * one.top1 for one in points])
            axes.plot(*line, color="#d1601f" if "-" in variant else shade, marker="o", markersize=4, label=variant)
        axes.set_xscale("log")
        axes.set_xticks(ticks := [1, 2, 5, 10, 20, 50], [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("stored, MB")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.legend(title="distance", frameon=False, ncols=2)

    def predicted(axes: Axes) -> None:
        curves = {curve["distance"]: curve["points"][-1] for curve in results["advice"]["curves"]}
        variants = dict(fixed(results["random"]["all"]))
        predictions = np.array([100 * curves[variant]["accuracy"] for variant in variants])
        ends = np.abs(np.array([curves[variant]["interval"] for variant in variants]).T * 100 - predictions)
        axes.errorbar(list(variants), predictions, yerr=ends, color="#8a8f98", capsize=4, marker="s", label="predicted")
        real = np.array([100 * one.top1 for one in variants.values()])
        ends = np.abs(np.array([one.summary.interval for one in variants.values()]).T * 100 - real)
        axes.errorbar(list(variants), real, yerr=ends, color="#1f5fa8", capsize=4, marker="o", label="measured")
        axes.set_xlabel("distance, the whole pool")
        axes.set_ylabel("top-1 accuracy (%)")
        axes.legend(frameon=False)

    for name, plot in (("results-storage", storage), ("results-predicted", predicted)):
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(7.5, 4.6), layout="constrained")
            plot(figure.subplots())
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
