"""What the trainer service gives the steps, and how an installed one is found: no torch outside of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from keepmore.errors import TrainerMissing
from keepmore.progress import Report
from keepmore.request import Training


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a trainer gets it."""

    path: str
    label: str
    data: bytes


class Trainer(Protocol):
    """What the trainer service gives the steps. Features and results are bytes and plain data: no torch outside."""

    def features(self, samples: Iterator[Sample], training: Training, report: Report) -> bytes:
        """Features and labels of `samples`, as the bytes of an .npz file."""
        ...

    def train(self, train: bytes, test: bytes, classes: list[str], training: Training) -> dict[str, Any]:
        """Train on one set of features and test on another; gives the accuracy, per seed and together."""
        ...


@cache
def load_trainer(method: str) -> Trainer:
    """The installed trainer for a method, one a process, so that it keeps its model; raises TrainerMissing."""
    for point in entry_points(group="keepmore.trainers", name=method):
        try:
            trainer: Trainer = point.load()()
        except ImportError as error:
            raise TrainerMissing(
                f"training needs PyTorch ({error}); pip install 'keepmore[trainer]', then resume the job"
            ) from error
        return trainer
    raise TrainerMissing(f"no trainer for method {method!r} is installed; pip install 'keepmore[trainer]'")
