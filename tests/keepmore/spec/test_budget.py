"""Budgets to bytes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import InvalidRequest
from keepmore.spec import budget as budgets
from keepmore.spec.budget import BytesBudget, DistanceBudget, MoneyBudget


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1000", 1000),
        ("508MB", 508_000_000),
        ("508 MB", 508_000_000),
        ("485MiB", 485 * 2**20),
        ("1.5kB", 1500),
        ("0.1GB", 100_000_000),
        ("2TiB", 2 * 2**40),
        ("7B", 7),
    ],
)
def test_sizes(expression: str, expected: int) -> None:
    """Else a budget in MiB is read as MB, and 5 % of the images are lost."""
    assert budgets.parse(expression) == BytesBudget(expected)


SIZES = ["", "MB", "-5MB", "0", "5XB", "1e6", str(2**63)]
PARTS = ["as:", "as:x", "as:10*0", "as:10*2"]
COSTS = ["cost:5", "cost:1e400000@1", "cost:1@1e999999", "cost:1e17@0.0001"]


@pytest.mark.parametrize("expression", [*SIZES, *PARTS, *COSTS])
def test_impossible_budgets_name_themselves_and_the_forms(expression: str) -> None:
    """Else a typing error keeps a wrong set of images, and the rest is deleted."""
    with pytest.raises(InvalidRequest, match="budget"):
        budgets.parse(expression)


@pytest.mark.parametrize("wrong", ["as:4*0.5", {"distance": 4}, {"fraction": 0.5}, True])
def test_an_error_about_json_names_forms_of_json(wrong: Any) -> None:
    """Else whoever writes what the error suggests gets the same error again."""
    with pytest.raises(InvalidRequest) as excinfo:
        budgets.from_json(wrong)
    for form in (
        508,
        "508MB",
        {"as_distance": 10, "fraction": 0.5},
        {"monthly_cost": 11.68, "price_per_gb_month": 0.023},
    ):
        assert isinstance(form, int) or json.dumps(form) in excinfo.value.message
        assert budgets.from_json(form)


def test_a_budget_as_a_distance_is_exact() -> None:
    """Else float rounding keeps a subset that is over the budget, or leaves room unused."""
    pool = {0.0: 10**18 + 7, 10.0: 3}
    assert budgets.parse("as:0") == DistanceBudget(0.0)
    assert DistanceBudget(0.0).bytes(pool) == 10**18 + 7
    assert DistanceBudget(0.0, Decimal("0.1")).bytes(pool) == 10**17
    assert DistanceBudget(10.0, Decimal("0.5")).bytes(pool) == 1
    with pytest.raises(InvalidRequest, match="one of the job's distances: 0, 10"):
        DistanceBudget(4.0).bytes(pool)


def test_a_budget_in_money() -> None:
    """Else 11.68 a month buys another number of bytes than the storage bill says."""
    assert budgets.parse("cost:11.68@0.023") == MoneyBudget(Decimal("11.68"), Decimal("0.023"))
    assert MoneyBudget(Decimal("11.68"), Decimal("0.023")).bytes({}) == 507_826_086_956
    with pytest.raises(InvalidRequest, match="price_per_gb_month"):
        budgets.parse("cost:5@0")


@given(st.one_of(st.integers(1, 2**63 - 1).map(BytesBudget), st.just(DistanceBudget(10.0, Decimal("0.25")))))
def test_json_keeps_a_budget(budget: budgets.Budget) -> None:
    """Else a resumed job has another budget than the one that was asked for."""
    assert budgets.from_json(budgets.as_json(budget)) == budget
