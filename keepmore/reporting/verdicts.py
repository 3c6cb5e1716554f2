"""The results of a training in words and tables, for the command and the report. Pure.

`rows` are results by variant as JSON, each with its name as `distance`; earlier releases wrote fewer fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

REFERENCE = "reference"
PREPOSITIONS = {"better": "than", "worse": "than", "cannot tell": "from"}

Rows = Sequence[Mapping[str, Any]]
Comparison = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """The weights of one seed of a variant."""

    distance: str
    seed: int
    uri: str
    bytes: int
    sha256: str


def by_variant(comparison: Comparison) -> dict[str, str]:
    """Every variant against the first one: "better than 0", "cannot tell from 0"."""
    pairs = comparison["comparisons"] if comparison else []
    return {
        pair["arm"]: f"{pair['verdict']} {PREPOSITIONS[pair['verdict']]} {pair['against']}"
        for pair in pairs
        if pair["family"] == REFERENCE
    }


def table(comparison: Comparison) -> Rows:
    """All variants against the first one; then against the best, unless that is the first one."""
    pairs = comparison["comparisons"] if comparison else []
    first = {pair["against"] for pair in pairs if pair["family"] == REFERENCE}
    return [pair for pair in pairs if pair["family"] == REFERENCE or pair["against"] not in first]


def clause(last: Mapping[str, Any], first: Mapping[str, Any], comparison: Comparison) -> str:
    """How `last` compares with `first`, the reference of all comparisons, as the end of a sentence."""
    for pair in table(comparison):
        if (pair["arm"], pair["against"], pair["family"]) == (last["distance"], first["distance"], REFERENCE):
            points, (low, high) = 100 * pair["difference"], (100 * end for end in pair["interval"])
            measured = f"{abs(points):.1f} points {_more(points)} (95 % interval {low:+.1f} to {high:+.1f})"
            if pair["verdict"] == "cannot tell":
                return f"whether the classifier is better cannot be determined: its top-1 is {measured}"
            return f"the classifier is {pair['verdict']}: its top-1 is {measured}"
    points = 100 * (last["top1"] - first["top1"])
    return f"the classifier's top-1 is {abs(points):.1f} points {_more(points)}; whether by chance was not tested"


def _more(points: float) -> str:
    return "higher" if points >= 0 else "lower"


def notes(rows: Rows) -> Iterator[str]:
    """Where the trainer used a fallback, and which classes it could not learn or test."""
    for row in rows:
        yield from (f"distance {row['distance']}: {note}" for note in row.get("notes", ()))
    for row in rows:
        if untrained := row.get("untrained_classes"):
            yield (
                f"distance {row['distance']}: no image to train on is left of {', '.join(untrained)}: their test "
                "images count as wrong"
            )
    if untested := list(dict.fromkeys(name for row in rows for name in row.get("untested_classes", ()))):
        yield f"no test image has a label of {', '.join(untested)}: how well the model knows them is not measured"


def best(rows: Rows) -> Mapping[str, Any]:
    """The row with the highest top-1, the first of several."""
    return max(rows, key=lambda row: float(row["top1"]))


def weights(rows: Rows) -> list[StoredWeights]:
    """The files of weights that were stored."""
    runs = ((row["distance"], run) for row in rows for run in row.get("kept", ()))
    return [StoredWeights(variant, run["seed"], **run["weights"]) for variant, run in runs if "weights" in run]


def folders(rows: Rows) -> dict[str, str]:
    """The folders of stored artifacts: `weights` and `events`, as paths where they are on this machine."""
    by_kind = {}
    for run in (run for row in rows for run in row.get("kept", ())):
        for kind, levels_up in (("weights", 1), ("events", 2)):
            if kind in run:
                folder = run[kind]["uri"].rsplit("/", levels_up)[0]
                by_kind[kind] = unquote(folder.removeprefix("file://")) if folder.startswith("file://") else folder
    return by_kind


def grid(rows: Rows) -> tuple[list[str], list[list[Mapping[str, Any]]]]:
    """Names of the sets of test images, the original ones first, and for every row the accuracy on each of them; both
    are empty where there is no more than one set."""
    tested = list(rows[0].get("tests", {}))
    if not tested:
        return [], []
    names = ["original", *(at.partition("-e")[0] for at in tested)]
    return names, [[row, *(row["tests"][at] for at in tested)] for row in rows]
