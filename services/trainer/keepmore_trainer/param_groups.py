"""The layers of a model while it is fine-tuned: how fast each learns, and what stays fixed."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from keepmore.spec.training import Tuning
from keepmore_trainer.distributed import ProcessGroup
from keepmore_trainer.models import Classifier

TRANSFORMER_DECAY = 0.75
# How torchvision and timm number the blocks of a model.
BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers|stages|features|encoder_layer_|layer)\.?(\d+)")
OF_CHANCE = ("p", "drop_prob", "dropout")  # the names of dropout, and of dropping whole paths


def groups(classifier: Classifier, tuning: Tuning) -> list[dict[str, Any]]:
    """Parameters for AdamW, by `scale` (their learning rate's part of the highest) and weight decay.

    Layer-wise rates as Clark et al. 2020 (ELECTRA): the head learns at the full rate, each block below it at
    `layer_decay` times that of the next. Vectors (norms, biases, tokens) do not decay.
    """
    decay = tuning.layer_decay or (TRANSFORMER_DECAY if classifier.is_transformer else 1.0)
    parameters = list(classifier.module.named_parameters())
    depths = _depths([name for name, _ in parameters], classifier.head)
    by_rate: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        scale = decay ** (max(depths.values()) - depths[name])
        weight_decay = tuning.weight_decay if parameter.ndim > 1 and "embed" not in name else 0.0
        by_rate.setdefault((scale, weight_decay), []).append(parameter)
    return [{"params": params, "scale": scale, "weight_decay": wd} for (scale, wd), params in by_rate.items()]


def _depths(names: list[str], head: str) -> dict[str, int]:
    """The depth of each parameter: 0 before the blocks, 1 in the first block, the head highest."""
    blocks: list[str] = []  # in the order of the model
    depths = {}
    for name in names:
        numbered = list(BLOCK.finditer(name))
        block = name[: numbered[-1].end()] if numbered else None  # the innermost: swin has blocks within layers
        if block and block not in blocks:
            blocks.append(block)
        depths[name] = blocks.index(block) + 1 if block else len(blocks)
    return depths | {name: len(blocks) + 1 for name in names if name.startswith(f"{head}.")}


def trainable(classifier: Classifier, pretrained: bool, process_group: ProcessGroup) -> nn.Module:
    """The model on its device, ready to train, over all processes.

    Without dropout and, where it is pretrained, with fixed batch statistics: then a step depends neither on chance nor
    on how its batch is split.
    """
    module = classifier.module.to(process_group.place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.train()
    for part in module.modules():
        for name in OF_CHANCE:
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
        if pretrained and isinstance(part, _BatchNorm):
            part.eval()
    if process_group.size == 1:
        return module  # type: ignore[no-any-return]
    if not pretrained and process_group.place.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(module)


def bare(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel) else module
