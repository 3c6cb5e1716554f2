"""The result of a job's list step, as the store keeps it. Imports nothing heavy: the API reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from keepmore.errors import StoreError
from keepmore.storage import layout
from keepmore.storage.base import Store


@dataclass(frozen=True, slots=True)
class Listing:
    """Images by split, those that were skipped by reason, and the codec that the job began with.

    The job's chunks lie below `name`, which is random for each listing: another process that lists the job at the same
    time may find another dataset, and a job must not mix the two.
    """

    name: str
    chunks: int
    images: int
    splits: dict[str, int]
    skipped: dict[str, int]
    codec: str

    def as_json(self) -> dict[str, Any]:
        return {
            "listing": self.name,
            "chunks": self.chunks,
            "images": self.images,
            "splits": self.splits,
            "skipped": self.skipped,
            "codec": self.codec,
        }

    @staticmethod
    def read(store: Store, job_id: str) -> Listing:
        """Raises NotFound before the job is listed, and StoreError for a listing that is damaged."""
        key = layout.listing(job_id)
        data = store.get(key)
        try:
            fields = json.loads(data)
            name, chunks, images = fields["listing"], int(fields["chunks"]), int(fields["images"])
            return Listing(name, chunks, images, fields["splits"], fields["skipped"], fields["codec"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{key} is damaged ({error!r}); start a new job, which finds the encodings again"
            ) from error
