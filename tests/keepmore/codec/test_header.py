"""The size in a JPEG XL header."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keepmore.codec import header, jpegxl
from keepmore.errors import UnreadableImage


@given(st.integers(1, 700), st.integers(1, 700), st.booleans())
@settings(max_examples=60)
def test_the_header_states_the_size(width: int, height: int, container: bool) -> None:
    """Else a cap on pixels lets a bomb through, or refuses a good file."""
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(
        buffer, "JXL", quality=50.0, effort=1, use_container=container, num_threads=0, lossless_jpeg=False
    )
    assert header.size(buffer.getvalue()) == (width, height)


def test_the_header_of_a_packed_jpeg(jpeg: bytes) -> None:
    """Else packed JPEGs cannot be capped."""
    transcode = jpegxl.transcode(jpeg)
    assert transcode is not None
    assert header.size(transcode) == Image.open(io.BytesIO(jpeg)).size


@given(st.binary(max_size=40))
def test_any_bytes_are_a_size_or_unreadable(data: bytes) -> None:
    """Else a crafted header ends a worker."""
    for start in (b"", header.CODESTREAM, header.CONTAINER):
        try:
            width, height = header.size(start + data)
        except UnreadableImage:
            continue
        assert width >= 0
        assert height > 0
