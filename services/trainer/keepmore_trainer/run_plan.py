"""A fine-tuning as a folder: what a process, or one of several, has to know of it, and what it leaves there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepmore.spec.training import Training, Tuning

PLAN, CHECKPOINT, HEAD = "plan.json", "checkpoint.pt", "head.pt"
WEIGHTS, NAMED, DONE, STOP, COMPLAINTS = "weights.safetensors", "named.npz", "done.json", "stop", "stderr"

# Told how many images a step took; says whether to stop.
Tell = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """`images` and `tests` (by what `Images.at` calls them) are folders of decoded images; `targets` (images,) numbers
    of classes. `weights` is what `model.load` takes, of which files are there already."""

    folder: str
    training: Training
    seed: int
    classes: list[str]
    targets: list[int]
    images: str
    tests: dict[str, str]
    weights: str
    checkpoint_every_s: float = 300.0

    @property
    def tuning(self) -> Tuning:
        return self.training.tuning or Tuning()

    @property
    def batch(self) -> int:
        """Images of a step, over all processes."""
        return min(self.tuning.batch, len(self.targets))

    @property
    def steps(self) -> int:
        if self.training.epochs is None:
            return self.training.steps
        return -(-self.training.epochs * len(self.targets) // self.batch)

    def file(self, name: str) -> Path:
        return Path(self.folder) / name

    def write(self) -> None:
        said: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        self.file(PLAN).write_text(json.dumps(said | {"training": self.training.as_json()}))

    @staticmethod
    def read(folder: Path) -> Plan:
        said = json.loads((folder / PLAN).read_text())
        return Plan(**said | {"training": Training.from_json(said["training"])})
