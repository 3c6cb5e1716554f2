"""Backbones: a torchvision classifier without its head, frozen, with the preparation that its weights expect."""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms._presets import ImageClassification

from keepmore.errors import UnknownModel, WeightsUnavailable

# Of torchvision's own weights these exist for every classifier, and their features serve a linear head better than
# those of the later training recipe (IMAGENET1K_V2).
DEFAULT_WEIGHTS = "IMAGENET1K_V1"
NO_WEIGHTS = "none"
CROP_SIZE = 224


@dataclass(frozen=True, slots=True)
class Backbone:
    """`module` gives features (n, width) from images (n, 3, height, width) that `prepare` made from PIL images."""

    module: nn.Module
    prepare: Callable[[Any], Tensor]
    about: dict[str, Any]


def load_backbone(name: str, weights: str) -> Backbone:
    """A frozen backbone by torchvision's name. `weights`: "default", "none", a name as torchvision's, or a file.

    Raises UnknownModel, and WeightsUnavailable saying where to put the file.
    """
    if name not in models.list_models(module=models):
        raise UnknownModel(
            f"training.model: torchvision has no classifier {name!r}; such as mobilenet_v2, resnet18, vit_b_16"
        )
    if weights == NO_WEIGHTS:
        torch.manual_seed(0)
        return _finished(name, models.get_model(name, weights=None), weights, None, _preparation(None))
    if Path(weights).suffix or "/" in weights:
        state = read_state(Path(weights))
        model = models.get_model(name, weights=None, num_classes=_classes_in(state))
        _load(model, state, weights)
        return _finished(name, model, weights, Path(weights), _preparation(None))
    member = _member(name, weights)
    file = _downloaded(member)
    model = models.get_model(name, weights=None)
    _load(model, read_state(file), str(file))
    return _finished(name, model, member.name, file, _preparation(member))


def read_state(file: Path) -> dict[str, Tensor]:
    """A state dict from a file, tensors only: nothing in the file is ever run. Raises WeightsUnavailable."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsUnavailable(f"training.weights: there is no file {file}; check the path") from None
    except Exception as error:
        raise WeightsUnavailable(f"training.weights: {file} is not a PyTorch state dict ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsUnavailable(f"training.weights: {file} holds no state dict: names and tensors")
    return state


def _member(name: str, weights: str) -> Any:
    known = models.get_model_weights(name)
    wanted = DEFAULT_WEIGHTS if weights == "default" else weights
    if wanted not in known.__members__:
        names = ", ".join(member.name for member in known)
        raise WeightsUnavailable(f"training.weights: {name} has no weights {wanted!r}; use {names}, none, or a file")
    return known[wanted]


def _downloaded(member: Any) -> Path:
    """The weights' file in torch's cache, fetched if it is not there yet."""
    url: str = member.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.exists():
        try:
            torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise WeightsUnavailable(
                f"training.weights: {member} cannot be downloaded ({error}); put the file {file.name} "
                f"from {url} into {file.parent}, then resume the job; or name a file with --weights"
            ) from error
    return file


def _classes_in(state: dict[str, Tensor]) -> int:
    """The width of the last matrix in a state dict, which is its classifier's head."""
    matrices = [value for name, value in state.items() if name.endswith("weight") and value.ndim == 2]
    return matrices[-1].shape[0] if matrices else 1000


def _load(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsUnavailable(f"training.weights: {where} belongs to another architecture ({first})") from error


def _preparation(member: Any) -> Callable[[Any], Tensor]:
    found: Callable[[Any], Tensor] = member.transforms() if member else ImageClassification(crop_size=CROP_SIZE)
    return found


def _finished(
    name: str, model: nn.Module, weights: str, file: Path | None, prepare: Callable[[Any], Tensor]
) -> Backbone:
    head = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not head:
        raise UnknownModel(f"training.model: {name} has no linear head to take off; use such as mobilenet_v2, resnet18")
    parent, _, child = head[-1].rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    place = device()
    model.eval().requires_grad_(False).to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    about = {
        "model": name,
        "weights": weights,
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file else None,
        "device": place.type,
        "precision": "bfloat16" if bf16_helps(place) else "float32",
    }
    return Backbone(model, prepare, about)


def device() -> torch.device:
    """Where features are computed: on a GPU where there is one that PyTorch can use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_helps(place: torch.device) -> bool:
    """Whether `place` computes in bfloat16: elsewhere it is emulated, and slower than float32."""
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
