"""The runs of a variant -> its accuracy, and variants against each other. Pure: arrays in, records out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from keepmore.spec.training import Training
from keepmore.training import statistics
from keepmore.training.results import Accuracy, Comparisons, Confusion, Run, VariantResult, numbers

# A larger confusion matrix is of no use to a reader; the predictions have everything anyway.
MOST_CONFUSION_CLASSES = 100


def evaluate(
    runs: Sequence[Run], train: Sequence[str], tested: Sequence[str], classes: Sequence[str], training: Training
) -> VariantResult:
    """The result of a variant: its `runs`, one per seed, and the labels of its training and test images."""
    truth = numbers(tested, classes)
    predicted = np.stack([run.top_classes[""][:, 0] for run in runs])
    confusion = None
    if len(classes) <= MOST_CONFUSION_CLASSES:
        confusion = Confusion(list(classes), statistics.confusion(predicted, truth, len(classes)).tolist())
    return VariantResult(
        training.method,
        runs,
        train_images=len(train),
        untrained_classes=sorted(set(tested) - set(train)),
        untested_classes=sorted(set(train) - set(tested)),
        accuracy=_accuracy(runs, "", truth),
        per_class=statistics.per_class(predicted == truth, truth, classes),
        confusion=confusion,
        tests={at: _accuracy(runs, at, truth) for at in runs[0].top_classes if at},
    )


def _accuracy(runs: Sequence[Run], at: str, truth: NDArray[np.int32]) -> Accuracy:
    """Accuracy on one set of test images, from counts."""
    predicted = np.stack([run.top_classes[at] for run in runs])
    among_top = (predicted == truth[:, None]).any(axis=2)
    return Accuracy(statistics.summary(predicted[:, :, 0] == truth), float(among_top.mean()))


def write_predictions(runs: Sequence[Run], tested: Sequence[str], classes: Sequence[str]) -> bytes:
    """The most likely classes of every test image: `top@...` of shape (seeds, images, 5), best first, `truth`
    (images,)."""
    arrays = {f"top@{at}": np.stack([run.top_classes[at] for run in runs]) for at in runs[0].top_classes}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        truth=numbers(tested, classes),
        classes=np.array(classes, np.str_),
        **arrays,  # type: ignore[arg-type]
    )
    return buffer.getvalue()


def read_correct(data: bytes) -> NDArray[np.bool_]:
    """Whether each of the predictions was right: shape (seeds, images)."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        correct: NDArray[np.bool_] = arrays["top@"][:, :, 0] == arrays["truth"]
        return correct


def compare_all(correct: Mapping[str, NDArray[np.bool_]]) -> Comparisons:
    """`correct` by variant, arrays of shape (seeds, images) with the same test images."""
    return Comparisons(statistics.comparisons(correct))
