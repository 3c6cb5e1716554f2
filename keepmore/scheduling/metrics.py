"""What is counted for monitoring: totals that all workers add to, and that a scrape reads. Pure.

A total is named by its name and its labels. They may be lost or counted twice, and nothing depends on them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from keepmore.compression.index import Summary
from keepmore.jobs.step import Step
from keepmore.progress import Progress
from keepmore.spec.distance import ORIGINAL, text

Labels = tuple[tuple[str, str], ...]
Total = tuple[str, Labels]
Amounts = Mapping[Total, float]

# Upper bounds of a step's seconds: chunks take 15, control steps less, features of a large set up to hours.
SECONDS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "15", "30", "60", "300", "1800", "+Inf")


def total(name: str, **labels: str) -> Total:
    return name, tuple(sorted(labels.items()))


def of_step(step: Step, outcome: str, done: Progress, seconds: float | None) -> dict[Total, float]:
    """What a step adds when it ends: `outcome` is done, failed, cancelled or handed_on; `seconds` None if its start was
    not recorded."""
    amounts = {total("steps", kind=step.kind, outcome=outcome): 1.0}
    for name in ("images", "bytes_in", "bytes_out", "encode_s"):
        if amount := getattr(done, name):
            amounts[total(name, kind=step.kind)] = amount
    if seconds is not None and outcome == "done":
        bound = SECONDS[bisect_left([float(one) for one in SECONDS], seconds)]
        amounts[total("step_s_bucket", kind=step.kind, le=bound)] = 1
        amounts[total("step_s_sum", kind=step.kind)] = seconds
    return amounts


def of_failure(step: Step, code: str) -> dict[Total, float]:
    return {total("failures", kind=step.kind, code=code): 1}


def of_delay(step: Step, code: str) -> dict[Total, float]:
    """A step put off because something did not answer."""
    return {total("delays", kind=step.kind, code=code): 1}


def of_index(summary: Summary) -> dict[Total, float]:
    """The totals of a finished index: images that failed, by code, and how much smaller the pool is at each
    distance."""
    amounts = {total("images_failed", code=code): float(count) for code, count in summary.errors.items()}
    if (original := summary.pool_bytes.get(ORIGINAL)) is not None:
        for distance, stored in summary.pool_bytes.items():
            if distance != ORIGINAL:
                amounts[total("bytes_saved", distance=text(distance))] = float(original - stored)
    return amounts


def histogram(counts: Amounts) -> dict[str, tuple[list[tuple[str, float]], float]]:
    """The seconds of steps by kind: (upper bound, how many took no longer) of every bound, and their sum."""
    kinds = sorted({dict(labels)["kind"] for name, labels in counts if name == "step_s_bucket"})
    histograms = {}
    for kind in kinds:
        each = [counts.get(total("step_s_bucket", kind=kind, le=bound), 0.0) for bound in SECONDS]
        histograms[kind] = (
            list(zip(SECONDS, accumulate(each), strict=True)), counts.get(total("step_s_sum", kind=kind), 0.0)
        )  # fmt: skip
    return histograms
