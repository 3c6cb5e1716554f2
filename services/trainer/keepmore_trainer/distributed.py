"""The processes that train one model together, each on a part of every batch: one, or as many as torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from keepmore_trainer import device


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    rank: int
    size: int
    place: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` consecutive items."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, *values: float) -> list[float]:
        """The sum of each of `values` over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.place if self.place.type == "cuda" else "cpu")
        dist.all_reduce(tensor)
        totals: list[float] = tensor.tolist()
        return totals

    def all_gather(self, own: object) -> list[object]:
        """The objects of all processes, by rank."""
        if self.size == 1:
            return [own]
        by_rank: list[object] = [None] * self.size
        dist.all_gather_object(by_rank, own)
        return by_rank


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """The group that torchrun's environment variables describe; this process alone without them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup(0, 1, device.device())
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpus else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), size, device.device())
    finally:
        dist.destroy_process_group()
