"""Rules: members of a job's distances that are not numbers, their notation and their names.

`Spread` gives each image of the pool a distance of its own (`keepmore.selection.spread`), `FitCount` is the distance at
which a given number of images fills the budget (`keepmore.selection.fit_search`). Together with the fixed distances
they are the *variants* of a job: each has a name, a manifest and a training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, ClassVar, get_args

import numpy as np

from keepmore.errors import DistanceOutOfRange, DuplicateDistance, InvalidRequest, UnknownField, WrongType
from keepmore.spec import distance as distances
from keepmore.spec.distance import LARGEST, SMALLEST, text

STEPS = 16
LADDER_DIGITS = 3
MOST_IMAGES = 10**9

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"


@dataclass(frozen=True, slots=True)
class Spread:
    """Every image has a distance of its own between `low` and `high`, scaled so that the subset fills the budget."""

    KEY: ClassVar = "spread"
    FORM: ClassVar = "spread:LOW-HIGH such as spread:0.5-15"
    JSON_FORM: ClassVar = '{"spread": [low, high]}'
    PATTERN: ClassVar = re.compile(rf"spread[:-]({_NUMBER})-({_NUMBER})")

    low: float
    high: float

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if not (math.isfinite(end) and SMALLEST <= end <= LARGEST):
                raise DistanceOutOfRange(
                    f"a spread from {text(self.low)} to {text(self.high)} is not possible; "
                    f"both ends are {SMALLEST} to {LARGEST:g}",
                    field="distances",
                )
        if self.low >= self.high:
            raise InvalidRequest(
                f"a spread from {text(self.low)} to {text(self.high)} is empty; give the smaller one first",
                field="distances",
            )

    @property
    def name(self) -> str:
        return f"spread-{text(self.low)}-{text(self.high)}"

    @property
    def expression(self) -> str:
        """As on the command line."""
        return f"spread:{text(self.low)}-{text(self.high)}"

    def as_json(self) -> dict[str, Any]:
        return {"spread": [self.low, self.high]}

    @staticmethod
    def from_json(value: Any) -> Spread:
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
            raise WrongType(f"spread {str(value)[:40]!r} is not a pair of numbers; give [low, high]", field="distances")
        return Spread(_float(value[0]), _float(value[1]))

    @staticmethod
    def parse(match: re.Match[str]) -> Spread:
        return Spread(float(match[1]), float(match[2]))

    @property
    def ladder(self) -> tuple[float, ...]:
        """The distances that an image may get, ascending: both ends, and between them equal ratios."""
        inner = np.geomspace(self.low, self.high, STEPS)[1:-1].tolist()
        rounded = (float(f"{value:.{LADDER_DIGITS}g}") for value in inner)
        return tuple(sorted({self.low, *(value for value in rounded if self.low < value < self.high), self.high}))


@dataclass(frozen=True, slots=True)
class FitCount:
    """The distance at which the budget holds exactly `images` images."""

    KEY: ClassVar = "fit"
    FORM: ClassVar = "fit:IMAGES such as fit:2000"
    JSON_FORM: ClassVar = '{"fit": images}'
    PATTERN: ClassVar = re.compile(r"fit[:-]([0-9]{1,12})")

    images: int

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST_IMAGES:
            raise InvalidRequest(
                f"fit:{self.images} is not possible; use 1 to {MOST_IMAGES:,} images", field="distances"
            )

    @property
    def name(self) -> str:
        return f"fit-{self.images}"

    @property
    def expression(self) -> str:
        return f"fit:{self.images}"

    def as_json(self) -> dict[str, Any]:
        return {"fit": self.images}

    @staticmethod
    def from_json(value: Any) -> FitCount:
        if isinstance(value, bool) or not isinstance(value, int):
            raise WrongType(
                f"fit {str(value)[:40]!r} is not a number of images; give a whole number", field="distances"
            )
        return FitCount(value)

    @staticmethod
    def parse(match: re.Match[str]) -> FitCount:
        return FitCount(int(match[1]))

    @property
    def ladder(self) -> tuple[float, ...]:
        """None: the images are encoded once the distance is found."""
        return ()


VariantSpec = Spread | FitCount
RULES: tuple[type[VariantSpec], ...] = get_args(VariantSpec)
FORMS = f"a number, {', or '.join(kind.FORM for kind in RULES)}"
JSON_FORMS = f"a number, {' or '.join(kind.JSON_FORM for kind in RULES)}"


def check(rules: Sequence[VariantSpec]) -> tuple[VariantSpec, ...]:
    """The rules in a fixed order; raises DuplicateDistance for a repeat."""
    for rule in rules:
        if rules.count(rule) > 1:
            raise DuplicateDistance(f"{rule.expression} is named more than once; name it once", field="distances")
    return tuple(sorted(rules, key=lambda rule: (RULES.index(type(rule)), astuple(rule))))


def from_json(value: Any) -> tuple[tuple[float, ...], tuple[VariantSpec, ...]]:
    """Fixed distances and rules of a job's `distances`: a list of them, or one rule alone."""
    members = [value] if isinstance(value, dict) else value
    if not isinstance(members, list | tuple):
        raise WrongType(
            f"{str(value)[:40]!r} is not a list; give a list whose members are {JSON_FORMS}", field="distances"
        )
    fixed: list[float] = []
    rules: list[VariantSpec] = []
    for place, member in enumerate(members):
        if isinstance(member, dict):
            rules.append(_rule(member))
        elif _is_number(member):
            fixed.append(_float(member))
        else:
            raise WrongType(f"{str(member)[:40]!r} is not a distance; give {JSON_FORMS}", field=f"distances[{place}]")
    return checked(fixed, rules)


def checked(fixed: Sequence[float], rules: Sequence[VariantSpec]) -> tuple[tuple[float, ...], tuple[VariantSpec, ...]]:
    """Both in order; raises InvalidRequest where there is neither, and for what is out of range or named twice."""
    return (distances.check(fixed) if fixed or not rules else ()), check(rules)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(value: float) -> float:
    """JSON has integers of any length."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _rule(value: dict[str, Any]) -> VariantSpec:
    for kind in RULES:
        if set(value) == {kind.KEY}:
            return kind.from_json(value[kind.KEY])
    unknown = sorted(str(name)[:20] for name in set(value) - {kind.KEY for kind in RULES})
    if unknown:
        raise UnknownField(f"there is no such field; give {JSON_FORMS}", field=f"distances.{unknown[0]}")
    raise InvalidRequest(f"{str(value)[:40]} is not a variant; give {JSON_FORMS}", field="distances")


def fixed_only(fixed: tuple[float, ...], rules: tuple[VariantSpec, ...]) -> tuple[float, ...]:
    """The fixed distances, where there is nothing else; raises InvalidRequest."""
    if rules:
        raise InvalidRequest(
            f"{rules[0].expression} cannot be estimated from a sample; give only fixed distances", field="distances"
        )
    return fixed


def as_json(fixed: Sequence[float], rules: Sequence[VariantSpec]) -> list[Any]:
    return [*fixed, *(rule.as_json() for rule in rules)]


def parse(expression: str) -> tuple[tuple[float, ...], tuple[VariantSpec, ...]]:
    """Fixed distances and rules from the command line's form, such as "0,8,spread:0.5-15,fit:2000"."""
    fixed: list[float] = []
    rules: list[VariantSpec] = []
    for part in filter(None, (part.strip() for part in expression.split(","))):
        rule = _parse_rule(part) if ":" in part else None
        if rule:
            rules.append(rule)
            continue
        try:
            fixed.append(float(part))
        except ValueError:
            raise InvalidRequest(f"{part!r} is not a distance; give {FORMS}", field="distances") from None
    return checked(fixed, rules)


def _parse_rule(expression: str) -> VariantSpec | None:
    for kind in RULES:
        if match := kind.PATTERN.fullmatch(expression):
            return kind.parse(match)
    return None


def unparse(fixed: Sequence[float], rules: Sequence[VariantSpec]) -> str:
    """The inverse of `parse`."""
    return ",".join([*map(text, fixed), *(rule.expression for rule in rules)])


def variant(expression: str) -> str | None:
    """The name of a variant that is written as a number, a name or on the command line; None for anything else."""
    try:
        rule = _parse_rule(expression)
        return rule.name if rule else text(float(expression))
    except (ValueError, InvalidRequest):
        return None
