"""Batches of training images in the order of a plan, decoded ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from keepmore_trainer.distributed import ProcessGroup
from keepmore_trainer.image_cache import Decoded, Pixels
from keepmore_trainer.run_plan import Plan
from keepmore_trainer.transforms import Transform, random_crop

# Threads that crop images: two keep a CPU busy, a GPU is faster.
LOADERS_CPU, LOADERS_GPU = 2, 8


@dataclass(frozen=True, slots=True)
class DataLoader:
    """The images of every step, this process's part: cropped in threads, for a GPU a step ahead. On a CPU, that would
    only compete with the threads that compute, which wait for each other many times a step."""

    plan: Plan
    images: Decoded
    transform: Transform
    process_group: ProcessGroup

    def steps(self, first: int) -> Iterator[tuple[list[Pixels], list[int]]]:
        """Images (crop, crop, 3) and their classes, for every step from `first` on."""
        on_cpu = self.process_group.place.type == "cpu"
        with ThreadPoolExecutor(LOADERS_CPU if on_cpu else LOADERS_GPU) as threads:
            waiting: deque[tuple[list[Future[Pixels]], list[int]]] = deque()
            for step in range(first, self.plan.steps):
                if not waiting:
                    waiting.append(self._start(step, threads))
                if not on_cpu and step + 1 < self.plan.steps:
                    waiting.append(self._start(step + 1, threads))
                images, targets = waiting.popleft()
                yield [image.result() for image in images], targets

    def _start(self, step: int, threads: ThreadPoolExecutor) -> tuple[list[Future[Pixels]], list[int]]:
        batch = self.plan.batch
        places = range(step * batch, (step + 1) * batch)[self.process_group.share(batch)]
        # One shuffled pass over all images after another.
        count, seed = len(self.plan.targets), self.plan.seed
        rows = [int(_order(count, seed, place // count)[place % count]) for place in places]
        images = [threads.submit(self._cut, row, place) for row, place in zip(rows, places, strict=True)]
        return images, [self.plan.targets[row] for row in rows]

    def _cut(self, row: int, place: int) -> Pixels:
        pixels = self.images[row]
        draws = np.random.Generator(np.random.Philox(key=np.array([self.plan.seed, place], np.uint64)))
        height, width, _ = pixels.shape
        crop = random_crop(height, width, self.plan.tuning.crop, draws)
        return self.transform.cut(pixels, crop)


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64))).permutation(count)
