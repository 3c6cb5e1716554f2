"""Progress of work: the report on every image that is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

# The key of the progress in the metadata of a part.
METADATA = b"keepmore-progress"


@dataclass(frozen=True, slots=True)
class Progress:
    """Images done, those of them that failed, bytes read, bytes of their encodings, and seconds of encoding."""

    images: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    encode_s: float = 0.0

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.images + other.images,
            self.failed + other.failed,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.encode_s + other.encode_s,
        )

    def __sub__(self, other: Progress) -> Progress:
        return Progress(
            self.images - other.images,
            self.failed - other.failed,
            self.bytes_in - other.bytes_in,
            self.bytes_out - other.bytes_out,
            self.encode_s - other.encode_s,
        )

    def as_metadata(self) -> dict[bytes, bytes]:
        """For the schema of a part."""
        return {METADATA: json.dumps(asdict(self)).encode()}

    @staticmethod
    def from_metadata(metadata: Mapping[bytes, bytes]) -> Progress:
        """Raises KeyError for the metadata of something else."""
        return Progress(**json.loads(metadata[METADATA]))


Report = Callable[[Progress], None]
