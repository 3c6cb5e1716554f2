"""Decoding in a separate process, with limits on memory and time, for inputs that may crash or bloat a decoder.

`python -m keepmore.codec.sandbox` is the child: it answers decode requests on its standard input until that closes.
Request: max_pixels, length (two unsigned 64-bit integers), then the file. Answer: length (unsigned 64-bit) of a JSON
object with mode, width, height and bytes, or an error; that object; the pixels.
"""

from __future__ import annotations

import json
import os
import resource
import select
import struct
import subprocess
import sys
import time
from types import TracebackType
from typing import BinaryIO, cast

from PIL import Image

from keepmore.codec import jpegxl
from keepmore.errors import DecoderFailed, KeepmoreError, from_dict

TIMEOUT_S = 60.0
BASE_MEMORY_BYTES = 1 << 30
MEMORY_BYTES_PER_PIXEL = 32

_REQUEST = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")


class IsolatedDecoder:
    """Decodes in a child that is started on first use, and again after it died. Use as a context manager."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._child:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def decode(self, data: bytes, max_pixels: int) -> Image.Image:
        """As `jpegxl.decode`; also raises DecoderFailed, when the decoder crashes or exceeds a limit."""
        child = self._running_child()
        to_child, from_child = cast(BinaryIO, child.stdin), cast(BinaryIO, child.stdout)
        deadline = time.monotonic() + self._timeout_s
        try:
            to_child.write(_REQUEST.pack(max_pixels, len(data)) + data)
            to_child.flush()
            (length,) = _LENGTH.unpack(_read(from_child, _LENGTH.size, deadline))
            answer = json.loads(_read(from_child, length, deadline))
            if "error" in answer:
                raise from_dict(answer["error"])
            pixels = _read(from_child, answer["bytes"], deadline)
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            self.close()
            is_slow = isinstance(error, TimeoutError)
            reason = f"took longer than {self._timeout_s:g} s" if is_slow else "crashed or ran out of memory"
            raise DecoderFailed(f"the decoder {reason} on this file; it is damaged or hostile") from error
        return Image.frombytes(answer["mode"], (answer["width"], answer["height"]), pixels)

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            # Decoder libraries print warnings on stderr; what matters comes back as an error.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "keepmore.codec.sandbox"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._child


def _read(stream: BinaryIO, length: int, deadline: float) -> bytes:
    parts = []
    while length:
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(stream.fileno(), min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _answer(data: bytes, max_pixels: int) -> tuple[dict[str, object], bytes]:
    try:
        image = jpegxl.decode(data, max_pixels)
    except KeepmoreError as error:
        return {"error": error.as_dict()}, b""
    except MemoryError:
        return {"error": DecoderFailed("decoding needs more memory than the image's pixels justify").as_dict()}, b""
    pixels = image.tobytes()
    return {"mode": image.mode, "width": image.width, "height": image.height, "bytes": len(pixels)}, pixels


def main() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := requests.read(_REQUEST.size)) == _REQUEST.size:
        max_pixels, length = _REQUEST.unpack(head)
        limit_bytes = BASE_MEMORY_BYTES + MEMORY_BYTES_PER_PIXEL * max_pixels
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
        answer, pixels = _answer(requests.read(length), max_pixels)
        header = json.dumps(answer).encode()
        answers.write(_LENGTH.pack(len(header)) + header + pixels)
        answers.flush()


if __name__ == "__main__":
    main()
