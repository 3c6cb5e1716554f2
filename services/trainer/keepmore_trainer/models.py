"""Classifiers of torchvision and timm: their trunk with weights, the layer that is their head, and what they expect."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision import models

from keepmore.errors import TrainerMissing, UnknownModel, WeightsUnavailable
from keepmore.training.results import TOP, LoadedModel, ModelInfo
from keepmore_trainer.checkpoints import load_trunk, read_state, sha256
from keepmore_trainer.transforms import Transform

# Of torchvision's own weights these exist for every classifier, and their features serve a linear head better than
# those of the later training recipe (IMAGENET1K_V2).
DEFAULT_WEIGHTS = "IMAGENET1K_V1"
DEFAULT, NO_WEIGHTS = "default", "none"
TIMM = "timm:"
SUCH_AS = "such as mobilenet_v2, resnet18, vit_b_16, or timm:vit_small_patch16_224"

Fetch = Callable[[str], AbstractContextManager[Path]]


@dataclass(frozen=True, slots=True)
class Classifier:
    """`module` gives class scores for images that `transform` made; `head` is the path of its last linear layer."""

    module: nn.Module
    head: str
    transform: Transform
    info: ModelInfo

    def at(self, image_size: int | None) -> Classifier:
        """The same for images of another size; None: as it is."""
        return replace(self, transform=self.transform.at(image_size))

    def set_head(self, layer: nn.Module) -> None:
        parent, _, child = self.head.rpartition(".")
        setattr(self.module.get_submodule(parent), child, layer)

    @property
    def width(self) -> int:
        """Features that the head takes."""
        return int(self.module.get_submodule(self.head).in_features)  # type: ignore[arg-type]

    @property
    def is_transformer(self) -> bool:
        return any("attention" in type(module).__name__.lower() for module in self.module.modules())


def _local(path: str) -> AbstractContextManager[Path]:
    return nullcontext(Path(path))


def load(name: str, weights: str, fetch: Fetch = _local) -> Classifier:
    """A classifier with its weights; its head is the one in the file, or new. `name` is torchvision's, or "timm:" and a
    name of timm's. `weights`: "default", "none", a name of torchvision's, or one whose file `fetch` returns.

    Raises UnknownModel, TrainerMissing without timm, and WeightsUnavailable saying where to put the file.
    """
    torch.manual_seed(0)  # random weights are the same every time
    if name.startswith(TIMM):
        return _from_timm(name, weights, fetch)
    return _from_torchvision(name, weights, fetch)


def is_file(weights: str) -> bool:
    return bool(Path(weights).suffix) or "/" in weights


def _from_torchvision(name: str, weights: str, fetch: Fetch) -> Classifier:
    if name not in models.list_models(module=models):
        raise UnknownModel(f"torchvision has no classifier {name!r}; use {SUCH_AS}", field="training.model")
    module = models.get_model(name, weights=None)
    head = _last_linear(name, module)
    transform, file, weights_name = Transform(), None, weights
    with ExitStack() as stack:
        if is_file(weights):
            file = stack.enter_context(fetch(weights))
        elif weights != NO_WEIGHTS:
            member = _member(name, weights)
            file, weights_name, preset = _download(member), member.name, member.transforms()
            transform = Transform(
                preset.resize_size[0],
                preset.crop_size[0],
                preset.interpolation.value,
                tuple(preset.mean),
                tuple(preset.std),
            )
        if file:
            where = weights if is_file(weights) else str(file)
            load_trunk(module, head, read_state(file, where), where)
        info = _info(name, weights_name, file, {"torchvision": torchvision.__version__})
    return Classifier(module, head, transform, info)


def _last_linear(name: str, module: nn.Module) -> str:
    linear: list[str] = [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UnknownModel(f"{name} has no linear head to take off; use {SUCH_AS}", field="training.model")
    return linear[-1]


def _member(name: str, weights: str) -> Any:
    available = models.get_model_weights(name)
    member = DEFAULT_WEIGHTS if weights == DEFAULT else weights
    if member not in available.__members__:
        names = ", ".join(each.name for each in available)
        raise WeightsUnavailable(
            f"{name} has no weights {member!r}; use {names}, none, or a file", field="training.weights"
        )
    return available[member]


def _download(member: Any) -> Path:
    """The weights' file in torch's cache, downloaded if it is not there yet."""
    url: str = member.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.exists():
        try:
            torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise WeightsUnavailable(
                f"{member} cannot be downloaded ({error}); put the file {file.name} "
                f"from {url} into {file.parent}, then resume the job; or name a file with --weights",
                field="training.weights",
            ) from error
    return file


def _from_timm(name: str, weights: str, fetch: Fetch) -> Classifier:
    try:
        import timm
        from huggingface_hub.errors import HfHubHTTPError
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise TrainerMissing(
            f"{name} needs timm ({error}); pip install 'keepmore[timm]'", field="training.model"
        ) from error
    timm_name = name.removeprefix(TIMM)
    if not timm.is_model(timm_name.split(".")[0]):
        raise UnknownModel(f"timm has no model {timm_name!r}; timm.list_models() lists them", field="training.model")
    try:
        module = timm.create_model(timm_name, pretrained=weights == DEFAULT)
    except RuntimeError as error:  # no such pretrained tag
        raise UnknownModel(
            f"{name}: {error}; timm.list_pretrained() lists what there is", field="training.model"
        ) from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise WeightsUnavailable(
            f"timm's weights of {timm_name} cannot be downloaded ({error}); put them into the "
            "Hugging Face cache ($HF_HOME), then resume the job; or name a file with --weights",
            field="training.weights",
        ) from error
    head = dict(module.pretrained_cfg).get("classifier")  # type: ignore[arg-type]
    if not isinstance(head, str) or not isinstance(module.get_submodule(head), nn.Linear):
        raise UnknownModel(f"{name} has no single linear head to take off; use {SUCH_AS}", field="training.model")
    versions = {"timm": timm.__version__}
    if is_file(weights):
        with fetch(weights) as file:
            load_trunk(module, head, read_state(file, weights), weights)
            info = _info(name, weights, file, versions)
    elif weights in (DEFAULT, NO_WEIGHTS):
        info = _info(name, weights, None, versions)
    else:
        raise WeightsUnavailable(
            f"timm has no weights {weights!r}; use default, none, or a file", field="training.weights"
        )
    config = resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    crop, mean, std = config["input_size"][-1], tuple(config["mean"]), tuple(config["std"])
    transform = Transform(int(crop / config["crop_pct"]), crop, config["interpolation"], mean, std)
    return Classifier(module, head, transform, info)


def _info(name: str, weights: str, file: Path | None, versions: dict[str, str]) -> ModelInfo:
    return ModelInfo(name, weights, sha256(file) if file else None, {"torch": torch.__version__, **versions})


@dataclass(frozen=True, slots=True)
class Backbone:
    """`module` gives features (n, width) of images that `transform` made. Backbones with one `id` give the same
    features."""

    module: nn.Module
    transform: Transform
    model: LoadedModel

    @property
    def id(self) -> str:
        record = json.dumps([asdict(self.model), self.transform.as_json()], sort_keys=True)
        name = re.sub("[^A-Za-z0-9_.]", "-", self.model.model)
        return f"{name}-{hashlib.sha256(record.encode()).hexdigest()[:16]}"


def backbone(classifier: Classifier, place: torch.device, precision: str) -> Backbone:
    """The classifier without its head, frozen, on `place`."""
    classifier.set_head(nn.Identity())
    module = classifier.module.eval().requires_grad_(False)
    module.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = LoadedModel(**asdict(classifier.info), device=place.type, precision=precision)
    return Backbone(module, classifier.transform, model)


def new_head(width: int, classes: int, seed: int) -> nn.Linear:
    """A linear layer of small random weights."""
    head = nn.Linear(width, classes)
    generator = torch.Generator().manual_seed(seed)
    nn.init.zeros_(head.bias)
    nn.init.normal_(head.weight, std=0.01, generator=generator)
    return head


def top_classes(scores: Tensor) -> Tensor:
    """The numbers of the most likely classes, best first, (n, min(TOP, classes))."""
    return scores.topk(min(TOP, scores.shape[1]), dim=1).indices.to(torch.int32).cpu()
