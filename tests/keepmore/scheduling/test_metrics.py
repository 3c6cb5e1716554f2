"""What is counted for monitoring."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from keepmore.compression.index import Summary
from keepmore.jobs.step import Kind, Step
from keepmore.progress import Progress
from keepmore.scheduling import metrics
from keepmore.scheduling.metrics import Total, total

STEP = Step("job", Kind.COMPRESS, chunk=3)


@given(st.lists(st.floats(0, 10_000), min_size=1))
def test_every_step_is_in_the_histogram_once(seconds: list[float]) -> None:
    """Else an operator's quantiles are wrong, and the alert on slow steps with them."""
    counts: dict[Total, float] = {}
    for duration_s in seconds:
        for name, amount in metrics.of_step(STEP, "done", Progress(), duration_s).items():
            counts[name] = counts.get(name, 0) + amount
    buckets, whole = metrics.histogram(counts)["compress"]
    assert math.isclose(whole, sum(seconds), abs_tol=1e-6)
    for bound, count in buckets:
        assert count == sum(duration_s <= float(bound) for duration_s in seconds)
    assert buckets[-1] == ("+Inf", len(seconds))


def test_a_step_adds_what_it_did_and_no_more() -> None:
    """Else images and bytes that nobody handled are shown, or those that were are missing."""
    done = Progress(images=5, failed=1, bytes_in=100, bytes_out=40, encode_s=0.5)
    assert metrics.of_step(STEP, "failed", done, 2.0) == {
        total("steps", kind="compress", outcome="failed"): 1,
        total("images", kind="compress"): 5,
        total("bytes_in", kind="compress"): 100,
        total("bytes_out", kind="compress"): 40,
        total("encode_s", kind="compress"): 0.5,
    }
    assert metrics.of_step(STEP, "done", Progress(), None) == {total("steps", kind="compress", outcome="done"): 1}


def test_an_index_tells_what_failed_and_what_each_distance_saves() -> None:
    """Else nobody sees that a bucket of damaged images was posted, or what the service is worth."""
    summary = Summary(pool_bytes={0.0: 1000, 4.0: 300, 10.0: 100}, errors={"unreadable_image": 3})
    assert metrics.of_index(summary) == {
        total("images_failed", code="unreadable_image"): 3,
        total("bytes_saved", distance="4"): 700,
        total("bytes_saved", distance="10"): 900,
    }
    assert metrics.of_index(Summary(pool_bytes={4.0: 300})) == {}, "without the originals nothing is known to be saved"
