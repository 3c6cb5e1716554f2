"""Encode, transcode and decode. The only module that imports Pillow's JPEG XL plugin (GPL-3.0)."""

from __future__ import annotations

import math
import struct
import warnings
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pillow_jxl
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from keepmore.codec import header
from keepmore.errors import InvalidRequest, SeveralFrames, TooManyPixels, UnreadableImage, UnsupportedMode
from keepmore.spec.distance import LARGEST, SMALLEST, text

# From distance 10 on, libjxl 0.12 halves the resolution first: larger, slower and worse than just below (decision 1).
CLIFF = np.float32(10.0)
BELOW_CLIFF: float = np.nextafter(CLIFF, np.float32(0)).item()

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA")
READABLE = ", ".join((*FORMATS, "JPEG XL"))
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The exceptions of Pillow's readers on broken input, as measured with fuzzed files.
READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    RuntimeError,
    EOFError,
    struct.error,
)
# `formats` names only what is registered, and Pillow registers most of its formats on demand.
Image.init()
# The plugin's own type stubs lack most of the arguments that it takes.
_Encoder: Any = pillow_jxl.Encoder
_Decoder: Any = pillow_jxl.Decoder
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def encoder_distance(distance: float) -> float:
    """The distance that the encoder gets for a requested one: the same except at the cliff (see CLIFF)."""
    return BELOW_CLIFF if np.float32(distance) == CLIFF else np.float32(distance).item()


def distance_from_quality(quality: NDArray[np.float32]) -> NDArray[np.float32]:
    """libjxl's JxlEncoderDistanceFromQuality (lib/jxl/encode.cc), in its own precision."""
    q = quality.astype(np.float64)
    fine = 0.1 + (np.float32(100) - quality).astype(np.float64) * 0.09
    coarse = 53.0 / 3000.0 * q * q - 23.0 / 20.0 * q + 25.0
    return np.where(q >= 100, 0.0, np.where(q >= 30, fine, coarse)).astype(np.float32)


def quality_for(distance: float) -> float:
    """The `quality` at which libjxl encodes at `distance` (0.11 to 25), exact in float32 where float32 can be.

    The closed-form inverse of `distance_from_quality`, then the best of its float32 neighbours; for a distance below
    the cliff, of those that stay below it.
    """
    target = np.float32(distance)
    if not np.float32(SMALLEST) <= target <= LARGEST:
        raise InvalidRequest(f"distance {text(distance)} cannot be encoded; use {SMALLEST} to {LARGEST:g}")
    exact = float(target)
    if exact <= 6.4:
        inverse = 100.0 - (exact - 0.1) / 0.09
    else:
        a, b, c = 53.0 / 3000.0, -23.0 / 20.0, 25.0 - exact
        inverse = max(0.0, (-b - math.sqrt(b * b - 4 * a * c)) / (2 * a))
    near = np.float32(inverse)
    neighbours = near.view(np.int32) + np.arange(-8, 9) if near > 0 else np.arange(0, 9)
    qualities = neighbours.astype(np.int32).view(np.float32)
    reached = distance_from_quality(qualities)
    error = np.abs(reached.astype(np.float64) - exact)
    error[(reached >= CLIFF) != (target >= CLIFF)] = np.inf
    return float(qualities[np.argmin(error)])


class Pixels(NamedTuple):
    """An image's pixels as the encoder takes them: `data` is row by row, 8 bits per channel of `mode`."""

    mode: str
    width: int
    height: int
    data: bytes

    @staticmethod
    def of(image: Image.Image) -> Pixels:
        return Pixels(image.mode, image.width, image.height, image.tobytes())


def encode(image: Image.Image | Pixels, distance: float, effort: int) -> bytes:
    """`image` (as `decode` returns it) as JPEG XL at the requested distance, without metadata."""
    pixels = image if isinstance(image, Pixels) else Pixels.of(image)
    encoder = _Encoder(
        mode=pixels.mode,
        lossless=False,
        quality=quality_for(encoder_distance(distance)),
        effort=effort,
        use_container=False,
        num_threads=0,
    )
    return bytes(encoder(pixels.data, pixels.width, pixels.height, jpeg_encode=False, exif=None))


def is_jpeg(data: bytes) -> bool:
    return data.startswith(JPEG_START)


def transcode(jpeg: bytes) -> bytes | None:
    """`jpeg` as a smaller JPEG XL from which `restore` makes the same bytes; None for a JPEG that cannot be packed."""
    encoder = _Encoder(mode="RGB", lossless=True, use_container=True, num_threads=0)
    try:
        jxl = bytes(encoder(jpeg, 1, 1, jpeg_encode=True))
        return jxl if restore(jxl) == jpeg else None
    except (RuntimeError, UnreadableImage):
        return None  # CMYK and damaged JPEGs: libjxl cannot pack them, so the caller keeps the original


def restore(jxl: bytes) -> bytes:
    """The JPEG, bit for bit, that `transcode` packed. Raises UnreadableImage for anything else."""
    try:
        is_packed_jpeg, _, data, _, _ = _Decoder(num_threads=0)(jxl)
    except RuntimeError as error:
        raise UnreadableImage(f"not a readable JPEG XL file ({error})") from error
    if not is_packed_jpeg:
        raise UnreadableImage("this JPEG XL file does not hold a JPEG")
    return bytes(data)


def reads_safely(data: bytes) -> bool:
    """Whether `data` is of a kind whose decoder is trusted; the other kinds are decoded in a separate process."""
    return data.startswith((JPEG_START, PNG_START))


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The picture as it is meant to be seen: upright, sRGB, mode L, LA, RGB or RGBA, 8 bits, no metadata.

    Raises TooManyPixels before any pixel is decoded, UnreadableImage, SeveralFrames or UnsupportedMode.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if header.is_jxl(data):
                return _decode_jxl(data, max_pixels)
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return _prepare(image, max_pixels)
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not an image in a supported format; convert it to one of {READABLE}") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except READ_ERRORS as error:
        raise UnreadableImage(f"cannot be read as an image: {error}") from error


def decode_rgb(data: bytes, max_pixels: int) -> Image.Image:
    """`decode`, as RGB: gray spread over three channels, transparency laid over white."""
    image = decode(data, max_pixels)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _decode_jxl(data: bytes, max_pixels: int) -> Image.Image:
    check_pixels(header.size(data), max_pixels)
    try:
        packed_jpeg, info, pixels, icc, _ = _Decoder(num_threads=0)(data)
    except RuntimeError as error:
        raise UnreadableImage("the JPEG XL decoder rejects the file as damaged") from error
    if packed_jpeg:
        return decode(bytes(pixels), max_pixels)
    if info.mode not in ("L", "LA", "RGB", "RGBA"):
        raise UnsupportedMode(f"JPEG XL pixels of kind {info.mode} are not supported; convert the image to 8 bits")
    image = Image.frombytes(info.mode, (info.width, info.height), bytes(pixels))
    return _to_srgb(image, bytes(icc) if icc else None)


def _prepare(image: ImageFile.ImageFile, max_pixels: int) -> Image.Image:
    check_pixels(image.size, max_pixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise SeveralFrames(f"{frames} frames or pages; split them into files of one picture each")
    image.load()
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except READ_ERRORS:
        orientation = 1  # the EXIF block is broken, but the pixels are good: browsers show them like this
    icc = image.info.get("icc_profile")
    upright = image.transpose(TRANSPOSED[orientation]) if orientation in TRANSPOSED else image
    return _to_eight_bit_mode(_to_srgb(_plain(upright), icc))


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Raise TooManyPixels for a (width, height) over the cap."""
    width, height = size
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{width} x {height} pixels is over the limit of {max_pixels:,}; scale it down or raise --max-pixels"
        )


def _plain(image: Image.Image) -> Image.Image:
    """Palettes, transparency keys and 16-bit gray converted, so that each pixel holds its own colour."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info and image.mode in ("L", "RGB"):
        return image.convert("LA" if image.mode == "L" else "RGBA")
    return image


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    if not icc or image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return image
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        if ImageCms.getProfileDescription(profile).startswith("sRGB"):
            return image
        output_mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode=output_mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile, or one of another colour space: browsers show such pixels as sRGB too
    if converted is None:
        return image
    return converted.convert("L") if image.mode == "L" else converted


def _to_eight_bit_mode(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode in ("La", "RGBa"):
        return image.convert(image.mode.upper())
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return image.convert("RGB")
    raise UnsupportedMode(f"pixels of mode {image.mode} are not supported; convert the image to 8-bit RGB or gray")
