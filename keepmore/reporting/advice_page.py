"""Advice as one self-contained page: first the sentence that answers, then the evidence."""

from __future__ import annotations

from keepmore.advice.answer import Advice, BudgetAdvice, TargetAdvice
from keepmore.reporting import plots
from keepmore.reporting.html import ends, percent, render

SMALLEST_SHOWN = 1e-9  # a smaller constant is at its bound, which is 0
UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def page(advice: Advice, title: str = "Keepmore advice") -> str:
    """The HTML page of an advice; it needs no other file."""
    svgs = {"surface": plots.fitted_surface(advice), "storage": plots.accuracy_by_storage(advice)}
    if advice.price_per_gb_month is not None:
        svgs["cost"] = plots.accuracy_by_cost(advice)
    sentences = [recommendation(budget) for budget in advice.budgets]
    return render(
        "advice.html",
        {"number": lambda value: "0" if abs(value) < SMALLEST_SHOWN else f"{value:.4g}"},
        advice=advice,
        title=title,
        sentences=sentences,
        wish=wish(advice.wished),
        plots=svgs,
    )


def recommendation(budget: BudgetAdvice) -> str:
    """The advice for one of the budgets, in a sentence or two."""
    best = budget.recommended
    sentence = (
        f"With {_stored(budget.bytes, budget.monthly_cost)}, store at distance {_describe(best.distance)}: it keeps "
        f"{best.prediction.images:,} images, with a predicted accuracy of {percent(best.prediction.accuracy)} "
        f"({ends(best.prediction.interval)})."
    )
    if best.alike:
        several = "distance" if len(best.alike) == 1 else "distances"
        sentence += f" The pilots cannot distinguish it from {several} {', '.join(best.alike)}."
    return sentence


def wish(target: TargetAdvice | None) -> str | None:
    """The budget that reaches the requested accuracy, in a sentence; None where none was requested."""
    if target is None:
        return None
    aim = percent(target.accuracy_wished)
    if target.distance is None or target.prediction is None:
        most = target.most
        return (
            f"This pool is predicted not to reach {aim}: the whole of it, at distance {_describe(most.distance)}, "
            f"makes {percent(most.prediction.accuracy)} ({ends(most.prediction.interval)})."
        )
    low, high = ("more than the pool" if end is None else written_bytes(end) for end in target.bytes_interval)
    prediction = target.prediction
    return (
        f"To reach {aim}, store {prediction.images:,} images at distance {_describe(target.distance)}: "
        f"{_stored(prediction.bytes, prediction.monthly_cost)} ({low} to {high})."
    )


def written_bytes(size: float) -> str:
    """Bytes in the largest unit of 10^3, 10^6, ... that leaves 1 or more: "508 MB"."""
    for unit, worth in UNITS:
        if size >= 0.9995 * worth:  # the smallest value that three digits round up to the next unit
            return f"{size / worth:.3g} {unit}" if size < 1000 * worth else f"{size / worth:,.0f} {unit}"
    return f"{size:.0f} bytes"


def _stored(size: int, monthly_cost: float | None) -> str:
    if monthly_cost is None:
        return written_bytes(size)
    cost = f"{monthly_cost:,.2f}" if monthly_cost >= 0.01 else "less than 0.01"
    return f"{written_bytes(size)} at {cost} per month"


def _describe(distance: str) -> str:
    return "0 (the original files)" if distance == "0" else distance
