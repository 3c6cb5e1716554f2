"""What the results of a training say, in words and tables, for the command and the report. Pure: plain data in and out.

`rows` are results by variant, each with its name as `distance`. Those of releases that kept less are taken, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

REFERENCE, BEST = "reference", "best"
PREPOSITIONS = {"better": "than", "worse": "than", "cannot tell": "from"}

Rows = Sequence[Mapping[str, Any]]
Compared = Mapping[str, Any] | None


def by_arm(comparison: Compared) -> dict[str, str]:
    """Every variant against the first one: "better than 0", "cannot tell from 0"."""
    found = comparison["comparisons"] if comparison else []
    return {one["arm"]: in_words(one) for one in found if one["family"] == REFERENCE}


def in_words(one: Mapping[str, Any]) -> str:
    return f"{one['verdict']} {PREPOSITIONS[one['verdict']]} {one['against']}"


def table(comparison: Compared) -> list[dict[str, Any]]:
    """All variants against the first one; then against the best, unless that is the first one."""
    found = comparison["comparisons"] if comparison else []
    first = {one["against"] for one in found if one["family"] == REFERENCE}
    return [dict(one) for one in found if one["family"] == REFERENCE or one["against"] not in first]


def clause(last: Mapping[str, Any], first: Mapping[str, Any], comparison: Compared) -> str:
    """What `last` is to `first`, the variant that all others are compared with, as the end of a sentence."""
    for one in table(comparison):
        if (one["arm"], one["against"], one["family"]) == (last["distance"], first["distance"], REFERENCE):
            return _judged(one)
    points = 100 * (last["top1"] - first["top1"])
    return f"the classifier's top-1 is {abs(points):.1f} points {_more(points)}; whether by chance was not tested"


def _judged(one: Mapping[str, Any]) -> str:
    points, (low, high) = 100 * one["difference"], (100 * end for end in one["interval"])
    measured = f"{abs(points):.1f} points {_more(points)} (95 % interval {low:+.1f} to {high:+.1f})"
    if one["verdict"] == "cannot tell":
        return f"whether the classifier is better cannot be told: its top-1 is {measured}"
    return f"the classifier is {one['verdict']}: its top-1 is {measured}"


def _more(points: float) -> str:
    return "higher" if points >= 0 else "lower"


def notes(rows: Rows) -> Iterator[str]:
    """Where the trainer fell back to something else than was asked, and which classes it could not learn or test."""
    for row in rows:
        yield from (f"distance {row['distance']}: {note}" for note in row.get("notes", ()))
    for row in rows:
        if untrained := row.get("untrained_classes"):
            yield (
                f"distance {row['distance']}: no image to train on is left of {', '.join(untrained)}: their test "
                "images count as wrong"
            )
    if untested := list(dict.fromkeys(name for row in rows for name in row.get("untested_classes", ()))):
        yield f"no test image has a label of {', '.join(untested)}: how well they were learnt is not known"


def best(rows: Rows) -> Mapping[str, Any]:
    """The row with the highest top-1, the first of several."""
    return max(rows, key=lambda row: float(row["top1"]))


def kept(rows: Rows) -> list[dict[str, Any]]:
    """The files of weights that were kept: variant, seed, uri, bytes, sha256."""
    found = ((row["distance"], run) for row in rows for run in row.get("kept", ()))
    return [{"distance": variant, "seed": run["seed"], **run["weights"]} for variant, run in found if "weights" in run]


def places(rows: Rows) -> dict[str, str]:
    """The folders that hold what was kept: `weights` and `events`, as paths where they are on this machine."""
    found = {}
    for run in (run for row in rows for run in row.get("kept", ())):
        for kind, above in (("weights", 1), ("events", 2)):
            if kind in run:
                folder = run[kind]["uri"].rsplit("/", above)[0]
                found[kind] = unquote(folder.removeprefix("file://")) if folder.startswith("file://") else folder
    return found


def grid(rows: Rows) -> tuple[list[str], list[list[Mapping[str, Any]]]]:
    """Names of the sets of test images, the original ones first, and for every row the accuracy on each of them; both
    are empty where there is no more than one set."""
    tested = list(rows[0].get("tests", {}))
    if not tested:
        return [], []
    names = ["original", *(at.partition("-e")[0] for at in tested)]
    return names, [[row, *(row["tests"][at] for at in tested)] for row in rows]
