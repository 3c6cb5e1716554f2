"""The interface of the trainer to the steps, and how an installed one is found: no torch outside of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keepmore.errors import TrainerMissing
from keepmore.net.access import Access
from keepmore.progress import Progress, Report
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.scratch import Scratch
from keepmore.training.feature_cache import FeatureCache
from keepmore.training.results import Artifact, Features, Run
from keepmore.training.weights import weights_file

WEIGHTS, EVENTS = "weights", "events"  # the kinds of artifacts


def unchanged(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Images:
    """Labelled images, in the order of their paths: the good ones of a manifest, or those to test on.

    `table` has the columns path, label, sha256, object_uri and bytes. `read` gives the bytes of a row, checked against
    its checksum; it is for one thread, and rows are read fastest in their order. `changed` turns these into the bytes
    that the model sees, in any thread: the same or, to test at another distance, an encoding at it, which `at` names.
    `group` is the part of the feature cache that has their features, and `features` the trainer's record of these.
    """

    table: pa.Table
    read: Callable[[int], bytes]
    group: str
    at: str = ""
    changed: Callable[[bytes], bytes] = unchanged
    features: Features | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def labels(self) -> list[str]:
        labels: list[str] = self.table["label"].to_pylist()
        return labels

    def names(self) -> NDArray[np.bytes_]:
        """The key of each image in caches of what is made from it, shape (images,), 32 bytes."""
        sums = self.table["sha256"].to_pylist()
        if not self.at:
            return np.array([bytes.fromhex(sha256) for sha256 in sums], "S32")
        return np.array([hashlib.sha256(f"{sha256}@{self.at}".encode()).digest() for sha256 in sums], "S32")


@dataclass(frozen=True, slots=True)
class TrainerContext(ABC):
    """What a trainer may use beside its images: `scratch` is local disk, `on_progress` is called with its progress."""

    store: Store
    access: Access
    scratch: Scratch
    on_progress: Report

    def report(self, progress: Progress) -> None:
        """Report the progress of a batch. This may raise; then a trainer saves a checkpoint before it ends."""
        self.on_progress(progress)

    def weights_file(self, uri: str) -> AbstractContextManager[Path]:
        """The file that `Training.weights` names; raises WeightsUnavailable."""
        return weights_file(uri, self.access, self.scratch)

    def feature_cache(self, backbone: str, group: str) -> FeatureCache:
        """The stored features of a group of images from a backbone."""
        return FeatureCache(self.store, layout.feature_cache(backbone, group))

    @abstractmethod
    def save_artifact(self, kind: str, seed: int, file: Path) -> Artifact | None:
        """Store a file of a run, WEIGHTS or EVENTS; None where the runs of this context store nothing."""

    @abstractmethod
    def save_checkpoint(self, file: Path) -> None:
        """Store the state of a run."""

    @abstractmethod
    def load_checkpoint(self, file: Path) -> bool:
        """Write the stored checkpoint to `file`; False where there is none."""


class Trainer(Protocol):
    """The interface of the trainer to the steps."""

    def features(self, images: Images, training: Training, context: TrainerContext) -> Features:
        """Put the features of `images` into their cache."""
        ...

    def train(
        self,
        images: Images,
        tests: Sequence[Images],
        classes: list[str],
        training: Training,
        seeds: Sequence[int],
        context: TrainerContext,
    ) -> Iterator[Run]:
        """Train with each of `seeds`, and classify the images of each of `tests` with the result."""
        ...


@cache
def load_trainer(method: str) -> Trainer:
    """The installed trainer for a method, one per process, so that it keeps its model; raises TrainerMissing."""
    for point in entry_points(group="keepmore.trainers", name=method):
        try:
            trainer: Trainer = point.load()()
        except ImportError as error:
            raise TrainerMissing(
                f"training needs PyTorch ({error}); pip install 'keepmore[trainer]', then resume the job"
            ) from error
        return trainer
    raise TrainerMissing(f"no trainer for method {method!r} is installed; pip install 'keepmore[trainer]'")
