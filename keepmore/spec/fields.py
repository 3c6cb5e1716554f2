"""The meaning and the possible values of a request's fields, beside their types.

Records use them to check themselves, and the schema of the HTTP API is derived from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from keepmore.errors import InvalidRequest, WrongType

INFO = "keepmore"


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """`least` and `most` are possible values; `above` is not. `choices`: the possible words of a text."""

    description: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()

    def refusal(self, value: Any) -> str | None:
        """Why `value` is not possible; None where it is."""
        if self.choices:
            return None if value in self.choices else f"{value!r} is unknown; use {' or '.join(self.choices)}"
        if self.most is None:
            return None
        if self.above is not None:
            possible = self.above < value <= self.most
            return None if possible else f"{value} is not possible; use above {self.above} to {self.most:,}"
        possible = (self.least or 0) <= value <= self.most
        return None if possible else f"{value} is not possible; use {self.least} to {self.most:,}"


def described(
    default: Any = MISSING, *, default_factory: Callable[[], Any] | Any = MISSING, **info: Any
) -> Any:  # a field's default, for type checkers of any type
    """A field of a dataclass with the FieldInfo that `info` gives."""
    return field(default=default, default_factory=default_factory, metadata={INFO: FieldInfo(**info)})


def check_fields(record: Any, prefix: str = "") -> None:
    """Raises InvalidRequest, naming the field behind `prefix`, for a value that its FieldInfo does not allow, and for
    None where its type does not; WrongType where a whole number is none."""
    for one in fields(record):
        # A field's type is a text here: annotations are not evaluated.
        info, value, name = one.metadata.get(INFO), getattr(record, one.name), f"{prefix}{one.name}"
        if not info or (value is None and "None" in one.type):
            continue
        if value is None:
            raise InvalidRequest("null is not possible here; leave the field out for its default", field=name)
        if one.type.startswith("int") and isinstance(value, float) and not value.is_integer():
            raise WrongType(f"{value!r} is not a whole number", field=name)
        if refusal := info.refusal(value):
            raise InvalidRequest(refusal, field=name)
