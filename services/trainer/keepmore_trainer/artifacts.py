"""What a run stores beside its results: weights, TensorBoard events, the curve of its loss."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from keepmore.training.results import Artifact
from keepmore.training.trainer import EVENTS, WEIGHTS, TrainerContext

POINTS = 200  # of a curve in the results; the events have every step


def curve(losses: Sequence[float], rates: Sequence[float]) -> dict[str, list[float]]:
    """Loss and learning rate over the steps: means over stretches of them, POINTS at most."""
    stride = -(-len(losses) // POINTS) or 1
    starts = range(0, len(losses), stride)
    curves = {"step": [float(min(start + stride, len(losses))) for start in starts]}
    for name, values in (("loss", losses), ("learning_rate", rates)):
        if values:
            parts = [values[start : start + stride] for start in starts]
            curves[name] = [round(sum(part) / len(part), 6) for part in parts]
    return curves


def save_weights(state: Mapping[str, Tensor], about: Mapping[str, Any], file: Path) -> None:
    # In one entry: several are written in an order that changes from one time to the next.
    save_file(dict(state), file, {"keepmore": json.dumps(about)})


def store_weights(
    state: Mapping[str, Tensor], about: Mapping[str, Any], seed: int, context: TrainerContext
) -> dict[str, Artifact]:
    """Store a state dict as safetensors, unless the context stores no artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        save_weights(tensors, about, file)
        artifact = context.save_artifact(WEIGHTS, seed, file)
    return {WEIGHTS: artifact} if artifact else {}


def store_events(
    losses: Sequence[float], rates: Sequence[float], seed: int, context: TrainerContext
) -> dict[str, Artifact]:
    """Store every step of a run in TensorBoard's format, with the step's number as its time."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for step, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1):
                writer.add_scalar("loss/train", loss, step, walltime=step)
                writer.add_scalar("learning_rate", rate, step, walltime=step)
        (file,) = Path(folder).glob("events.out.tfevents.*")
        artifact = context.save_artifact(EVENTS, seed, file)
    # Its first record has the current time: the only bytes that differ when a run is repeated.
    return {EVENTS: replace(artifact, sha256=None)} if artifact else {}
