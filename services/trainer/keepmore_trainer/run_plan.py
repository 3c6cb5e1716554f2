"""A fine-tuning as a folder: the input of its processes, and their output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from keepmore.spec.training import Training, Tuning
from keepmore.training.results import LoadedModel

PLAN, CHECKPOINT, HEAD = "plan.json", "checkpoint.pt", "head.pt"
WEIGHTS, NAMED, DONE, STOP, STDERR = "weights.safetensors", "named.npz", "done.json", "stop", "stderr"

# Called with the number of images of a step; True asks for a stop.
OnStep = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Plan:
    """`images` and `tests` (by `Images.at`) are folders of decoded images, `targets` (images,) numbers of classes.
    `weights` is for `models.load`; a file is on this machine."""

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
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        self.file(PLAN).write_text(json.dumps(values | {"training": self.training.as_json()}))

    @staticmethod
    def read(folder: Path) -> Plan:
        record = json.loads((folder / PLAN).read_text())
        return Plan(**record | {"training": Training.from_json(record["training"])})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run: `losses` and `rates` of every step; `notes` on its fallbacks."""

    model: LoadedModel
    processes: int
    preparation: dict[str, Any]
    skipped_steps: int
    losses: list[float]
    rates: list[float]
    notes: list[str]

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(file: Path) -> Outcome:
        record = json.loads(file.read_text())
        return Outcome(**record | {"model": LoadedModel(**record["model"])})
