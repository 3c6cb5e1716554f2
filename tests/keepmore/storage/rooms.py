"""Room on a scratch disk, as a new entry asks for it."""

from __future__ import annotations

from keepmore.storage.scratch import Scratch


def makes_room(scratch: Scratch, bytes_: int) -> bool:
    """Whether a new entry gets so much room."""
    with scratch.temporary("new-") as new:
        return scratch.make_room(bytes_, new)
