"""Budgets: bytes, money that buys bytes, or what the pool takes at a distance; their notations and their bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from keepmore.errors import BudgetOutOfRange, InvalidRequest, UnknownField, WrongType
from keepmore.spec.distance import text

LARGEST_BYTES = 2**63 - 1
LARGEST_EXPONENT = 18
UNITS = {"": 1, "B": 1} | {
    prefix + suffix: base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGTP", start=1)
}
UNITS["kB"] = 1000
FIELDS = {"as_distance", "fraction", "monthly_cost", "price_per_gb_month"}
BYTES_PER_GB = 10**9
JSON_FORMS = (
    'bytes ("508MB", "485MiB", 1000000), {"as_distance": 10, "fraction": 0.5} without or with the fraction, or '
    '{"monthly_cost": 11.68, "price_per_gb_month": 0.023}'
)
FORMS = "bytes (508MB, 485MiB, 1000000), as:10, as:10*0.5, or cost:11.68@0.023 (monthly cost @ price per GB and month)"

MOST_CHARACTERS = 100

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class BytesBudget:
    """A number of bytes."""

    size: int

    def bytes(self, pool_bytes: Mapping[float, int]) -> int:
        return self.size

    def as_json(self) -> Any:
        return self.size


@dataclass(frozen=True, slots=True)
class DistanceBudget:
    """The bytes of the whole pool, or a `fraction` of them, at a distance."""

    as_distance: float
    fraction: Decimal = Decimal(1)

    def bytes(self, pool_bytes: Mapping[float, int]) -> int:
        if self.as_distance not in pool_bytes:
            distances = ", ".join(text(d) for d in pool_bytes)
            raise InvalidRequest(
                f"the pool's size at distance {text(self.as_distance)} is not known; "
                f"use one of the job's distances: {distances}",
                field="budget",
            )
        return int(pool_bytes[self.as_distance] * self.fraction)

    def as_json(self) -> Any:
        return {"as_distance": self.as_distance, "fraction": _plain(self.fraction)}


@dataclass(frozen=True, slots=True)
class MoneyBudget:
    """The bytes that a monthly cost buys at a price per gigabyte (10^9 bytes) and month."""

    monthly_cost: Decimal
    price_per_gb_month: Decimal

    def bytes(self, pool_bytes: Mapping[float, int]) -> int:
        return int(self.monthly_cost * BYTES_PER_GB / self.price_per_gb_month)

    def as_json(self) -> Any:
        return {"monthly_cost": _plain(self.monthly_cost), "price_per_gb_month": _plain(self.price_per_gb_month)}


Budget = BytesBudget | DistanceBudget | MoneyBudget


def as_json(budget: Budget | None) -> Any:
    return budget.as_json() if budget else None


def from_json(value: Any) -> Budget | None:
    """A budget from its JSON form: an integer, a size such as "508MB", or an object as DistanceBudget, MoneyBudget.

    None is no budget: everything fits.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str | dict):
        raise WrongType(f"{value!r} is not possible; give {JSON_FORMS}", field="budget")
    if isinstance(value, dict):
        return _from_object(value)
    return _bytes(value if isinstance(value, int) else parse_size(value, JSON_FORMS))


def _bytes(size: int) -> BytesBudget:
    if not 0 < size <= LARGEST_BYTES:
        raise BudgetOutOfRange(
            f"{size} bytes is not possible; give at least 1 and at most {LARGEST_BYTES}", field="budget"
        )
    return BytesBudget(size)


def _from_object(value: dict[str, Any]) -> Budget:
    if unknown := sorted(set(value) - FIELDS):
        raise UnknownField(f"there is no such field; give {JSON_FORMS}", field=f"budget.{unknown[0]}")
    if set(value) == {"monthly_cost", "price_per_gb_month"}:
        cost = _positive(value["monthly_cost"], "monthly_cost")
        bought = MoneyBudget(cost, _positive(value["price_per_gb_month"], "price_per_gb_month"))
        from_json(bought.bytes({}))  # the bytes that it buys are limited, too
        return bought
    if set(value) in ({"as_distance"}, {"as_distance", "fraction"}):
        fraction = _positive(value.get("fraction", 1), "fraction")
        if fraction > 1:
            raise BudgetOutOfRange(
                f"{fraction} is over 1; give a part of the pool, such as 0.5", field="budget.fraction"
            )
        distance = value["as_distance"]
        if isinstance(distance, bool) or not isinstance(distance, int | float):
            raise WrongType(
                f"{distance!r} is not a number; give one of the job's distances", field="budget.as_distance"
            )
        return DistanceBudget(float(distance), fraction)
    raise InvalidRequest(f"the fields {sorted(value)} do not make one; give {JSON_FORMS}", field="budget")


def parse(expression: str) -> Budget | None:
    """A budget from the command line's form; raises InvalidRequest with the forms that are possible."""
    try:
        if expression.startswith("as:"):
            distance, _, fraction = expression.removeprefix("as:").partition("*")
            return from_json({"as_distance": float(distance), "fraction": fraction or "1"})
        if expression.startswith("cost:"):
            cost, _, price = expression.removeprefix("cost:").partition("@")
            return from_json({"monthly_cost": cost, "price_per_gb_month": price})
    except ValueError as error:
        raise InvalidRequest(f"{expression!r} is not possible; give {FORMS}", field="budget") from error
    return _bytes(parse_size(expression))


def parse_size(expression: str, forms: str = FORMS) -> int:
    """Bytes from a size such as "508MB" (10^6) or "485MiB" (2^20), rounded down; `forms`: what an error suggests."""
    if len(expression) > MOST_CHARACTERS:
        raise InvalidRequest(f"{expression[:20]!r}... is too long for a size; give {forms}", field="budget")
    match = _SIZE.fullmatch(expression.strip())
    if not match or match[2] not in UNITS:
        raise InvalidRequest(f"{expression!r} is not a size; upper and lower case matter; give {forms}", field="budget")
    return int(Decimal(match[1]) * UNITS[match[2]])


def _plain(number: Decimal) -> str:
    """One text for one number, however it was written."""
    return format(number.normalize(), "f")


def _positive(value: Any, name: str) -> Decimal:
    if value == "":
        raise InvalidRequest(f"there is no number; give {FORMS}", field=f"budget.{name}")
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > MOST_CHARACTERS:
        raise WrongType(f"{str(value)[:20]!r} is not a number; give {FORMS}", field=f"budget.{name}")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise InvalidRequest(f"{value!r} is not a number; give {FORMS}", field=f"budget.{name}") from None
    if not number.is_finite() or number <= 0 or abs(number.adjusted()) > LARGEST_EXPONENT:
        raise BudgetOutOfRange(f"{value} is not possible; give a number above 0, below 10^18", field=f"budget.{name}")
    return number
