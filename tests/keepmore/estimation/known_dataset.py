"""A dataset whose estimates can be compared with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from keepmore import sampling
from keepmore.compression import index
from keepmore.compression.index import ChunkRow
from keepmore.datasets.entry import Entry
from keepmore.errors import BudgetTooSmall
from keepmore.estimation.estimate import estimate
from keepmore.spec.budget import Budget
from keepmore.spec.distance import text
from keepmore.spec.job import Selection

DISTANCES = (0.0, 4.0, 10.0)


@dataclass(frozen=True)
class KnownDataset:
    """A dataset of which everything is known: bytes by distance of every image, None for one that fails."""

    entries: list[Entry]
    bytes: dict[str, tuple[int, ...] | None]
    distances: tuple[float, ...] = DISTANCES

    def compress(self, rows: Sequence[ChunkRow]) -> pa.Table:
        """As Compressor.chunk."""
        part: list[dict[str, Any]] = []
        for row in rows:
            sizes = self.bytes[row.entry.path]
            if sizes is None:
                part.append({"path": row.entry.path, "error_code": "unreadable_image"})
            else:
                columns = {index.column("bytes", d): size for d, size in zip(self.distances, sizes, strict=True)}
                part.append({"path": row.entry.path, "source_bytes": sizes[0], **columns})
        return pa.Table.from_pylist(part, index.schema(self.distances))

    def estimate(self, budget: Budget | None, selection: Selection, images: int, seed: int = 0) -> dict[str, Any]:
        return estimate(self.entries, self.distances, budget, selection, self.compress, images, seed).as_json()

    def truth(self, budget: Budget | None, selection: Selection) -> dict[str, Any]:
        """Exactly what compressing all of it gives, in the form of an estimate's expected values."""
        good = [entry for entry in self.entries if self.bytes[entry.path]]
        sizes = np.array([self.bytes[entry.path] for entry in good], np.int64).reshape(len(good), len(self.distances))
        totals = dict(zip(self.distances, sizes.sum(axis=0).tolist(), strict=True))
        limit = budget.bytes(totals) if budget else None
        counts = {
            d: _image_count(good, sizes[:, place], limit, selection) if limit is not None else None
            for place, d in enumerate(self.distances)
        }
        return {
            "failed": len(self.entries) - len(good),
            "budget_bytes": limit,
            "distances": {text(d): {"bytes": totals[d], "images": counts[d]} for d in self.distances},
        }


def _image_count(entries: list[Entry], sizes: NDArray[np.int64], limit: int, selection: Selection) -> int:
    labels = [entry.label or "" for entry in entries]
    balance = any(labels) if selection.balance is None else selection.balance
    classes = np.unique(labels, return_inverse=True)[1].astype(np.int32) if balance and labels else None
    hashes = np.array([sampling.path_hash(entry.path) for entry in entries], np.uint64)
    size_keys = sampling.size_keys(selection.order)
    keys = size_keys(sizes) if size_keys else sampling.ranks(hashes, selection.seed)
    try:
        return len(sampling.select(sizes, sampling.in_order(keys, classes), limit))
    except BudgetTooSmall:
        return 0
