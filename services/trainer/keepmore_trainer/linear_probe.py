"""The linear probe: one linear layer on fixed features, with the same number of steps however many images there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BATCH_IMAGES = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2


def fit_probe(vectors: Tensor, classes: Tensor, class_count: int, steps: int, seed: int) -> tuple[nn.Linear, Tensor]:
    """A head trained for `steps` steps (AdamW, cosine to zero) on `vectors` (n, width) and `classes` (n,), and the loss
    of every step, (steps,)."""
    with _one_thread():
        return _fit(vectors, classes, class_count, steps, seed)


@contextmanager
def _one_thread() -> Iterator[None]:
    """With batches this small, handing work over costs eight times more than a second thread gains."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(vectors: Tensor, classes: Tensor, class_count: int, steps: int, seed: int) -> tuple[nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(vectors.shape[1], class_count)
    nn.init.zeros_(head.bias)
    nn.init.normal_(head.weight, std=0.01, generator=generator)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    order = _Order(len(vectors), generator)
    losses = torch.empty(steps)
    for step in range(steps):
        batch = order.next()
        loss = nn.functional.cross_entropy(head(vectors[batch]), classes[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses[step] = loss.detach()
    return head, losses


class _Order:
    """Batches of indices: one shuffled pass over all images after another."""

    def __init__(self, images: int, generator: torch.Generator) -> None:
        self._images = images
        self._generator = generator
        self._remaining = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        size = min(BATCH_IMAGES, self._images)
        while len(self._remaining) < size:
            self._remaining = torch.cat([self._remaining, torch.randperm(self._images, generator=self._generator)])
        batch, self._remaining = self._remaining[:size], self._remaining[size:]
        return batch
