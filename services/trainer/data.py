"""From samples to batches of tensors, and features to and from bytes."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from keepmore import codec
from keepmore.request import LARGEST_PIXELS
from keepmore.trainers import Sample

BATCH_IMAGES = 32
DECODE_AHEAD = 2 * BATCH_IMAGES


@dataclass(frozen=True, slots=True)
class Features:
    """`vectors` (images, width) and `labels` (images,), in the order of the samples; `about` says what made them."""

    vectors: NDArray[np.float32]
    labels: NDArray[np.str_]
    about: dict[str, Any]


def batches(
    samples: Iterator[Sample], prepare: Callable[[Any], Tensor], threads: int
) -> Iterator[tuple[Tensor, list[Sample]]]:
    """Batches of prepared images (n, 3, height, width) and their samples, decoded ahead in threads."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Sample, Future[Tensor]]] = deque()
        done: list[tuple[Sample, Tensor]] = []
        for sample in samples:
            waiting.append((sample, pool.submit(_decoded, sample.data, prepare)))
            if len(waiting) >= DECODE_AHEAD:
                first, future = waiting.popleft()
                done.append((first, future.result()))
            if len(done) == BATCH_IMAGES:
                yield _batch(done)
                done = []
        for sample, future in waiting:
            done.append((sample, future.result()))
            if len(done) == BATCH_IMAGES:
                yield _batch(done)
                done = []
        if done:
            yield _batch(done)


def _decoded(data: bytes, prepare: Callable[[Any], Tensor]) -> Tensor:
    return prepare(codec.decode_rgb(data, LARGEST_PIXELS))


def _batch(done: list[tuple[Sample, Tensor]]) -> tuple[Tensor, list[Sample]]:
    return torch.stack([tensor for _, tensor in done]), [sample for sample, _ in done]


def to_bytes(features: Features) -> bytes:
    buffer = io.BytesIO()
    about = np.array(json.dumps(features.about))
    np.savez(buffer, vectors=features.vectors.astype(np.float16), labels=features.labels, about=about)
    return buffer.getvalue()


def from_bytes(data: bytes) -> Features:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return Features(arrays["vectors"].astype(np.float32), arrays["labels"], json.loads(str(arrays["about"])))


def class_numbers(labels: NDArray[np.str_], classes: list[str]) -> NDArray[np.int64]:
    """Each label's place in `classes`, shape (images,)."""
    places = {name: number for number, name in enumerate(classes)}
    return np.array([places[label] for label in labels.tolist()], np.int64)
