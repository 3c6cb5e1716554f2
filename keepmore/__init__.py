"""Keepmore keeps more training images in the same storage."""

from importlib.metadata import version

__version__ = version("keepmore")
