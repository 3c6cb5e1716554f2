"""What results are said to mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keepmore.reporting import verdicts
from keepmore.training import evaluation


def _correct(*shares: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Two seeds over 400 test images, of which these shares are right, the same images first."""
    return np.stack([np.arange(400) < share * 400 for share in shares])


COMPARISON = evaluation.compare_all(
    {"0": _correct(0.5, 0.5), "4": _correct(0.51, 0.5), "10": _correct(0.75, 0.74)}
).as_json()
ROWS = [{"distance": "0", "top1": 0.5}, {"distance": "4", "top1": 0.505}, {"distance": "10", "top1": 0.745}]


def test_every_variant_is_judged_against_the_first() -> None:
    """Else a user ranks distances by noise."""
    assert verdicts.by_variant(COMPARISON) == {"4": "cannot tell from 0", "10": "better than 0"}
    assert verdicts.by_variant(None) == {}


def test_the_best_is_compared_with_all_unless_it_is_the_first() -> None:
    """Else a page shows every comparison twice, or none with the distance that one would choose."""
    assert [(one["arm"], one["against"]) for one in verdicts.table(COMPARISON)] == [
        ("4", "0"), ("10", "0"), ("0", "10"), ("4", "10"),
    ]  # fmt: skip
    first_is_best = evaluation.compare_all({"0": _correct(0.9, 0.9), "4": _correct(0.5, 0.5)}).as_json()
    assert [(one["arm"], one["against"]) for one in verdicts.table(first_is_best)] == [("4", "0")]
    assert verdicts.by_variant(first_is_best) == {"4": "worse than 0"}


@pytest.mark.parametrize(
    ("variant", "comparison", "clause"),
    [
        (2, COMPARISON, "the classifier is better: its top-1 is 24.5 points higher (95 % interval +"),
        (
            1,
            COMPARISON,
            "whether the classifier is better cannot be determined: its top-1 is 0.5 points higher (95 % interval -",
        ),
        (2, None, "top-1 is 24.5 points higher; whether by chance was not tested"),
        (2, {"comparisons": []}, "whether by chance was not tested"),
    ],
)
def test_the_sentence_follows_the_verdict(variant: int, comparison: Any, clause: str) -> None:
    """Else whoever reads only the headline deletes originals for a difference that is none."""
    assert clause in verdicts.clause(ROWS[variant], ROWS[0], comparison)


def test_what_was_kept_is_found() -> None:
    """Else weights of a training of hours are somewhere in the store."""
    place = "file:///a%20b/work/job/trainings/t"
    record = {"seed": 1, "weights": {"uri": f"{place}/weights/0-1.safetensors", "bytes": 3, "sha256": "ab"}}
    record["events"] = {"uri": f"{place}/events/0-1/events.out.tfevents.0", "bytes": 9}
    row = {"distance": "0", "kept": [record]}
    assert verdicts.folders([row]) == {
        "weights": "/a b/work/job/trainings/t/weights",
        "events": "/a b/work/job/trainings/t/events",
    }
    (file,) = verdicts.weights([row])
    assert (file.distance, file.seed, file.sha256) == ("0", 1, "ab")
    assert verdicts.folders([{"distance": "0"}]) == {}


def test_notes_name_their_variant() -> None:
    """Else a training that fell back to something slower or smaller passes for what was asked."""
    rows = [
        {"distance": "0", "notes": ["half of it"], "untrained_classes": ["mug"], "untested_classes": ["pear"]},
        {"distance": "4", "notes": [], "untested_classes": ["pear", "fig"]},
    ]
    half, untrained, untested = verdicts.notes(rows)
    assert half == "distance 0: half of it"
    assert "distance 0: no image to train on is left of mug" in untrained
    assert "no test image has a label of pear, fig: " in untested, "the arm with most images has most classes"
