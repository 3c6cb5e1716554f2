"""Weights from files: state dicts of PyTorch and safetensors. Nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from keepmore.errors import WeightsUnavailable

# The keys under which trainers store a state dict, and the prefixes that wrappers of a model add to its names.
WRAPPED = ("state_dict", "model", "model_state_dict", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.")

# What PyTorch's unpickler was seen to raise for damaged files.
UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_state(file: Path, where: str) -> dict[str, Tensor]:
    """The state dict in `file`; messages call it `where`. Raises WeightsUnavailable."""
    try:
        state = load_file(file) if file.suffix == ".safetensors" else _load(file, where)
    except FileNotFoundError:
        raise WeightsUnavailable(f"there is no file {where}; check the path", field="training.weights") from None
    except OSError as error:
        raise WeightsUnavailable(f"{where} cannot be read ({error})", field="training.weights") from error
    except SafetensorError as error:
        raise WeightsUnavailable(f"{where} is not a safetensors file ({error})", field="training.weights") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsUnavailable(f"{where} holds no state dict: names and tensors", field="training.weights")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _load(file: Path, where: str) -> object:
    """What is in a file of PyTorch, unwrapped."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        raise WeightsUnavailable(f"{where} is not a PyTorch state dict ({error})", field="training.weights") from error
    for name in WRAPPED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            return state[name]
    return state


def sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def load_trunk(model: nn.Module, head: str, state: dict[str, Tensor], where: str) -> None:
    """Load `state` into `model`, all but the `head`, which is for other classes. Raises WeightsUnavailable."""
    trunk = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    own = {name: value for name, value in model.state_dict().items() if not name.startswith(f"{head}.")}
    for name, value in own.items():
        # Counters of batches: old files lack them, and they are not needed.
        if name not in trunk and not name.endswith("num_batches_tracked"):
            raise _other(where, f"it lacks {name}")
        if name in trunk and trunk[name].shape != value.shape:
            raise _other(where, f"{name} has the shape {tuple(trunk[name].shape)}, not {tuple(value.shape)}")
    if foreign := sorted(set(trunk) - set(own)):
        raise _other(where, f"it has {foreign[0]}, which the model has not")
    model.load_state_dict(trunk, strict=False)


def _other(where: str, why: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{where} belongs to another architecture ({why}); name the model that it was trained as",
        field="training.weights",
    )
