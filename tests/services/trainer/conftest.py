"""Images and contexts as the steps give them to a trainer, over real files and a real store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from keepmore.net.access import EVERYTHING
from keepmore.pipeline.training import RunContext
from keepmore.progress import Progress
from keepmore.storage.folder import FolderStore
from keepmore.storage.scratch import Scratch
from keepmore.training.trainer import Images, TrainerContext

Pictures = Callable[..., Images]


@pytest.fixture
def pictures() -> Pictures:
    """The images of a folder, each labelled by the folder it lies in."""

    def load(folder: Path, group: str = "0", most: int | None = None) -> Images:
        files = sorted(folder.rglob("*.jpg"))[:most]
        data = [file.read_bytes() for file in files]
        columns = {
            "path": [file.name for file in files],
            "label": [file.parent.name for file in files],
            "sha256": [hashlib.sha256(one).hexdigest() for one in data],
            "object_uri": [str(file) for file in files],
            "bytes": [len(one) for one in data],
        }
        return Images(pa.table(columns), lambda row: data[row], group)

    return load


@dataclass(slots=True)
class Workplace:
    """A store and scratch disk, and the progress reported from there; `interrupt` may end the work by raising."""

    store: FolderStore
    scratch: Scratch
    reports: list[Progress] = field(default_factory=list)
    interrupt: Callable[[list[Progress]], None] = lambda reports: None

    def context(self, name: str = "run") -> TrainerContext:
        def report(progress: Progress) -> None:
            self.reports.append(progress)
            self.interrupt(self.reports)

        return RunContext(self.store, EVERYTHING, self.scratch, report, "job", name, "0", 0)


@pytest.fixture
def workplace(store: FolderStore, tmp_path: Path) -> Workplace:
    return Workplace(store, Scratch(str(tmp_path / "scratch")))


@pytest.fixture(autouse=True)
def _threads_of_a_step() -> Iterator[None]:
    """As many as a process that a test starts has: sums come out alike only in the same parts."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    yield
    torch.set_num_threads(before)
