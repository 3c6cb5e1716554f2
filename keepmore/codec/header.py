"""The image size that a JPEG XL file states in its header, read without decoding anything.

Layout: ISO/IEC 18181-1 (codestream, SizeHeader) and 18181-2 (boxes `jxlc`, `jxlp`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from keepmore.errors import UnreadableImage

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a"
HEADER_BYTES = 16
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
DIMENSION_BITS = (9, 13, 18, 30)


def is_jxl(data: bytes) -> bool:
    return data.startswith((CODESTREAM, CONTAINER))


def size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels. Raises UnreadableImage if `data` does not begin as a JPEG XL file does."""
    start = b"".join(_codestream_boxes(data)) if data.startswith(CONTAINER) else data
    if not start.startswith(CODESTREAM):
        raise UnreadableImage("not a JPEG XL file: no codestream was found")
    bits = _Bits(start[len(CODESTREAM) : HEADER_BYTES])
    small = bits.read(1)
    height = _dimension(bits, small)
    ratio = bits.read(3)
    if ratio:
        over, under = RATIOS[ratio]
        return height * over // under, height
    return _dimension(bits, small), height


def _dimension(bits: _Bits, small: int) -> int:
    if small:
        return (1 + bits.read(5)) * 8
    return 1 + bits.read(DIMENSION_BITS[bits.read(2)])


class _Bits:
    """Bits of the codestream, least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._bits_left = len(data) * 8

    def read(self, count: int) -> int:
        if count > self._bits_left:
            raise UnreadableImage("the JPEG XL header is cut off")
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        self._bits_left -= count
        return value


def _codestream_boxes(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
            header = 16
        end = position + length if length >= header else len(data)
        if kind == b"jxlc":
            yield data[position + header : position + header + HEADER_BYTES]
        elif kind == b"jxlp":
            yield data[position + header + 4 : min(end, position + header + 4 + HEADER_BYTES)]
        position = end
