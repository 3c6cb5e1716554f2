"""How a worker holds memory, in a process of its own: the settings are those of a whole process."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from keepmore.codec import jpegxl, malloc
from keepmore.codec.jpegxl import Pixels

PIXELS = 512
PAGE_FAULTS = 500  # of encoding such an image with no memory kept: a thousand or more


def faults_an_encoding() -> float:
    """Page faults of encoding one image, once the first few have been."""
    pixels = Pixels("RGB", PIXELS, PIXELS, bytes(range(256)) * (PIXELS * PIXELS * 3 // 256))
    for _ in range(3):
        jpegxl.encode(pixels, 4.0, 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        jpegxl.encode(pixels, 4.0, 3)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5


@pytest.mark.skipif(not malloc.return_large_blocks(), reason="no mallopt here")
def test_small_images_do_not_have_the_kernel_clear_the_same_pages_again() -> None:
    """Else compressing takes up to twice as long."""
    program = f"from {__name__} import *; malloc.suit_image({PIXELS**2}); print(faults_an_encoding())"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(process.stdout) < PAGE_FAULTS
