"""What one training with one seed came to, and its form in the store."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
