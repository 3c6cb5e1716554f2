"""Which codec is installed here, as its packages say: none of it is imported, and who only asks does not need it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

# Pixels that reach the encoder depend on `codec._prepare` as well: raise this when it changes.
PREPARATION = 1


@cache
def versions() -> dict[str, str]:
    """Of the packages that the bytes of an encoding depend on. Raises PackageNotFoundError where they are not."""
    return {"pillow": version("pillow"), "pillow_jxl_plugin": version("pillow-jxl-plugin")}


@cache
def codec() -> str:
    """The name of the codec, part of every encoding's key."""
    return f"k{PREPARATION}-pillow{versions()['pillow']}-pjxl{versions()['pillow_jxl_plugin']}"
