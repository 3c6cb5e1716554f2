"""Decoding in a process of its own."""

from __future__ import annotations

import io
import os
import signal
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmore.codec import jpegxl
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.errors import DecoderFailed, ImageError, TooManyPixels, UnreadableImage

MAX = 64_000_000


def test_it_decodes_as_the_codec_does(decoder: IsolatedDecoder, jpeg: bytes) -> None:
    """Else a picture depends on which process decoded it, and so does the digest."""
    jxl = jpegxl.encode(jpegxl.decode(jpeg, MAX), 2, 3)
    for data in (jpeg, jxl):
        assert np.array_equal(np.asarray(decoder.decode(data, MAX)), np.asarray(jpegxl.decode(data, MAX)))


def test_errors_come_back_as_themselves(decoder: IsolatedDecoder, jpeg: bytes) -> None:
    """Else the errors list says "decoder failed" for everything."""
    with pytest.raises(UnreadableImage, match="not an image in a supported format"):
        decoder.decode(b"hello", MAX)
    with pytest.raises(TooManyPixels):
        decoder.decode(jpeg, 10)


def test_a_decoder_that_dies_is_an_error_and_a_new_one_takes_over(decoder: IsolatedDecoder, jpeg: bytes) -> None:
    """Else one image that crashes a decoder takes the worker, and the job, with it."""
    decoder.decode(jpeg, MAX)
    child = decoder._child
    assert child is not None
    child.send_signal(signal.SIGSTOP)
    os.kill(child.pid, signal.SIGKILL)
    while child.poll() is None:
        time.sleep(0.01)
    assert decoder.decode(jpeg, MAX).size == jpegxl.decode(jpeg, MAX).size


def test_a_decoder_that_hangs_is_stopped(jpeg: bytes) -> None:
    """Else one image that loops a decoder holds a worker for ever."""
    with IsolatedDecoder(timeout_s=2) as decoder:
        decoder.decode(jpeg, MAX)
        assert decoder._child is not None
        decoder._child.send_signal(signal.SIGSTOP)
        with pytest.raises(DecoderFailed, match="took longer than 2 s"):
            decoder.decode(jpeg, MAX)
        assert decoder.decode(jpeg, MAX).mode == "RGB"


def test_memory_is_bounded(decoder: IsolatedDecoder) -> None:
    """Else a small file that decodes to gigabytes takes the machine's memory."""
    bomb = jpegxl.encode(jpegxl.decode(_flat_png(6000, 6000), MAX), 20, 1)
    assert len(bomb) < 100_000
    with pytest.raises(TooManyPixels, match="6000 x 6000"):
        decoder.decode(bomb, 1_000_000)


def _flat_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_hostile_files_are_pictures_or_errors(decoder: IsolatedDecoder, hostile: Path) -> None:
    """Else a file from the wild crashes or hangs a worker."""
    files = [file for file in sorted(hostile.rglob("*")) if file.is_file()]
    start_s = time.monotonic()
    modes, messages = [], []
    for file in files:
        try:
            modes.append(decoder.decode(file.read_bytes(), MAX).mode)
        except ImageError as error:
            messages.append(error.message)
    assert len(modes) == 100
    assert len(messages) > 80
    assert set(modes) <= {"L", "LA", "RGB", "RGBA"}
    assert not any("0x" in message for message in messages), "an address in memory makes two runs differ"
    assert time.monotonic() - start_s < 120


def test_a_request_that_is_cut_off_ends_the_child(decoder: IsolatedDecoder) -> None:
    """Else a worker that was killed leaves decoders behind that run for ever."""
    child = decoder._running_child()
    assert child.stdin is not None
    child.stdin.write(struct.pack("<QQ", 1, 10)[:5])
    child.stdin.close()
    assert child.wait(timeout=20) == 0
    child.stdin = None
