"""Where and how precisely a model computes."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """The fastest that PyTorch can use here: a CUDA GPU, Apple's, or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def bf16_helps(place: torch.device) -> bool:
    """Whether `place` computes in bfloat16: elsewhere it is emulated, and slower than float32."""
    if place.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if place.type == "mps":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def fp16_helps(place: torch.device) -> bool:
    """Whether `place` has units for float16: GPUs of NVIDIA since Volta."""
    return place.type == "cuda" and torch.cuda.get_device_capability(place) >= (7, 0)


def precision(place: torch.device, requested: str | None = None) -> str:
    """The precision to compute in: the requested one, or the fastest that does not cost accuracy."""
    if requested:
        return requested
    if bf16_helps(place):
        return "bfloat16"
    return "float16" if fp16_helps(place) else "float32"


def autocast(place: torch.device, precision: str) -> torch.autocast:
    """Mixed precision, unless `precision` is float32."""
    low = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(place.type, low, enabled=precision != "float32")
