"""What the trainer service gives the steps, and how an installed one is found: no torch outside of it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keepmore.errors import TrainerMissing
from keepmore.progress import Report
from keepmore.spec.training import Training
from keepmore.storage.scratch import Scratch
from keepmore.training.feature_cache import FeatureCache

WEIGHTS, EVENTS = "weights", "events"  # the kinds of files that `TrainerContext.keep` keeps


def unchanged(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Images:
    """Labelled images, in the order of their paths: the good ones of a manifest, or those to test on.

    `table` has the columns path, label, sha256, object_uri and bytes. `read` gives the bytes of a row, checked against
    its checksum; it wants one thread, and rows are read fastest in their order. `changed` makes of these what is looked
    at, in any thread: the same bytes or, to test on how they look at another distance, an encoding, which `at` names.
    `group` is where on a shelf their features lie, and `made` what the trainer said when it had put them there.
    """

    table: pa.Table
    read: Callable[[int], bytes]
    group: str
    at: str = ""
    changed: Callable[[bytes], bytes] = unchanged
    made: dict[str, Any] | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def labels(self) -> list[str]:
        found: list[str] = self.table["label"].to_pylist()
        return found

    def names(self) -> NDArray[np.bytes_]:
        """What each image is known by wherever something is kept that was made from it, shape (images,), 32 bytes."""
        sums = self.table["sha256"].to_pylist()
        if not self.at:
            return np.array([bytes.fromhex(sha256) for sha256 in sums], "S32")
        return np.array([hashlib.sha256(f"{sha256}@{self.at}".encode()).digest() for sha256 in sums], "S32")


@dataclass(frozen=True, slots=True)
class TrainerContext:
    """What a trainer may use beside its images.

    `scratch`: local disk. `report` takes the progress of every batch; it may raise, and what a trainer keeps of a run
    under way is then written down first. `file` gives the file that `Training.weights` names, `shelf` the features that
    are there of a backbone and a group of images. `keep` keeps a file of a run, named by its kind, and gives what the
    results say of it. `checkpoint` keeps where a run is, `resumed` gives what an earlier one kept.
    """

    scratch: Scratch
    report: Report
    file: Callable[[str], AbstractContextManager[Path]]
    feature_cache: Callable[[str, str], FeatureCache]
    save_artifact: Callable[[str, int, Path], dict[str, Any]]
    checkpoint: Callable[[Path], None]
    load_checkpoint: Callable[[Path], bool]


class Trainer(Protocol):
    """What the trainer service gives the steps."""

    def features(self, images: Images, training: Training, context: TrainerContext) -> dict[str, Any]:
        """Put the features of `images` on their shelf; gives the shelf's prefix and what made them."""
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
        """Train with each of `seeds`, and name the images of each of `tests` with the result."""
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


TOP = 5


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of a training.

    `named`: for each set of test images, by what `Images.at` calls it, the numbers of the most likely classes, best
    first, shape (images, min(5, classes)). `about` says what ran, `curve` has lists step, loss and learning_rate,
    `kept` the files that were kept by kind, `notes` where the trainer fell back to something else than was asked.
    """

    seed: int
    named: dict[str, NDArray[np.int32]]
    about: dict[str, Any]
    curve: dict[str, list[float]] = field(default_factory=dict)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_bytes(self) -> bytes:
        buffer = io.BytesIO()
        said = {"seed": self.seed, "about": self.about, "curve": self.curve, "kept": self.kept, "notes": self.notes}
        arrays = {f"named@{at}": numbers for at, numbers in self.named.items()}
        np.savez_compressed(buffer, said=np.array(json.dumps(said)), **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Run:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            said = json.loads(str(arrays["said"]))
            named = {name.removeprefix("named@"): arrays[name] for name in arrays if name != "said"}
        return Run(named=named, **said)
