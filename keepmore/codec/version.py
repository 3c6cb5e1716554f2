"""Which codec is installed, from the metadata of its packages: they are not imported, and need not be installed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

# The pixels that reach the encoder depend on `jpegxl._prepare` too: raise this when it changes.
PREPARATION = 1


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that determine an encoding's bytes. Raises PackageNotFoundError if one is missing."""
    return {"pillow": version("pillow"), "pillow_jxl_plugin": version("pillow-jxl-plugin")}


@cache
def codec() -> str:
    """The name of the codec, part of every encoding's key."""
    return f"k{PREPARATION}-pillow{versions()['pillow']}-pjxl{versions()['pillow_jxl_plugin']}"
