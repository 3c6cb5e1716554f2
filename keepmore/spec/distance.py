"""Butteraugli distances as users write them: the range of use, parsing, and the one text form.

0 means the original file, untouched. Other distances run from 0.11, the smallest that the encoder's quality scale
reaches, to 25, its largest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from keepmore.errors import DistanceOutOfRange, DuplicateDistance, InvalidRequest

ORIGINAL = 0.0
SMALLEST = 0.11
LARGEST = 25.0


def text(distance: float) -> str:
    """The shortest decimal that names `distance`: 2.0 -> "2", 0.5 -> "0.5". Used in keys, columns and answers."""
    return repr(float(distance)).removesuffix(".0")


def check(distances: Iterable[float], field: str = "distances") -> tuple[float, ...]:
    """The distances of a request's `field` in ascending order; raises InvalidRequest for an empty list, a repeat or a
    value out of range."""
    values = tuple(float(d) + 0.0 for d in distances)  # -0.0 + 0.0 is 0.0
    if not values:
        raise InvalidRequest("the list is empty; name at least one, such as 0,2,4,6,8,10", field=field)
    for value in values:
        in_range = value == ORIGINAL or SMALLEST <= value <= LARGEST
        if not (math.isfinite(value) and in_range):
            raise DistanceOutOfRange(
                f"{text(value)} is not possible; use 0 for the original file, or {SMALLEST} to {LARGEST:g}", field=field
            )
        if values.count(value) > 1:
            raise DuplicateDistance(f"{text(value)} is named more than once; name it once", field=field)
    return tuple(sorted(values))


def parse(expression: str, field: str = "distances") -> tuple[float, ...]:
    """Distances from a comma-separated list such as "0,2,4"; raises InvalidRequest naming what is not a number."""
    values = []
    for part in filter(None, (p.strip() for p in expression.split(","))):
        try:
            values.append(float(part))
        except ValueError:
            raise InvalidRequest(f"{part!r} is not a number; write them as 0,2,4.5", field=field) from None
    return check(values, field)
