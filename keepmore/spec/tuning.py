"""A tuning as words of a command line: `--tune learning_rate=0.0003`, one a field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from keepmore.errors import InvalidRequest
from keepmore.spec.job import CHOICES, Tuning

NAMES = tuple(field.name for field in fields(Tuning))
INTEGERS = ("batch", "micro_batch", "image_size")


def parse(words: Iterable[str]) -> Tuning | None:
    """The tuning that words such as "batch=32" describe; None without any. Raises InvalidRequest naming the field."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InvalidRequest(f"training.tuning: {word!r} has no value; write it as NAME=VALUE, such as batch=32")
        if name not in NAMES:
            raise InvalidRequest(f"training.tuning: {name!r} is no field; use one of {', '.join(NAMES)}")
        if name in found:
            raise InvalidRequest(f"training.tuning.{name}: named more than once; name it once")
        found[name] = _value(name, value)
    return Tuning(**found) if found else None


def _value(name: str, written: str) -> int | float | str:
    if name in CHOICES:
        return written
    number: Callable[[str], int | float] = int if name in INTEGERS else float
    try:
        return number(written)
    except ValueError:
        kind = "whole number" if name in INTEGERS else "number"
        raise InvalidRequest(f"training.tuning.{name}: {written!r} is no {kind}") from None


def words(tuning: Tuning) -> list[str]:
    """What `parse` makes this tuning of: only what is not as it is without."""
    usual = Tuning()
    return [f"{name}={getattr(tuning, name)}" for name in NAMES if getattr(tuning, name) != getattr(usual, name)]
