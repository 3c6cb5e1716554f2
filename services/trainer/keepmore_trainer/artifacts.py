"""What a run leaves beside its results: weights, TensorBoard events, the curve of its loss."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from keepmore.training.trainer import EVENTS, WEIGHTS, TrainerContext

POINTS = 200  # of a curve in the results; the events have every step


def curve(losses: Sequence[float], rates: Sequence[float]) -> dict[str, list[float]]:
    """Loss and learning rate over the steps: means over stretches of them, POINTS at most."""
    stride = -(-len(losses) // POINTS) or 1
    starts = range(0, len(losses), stride)
    made = {"step": [float(min(start + stride, len(losses))) for start in starts]}
    for name, values in (("loss", losses), ("learning_rate", rates)):
        if values:
            parts = [values[start : start + stride] for start in starts]
            made[name] = [round(sum(part) / len(part), 6) for part in parts]
    return made


def save_weights(state: Mapping[str, Tensor], about: Mapping[str, Any], file: Path) -> None:
    # In one entry: several are written in an order that changes from one time to the next.
    save_file(dict(state), file, {"keepmore": json.dumps(about)})


def keep_weights(
    state: Mapping[str, Tensor], about: Mapping[str, Any], seed: int, context: TrainerContext
) -> dict[str, Any]:
    """Keep a state dict as safetensors; what the results say of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        save_weights(tensors, about, file)
        return context.save_artifact(WEIGHTS, seed, file)


def keep_events(losses: Sequence[float], rates: Sequence[float], seed: int, context: TrainerContext) -> dict[str, Any]:
    """Keep every step of a run as TensorBoard reads it; its time is the step's number."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for step, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1):
                writer.add_scalar("loss/train", loss, step, walltime=step)
                writer.add_scalar("learning_rate", rate, step, walltime=step)
        (file,) = Path(folder).glob("events.out.tfevents.*")
        kept = context.save_artifact(EVENTS, seed, file)
    # Its first record holds the time: the only bytes that differ when a run is done again.
    return {name: value for name, value in kept.items() if name != "sha256"}
