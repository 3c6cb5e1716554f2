"""Distances and bytes."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from keepmore.codec import jpegxl
from keepmore.errors import InvalidRequest, SeveralFrames, TooManyPixels, UnreadableImage

MAX = 64_000_000


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _gradient(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    ramp = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (ramp, ramp.rotate(180), ramp)).convert(mode)


@given(st.floats(0.11, 25.0))
@settings(max_examples=300)
def test_quality_reaches_the_distance(distance: float) -> None:
    """Else a user who asks for distance 4 gets something near it."""
    actual = jpegxl.distance_from_quality(np.array([jpegxl.quality_for(distance)], np.float32))[0]
    assert abs(float(actual) - distance) <= 4e-6 * distance
    assert (actual >= jpegxl.CLIFF) == (np.float32(distance) >= jpegxl.CLIFF)


@pytest.mark.parametrize("distance", [1, 2, 4, 6, 8, 9.5, 12, 15, 20, 25])
def test_usual_distances_are_exact_to_a_float32_step(distance: float) -> None:
    """Else files differ from those of an encoder that takes the distance itself."""
    actual = jpegxl.distance_from_quality(np.array([jpegxl.quality_for(distance)], np.float32))[0]
    assert abs(actual - np.float32(distance)) <= np.spacing(np.float32(distance))


def test_distance_ten_is_encoded_just_below_the_cliff(jpeg: bytes) -> None:
    """Else distance 10 costs more bytes and five times the time of distance 9.99."""
    assert jpegxl.encoder_distance(10) == float(np.nextafter(np.float32(10), np.float32(0)))
    assert jpegxl.encoder_distance(10.5) == 10.5
    image = jpegxl.decode(jpeg, MAX)
    assert len(jpegxl.encode(image, 10, 3)) < len(jpegxl.encode(image, 9, 3))


@pytest.mark.parametrize("distance", [0, 0.05, 25.5, float("nan")])
def test_impossible_distances_are_refused(distance: float) -> None:
    """Else the encoder clamps them in silence."""
    with pytest.raises(InvalidRequest, match=r"use 0\.11 to 25"):
        jpegxl.quality_for(distance)


def test_larger_distances_take_fewer_bytes_over_the_whole_range(jpeg: bytes) -> None:
    """Else the distances that a user pays for mean nothing. (At 10 the encoder changes to half resolution.)"""
    image = jpegxl.decode(jpeg, MAX)
    for distances in ((0.11, 0.5, 1, 2, 4, 6, 8, 10), (10.5, 12, 15, 20, 25)):
        sizes = [len(jpegxl.encode(image, d, 3)) for d in distances]
        assert sizes == sorted(sizes, reverse=True)


def test_a_transcode_restores_the_jpeg_bit_for_bit(jpeg: bytes) -> None:
    """Else "lossless" loses the user's original."""
    transcode = jpegxl.transcode(jpeg)
    assert transcode is not None
    assert len(transcode) < len(jpeg)
    assert jpegxl.restore(transcode) == jpeg


def test_what_has_no_transcode_gives_none(jpeg: bytes) -> None:
    """Else one CMYK or damaged JPEG stops a job."""
    assert jpegxl.transcode(_save(_gradient("CMYK"), "JPEG")) is None
    assert jpegxl.transcode(jpeg[: len(jpeg) // 2]) is None
    assert jpegxl.transcode(b"no jpeg at all") is None


def test_restoring_a_lossy_file_is_refused(jpeg: bytes) -> None:
    """Else pixels of a lossy file pass for an original."""
    with pytest.raises(UnreadableImage, match="does not hold a JPEG"):
        jpegxl.restore(jpegxl.encode(jpegxl.decode(jpeg, MAX), 4, 3))


def test_same_pixels_give_the_same_bytes(jpeg: bytes) -> None:
    """Else two workers write different objects under one key."""
    assert jpegxl.encode(jpegxl.decode(jpeg, MAX), 4, 3) == jpegxl.encode(jpegxl.decode(jpeg, MAX), 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_dropped(orientation: int) -> None:
    """Else sideways photographs train the model sideways."""
    upright = _gradient()
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    source = (
        upright.transpose(inverse.get(orientation) or jpegxl.TRANSPOSED[orientation]) if orientation > 1 else upright
    )
    exif = Image.Exif()
    exif[jpegxl.ORIENTATION] = orientation
    image = jpegxl.decode(_save(source, "PNG", exif=exif), MAX)
    assert image.size == upright.size
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_photographs_in_all_orientations_look_alike(hostile: Path) -> None:
    """Else cameras that write another orientation give other pictures."""
    for kind in ("Landscape", "Portrait"):
        files = sorted((hostile / "exif-orientation").glob(f"{kind}_*.jpg"))
        pictures = [jpegxl.decode_rgb(file.read_bytes(), MAX).resize((60, 60)) for file in files]
        plain = np.asarray(pictures[0], np.float64)
        assert len(pictures) == 9
        assert all(np.abs(np.asarray(p, np.float64) - plain).mean() < 12 for p in pictures)


def test_colours_of_another_profile_are_converted() -> None:
    """Else pictures from a camera in Adobe RGB or Display P3 come out pale."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    profile = _swapped_profile(lab.tobytes())
    flat = Image.new("RGB", (8, 8), (200, 40, 40))
    image = jpegxl.decode(_save(flat, "PNG", icc_profile=profile), MAX)
    assert np.asarray(image)[0, 0].tolist() == [40, 200, 40]


def _swapped_profile(icc: bytes) -> bytes:
    """sRGB with the red and green primaries swapped, and another name."""
    data = bytearray(icc)
    count = struct.unpack_from(">I", data, 128)[0]
    tags = {bytes(data[132 + 12 * n : 136 + 12 * n]): 132 + 12 * n for n in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))


def test_a_broken_profile_is_taken_as_srgb() -> None:
    """Else one damaged colour profile loses a good picture."""
    flat = Image.new("RGB", (8, 8), (200, 40, 40))
    image = jpegxl.decode(_save(flat, "PNG", icc_profile=b"not a profile"), MAX)
    assert np.asarray(image)[0, 0].tolist() == [200, 40, 40]


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("L", "PNG", "L"),
        ("LA", "PNG", "LA"),
        ("RGB", "PNG", "RGB"),
        ("RGBA", "PNG", "RGBA"),
        ("1", "PNG", "L"),
        ("P", "PNG", "RGB"),
        ("CMYK", "JPEG", "RGB"),
        ("L", "JPEG", "L"),
        ("RGB", "WEBP", "RGB"),
        ("RGB", "TIFF", "RGB"),
        ("CMYK", "TIFF", "RGB"),
        ("RGB", "BMP", "RGB"),
    ],
)
def test_every_mode_becomes_one_that_encodes(mode: str, kind: str, expected: str) -> None:
    """Else a palette, CMYK or gray image fails, or loses its transparency."""
    image = jpegxl.decode(_save(_gradient(mode), kind), MAX)
    assert image.mode == expected
    again = jpegxl.decode(jpegxl.encode(image, 2, 3), MAX)
    assert (again.mode, again.size) == (expected, (64, 48))


def test_sixteen_bits_keep_their_brightness() -> None:
    """Else 16-bit scans come out black or clipped."""
    values = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    pixels = np.asarray(jpegxl.decode(_save(Image.fromarray(values), "PNG"), MAX), np.float64)
    assert np.abs(pixels - values / 257).max() <= 0.51


def test_palette_transparency_is_kept() -> None:
    """Else the cut-out of a product shot fills with a random colour."""
    image = _gradient("P")
    assert jpegxl.decode(_save(image, "PNG", transparency=0), MAX).mode == "RGBA"


def test_metadata_is_dropped() -> None:
    """Else a camera's EXIF block takes an eighth of the budget at distance 10, and places leak."""
    exif = Image.Exif()
    exif[0x010E] = "secret place " * 50
    source = _save(_gradient(), "JPEG", exif=exif)
    assert b"secret place" in source
    assert b"secret" not in jpegxl.encode(jpegxl.decode(source, MAX), 4, 3)


def test_pixels_are_capped_before_decoding() -> None:
    """Else a small file that claims to be huge takes the worker's memory."""
    with pytest.raises(TooManyPixels, match=r"64 x 48 pixels is over the limit of 1,000;.*--max-pixels"):
        jpegxl.decode(_save(_gradient(), "PNG"), 1000)
    with pytest.raises(TooManyPixels):
        jpegxl.decode(jpegxl.encode(_gradient(), 2, 3), 1000)


def test_animations_are_refused() -> None:
    """Else all frames but the first are lost when the original is deleted."""
    frames = [_gradient(), _gradient().rotate(90)]
    with pytest.raises(SeveralFrames, match="2 frames"):
        jpegxl.decode(_save(frames[0], "GIF", save_all=True, append_images=frames[1:]), MAX)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"\xff\x0a", b"GIF89a"])
def test_garbage_is_unreadable_and_nothing_worse(data: bytes) -> None:
    """Else one broken file ends a job of a million."""
    with pytest.raises(UnreadableImage):
        jpegxl.decode(data, MAX)


def test_a_truncated_jpeg_is_unreadable(jpeg: bytes) -> None:
    """Else the gray lower half of a broken download is kept, and the original deleted."""
    with pytest.raises(UnreadableImage, match="truncated"):
        jpegxl.decode(jpeg[: len(jpeg) // 2], MAX)


def test_jxl_input_is_read_upright(jpeg: bytes) -> None:
    """Else a dataset of JPEG XL files, lossy or packed JPEGs, cannot be used."""
    transcode = jpegxl.transcode(jpeg)
    assert transcode is not None
    plain = jpegxl.decode(jpeg, MAX)
    assert np.array_equal(np.asarray(jpegxl.decode(transcode, MAX)), np.asarray(plain))
    assert jpegxl.decode(jpegxl.encode(plain, 1, 3), MAX).size == plain.size


def test_files_are_those_that_pillow_would_save(jpeg: bytes) -> None:
    """Else our call of the encoder differs from the one that users and the published result know."""
    image = Image.open(io.BytesIO(jpeg))
    image.load()
    quality = jpegxl.quality_for(4)
    expected = _save(image, "JXL", quality=quality, effort=3, exif=b"", num_threads=0, lossless_jpeg=False)
    assert jpegxl.encode(jpegxl.decode(jpeg, MAX), 4, 3) == expected
