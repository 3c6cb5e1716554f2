"""The runs of a variant -> its accuracy, and variants against each other. Pure: arrays in, plain data out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepmore.spec.training import Training
from keepmore.training import statistics
from keepmore.training.trainer import TOP, Run

FORMAT = 2
# A confusion matrix of more classes is no longer something to look at; the predictions hold it all the same.
MOST_CONFUSED = 100


def all_classes(pool: Sequence[str], tested: Sequence[str]) -> list[str]:
    """The classes that a model is built for: those of the pool, then those that only test images have."""
    return [*pool, *sorted(set(tested) - set(pool))]


def of_arm(
    runs: Sequence[Run], train: Sequence[str], tested: Sequence[str], classes: Sequence[str], training: Training
) -> dict[str, Any]:
    """What the results say of a variant: `runs` of it, one a seed, and the labels of its training and test images."""
    truth = numbers(tested, classes)
    predicted = np.stack([run.named[""][:, 0] for run in runs])
    seen = set(train)
    return {
        "format": FORMAT,
        **runs[0].about,
        "method": training.method,
        "seeds": [run.seed for run in runs],
        "train_images": len(train),
        "untrained_classes": sorted(set(tested) - seen),
        "untested_classes": sorted(seen - set(tested)),
        **_tested(runs, "", truth),
        "per_class": statistics.per_class(predicted == truth, truth, classes),
        "confusion": _confusion(predicted, truth, classes),
        "curves": [{"seed": run.seed, **run.curve} for run in runs],
        "kept": [{"seed": run.seed, **run.kept} for run in runs],
        "notes": sorted({note for run in runs for note in run.notes}),
        "tests": {at: _tested(runs, at, truth) for at in runs[0].named if at},
    }


def _tested(runs: Sequence[Run], at: str, truth: NDArray[np.int32]) -> dict[str, Any]:
    """Accuracy on one set of test images, from counts."""
    found = np.stack([run.named[at] for run in runs])
    within = (found == truth[:, None]).any(axis=2)
    return {**statistics.summary(found[:, :, 0] == truth).as_json(), f"top{TOP}": float(within.mean())}


def _confusion(predicted: NDArray[np.int32], truth: NDArray[np.int32], classes: Sequence[str]) -> dict[str, Any] | None:
    if len(classes) > MOST_CONFUSED:
        return None
    counts = statistics.confusion(predicted, truth, len(classes))
    return {"classes": list(classes), "counts": counts.tolist()}


def numbers(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int32]:
    """Each label's place in `classes`, shape (labels,)."""
    places = {name: number for number, name in enumerate(classes)}
    return np.array([places[label] for label in labels], np.int32)


def write_predictions(runs: Sequence[Run], tested: Sequence[str], classes: Sequence[str]) -> bytes:
    """What every run named every test image: `top@...` of shape (seeds, images, 5), best first, `truth` (images,)."""
    arrays = {f"top@{at}": np.stack([run.named[at] for run in runs]) for at in runs[0].named}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        truth=numbers(tested, classes),
        classes=np.array(classes, np.str_),
        **arrays,  # type: ignore[arg-type]
    )
    return buffer.getvalue()


def read_correct(data: bytes) -> NDArray[np.bool_]:
    """Of predictions, whether each was right: shape (seeds, images)."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        right: NDArray[np.bool_] = arrays["top@"][:, :, 0] == arrays["truth"]
        return right


def compared(variants: Mapping[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """Every variant against the first one and against the best: who is better by more than noise."""
    return {"format": 1, "comparisons": [found.as_json() for found in statistics.comparisons(variants)]}
