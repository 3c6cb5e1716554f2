"""How far work is: what is told of every image that is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Under this name a part says in its metadata how much was done for it.
METADATA = b"keepmore-progress"


@dataclass(frozen=True, slots=True)
class Progress:
    """What one image added, or several: how many failed, bytes read, bytes of their encodings, seconds of encoding."""

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


Report = Callable[[Progress], None]
