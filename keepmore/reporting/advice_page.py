"""Advice as one self-contained page: the sentence that answers first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keepmore.reporting import plots
from keepmore.reporting.html import ends, percent, render

UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def page(advice: dict[str, Any], title: str = "Keepmore advice") -> str:
    """The HTML page of what `keepmore.advice.recommend.advise` answered; it needs nothing beside it."""
    drawn = {"surface": plots.fitted_surface(advice), "storage": plots.accuracy_by_storage(advice)}
    if advice["price_per_gb_month"] is not None:
        drawn["cost"] = plots.accuracy_by_cost(advice)
    sentences = [recommendation(budget) for budget in advice["budgets"]]
    return render(
        "advice.html",
        {"number": _number},
        advice=advice,
        title=title,
        sentences=sentences,
        wish=wish(advice["wished"]),
        plots=drawn,
    )


def recommendation(budget: Mapping[str, Any]) -> str:
    """The advice for one of the budgets, in a sentence or two."""
    best = budget["recommended"]
    said = (
        f"With {_stored(budget)}, store at distance {_named(best['distance'])}: it keeps {best['images']:,} images, "
        f"with a predicted accuracy of {percent(best['accuracy'])} ({ends(best['interval'])})."
    )
    if best["alike"]:
        several = "distance" if len(best["alike"]) == 1 else "distances"
        said += f" The pilots cannot tell it from {several} {', '.join(best['alike'])}."
    return said


def wish(wished: Mapping[str, Any] | None) -> str | None:
    """What it takes to reach the accuracy that was wished for, in a sentence; None where none was."""
    if wished is None:
        return None
    aim = percent(wished["accuracy_wished"])
    most = wished["most"]
    if not wished["reached"]:
        return (
            f"This pool is predicted not to reach {aim}: the whole of it, at distance {_named(most['distance'])}, "
            f"makes {percent(most['accuracy'])} ({ends(most['interval'])})."
        )
    low, high = wished["bytes_interval"]
    between = f"{written_bytes(low)} to {'more than the pool' if high is None else written_bytes(high)}"
    return (
        f"To reach {aim}, store {wished['images']:,} images at distance {_named(wished['distance'])}: "
        f"{_stored(wished)} ({between})."
    )


def written_bytes(size: float) -> str:
    """Bytes in the largest unit of 10^3, 10^6, ... that leaves 1 or more: "508 MB"."""
    for unit, worth in UNITS:
        if size >= 0.9995 * worth:  # what three digits round up to
            return f"{size / worth:.3g} {unit}" if size < 1000 * worth else f"{size / worth:,.0f} {unit}"
    return f"{size:.0f} bytes"


def _stored(row: Mapping[str, Any]) -> str:
    cost = "" if row["monthly_cost"] is None else f" at {row['monthly_cost']:.4g} a month"
    return written_bytes(row["bytes"]) + cost


def _number(value: float) -> str:
    """Four digits; a constant that the fit left at its bound of 0 is 0."""
    return "0" if abs(value) < 1e-9 else f"{value:.4g}"


def _named(distance: str) -> str:
    return "0 (the original files)" if distance == "0" else distance
