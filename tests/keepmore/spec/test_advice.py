"""What advice is asked for: checked, named, and written down."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import DistanceOutOfRange, DuplicateDistance, InvalidRequest
from keepmore.spec.advice import AdviceRequest, price
from keepmore.spec.budget import BytesBudget, DistanceBudget, MoneyBudget
from keepmore.spec.training import Training

ONE = AdviceRequest((BytesBudget(5_000_000),))
CHEAP, DEAR = (MoneyBudget(Decimal(1), Decimal(one)) for one in ("0.02", "0.04"))

budgets = st.sampled_from(
    [BytesBudget(7), DistanceBudget(10.0, Decimal("0.5")), MoneyBudget(Decimal(5), Decimal("0.02"))]
)
advice_requests = st.builds(
    AdviceRequest,
    budgets=st.lists(budgets, min_size=1, max_size=4).map(tuple),
    accuracy=st.none() | st.floats(0.01, 0.99),
    price_per_gb_month=st.none() | st.just(Decimal("0.02")),
    images=st.none() | st.integers(60, 10**6),
    distances=st.lists(st.sampled_from([0.0, 0.5, 4.0, 10.0, 25.0]), min_size=3, unique=True).map(tuple),
    training=st.builds(Training, weights=st.sampled_from(["default", "none"]), seeds=st.integers(1, 9)),
)


@given(advice_requests)
def test_json_keeps_what_was_asked(request: AdviceRequest) -> None:
    """Else the pilots of another question are trained than the one that was asked."""
    assert AdviceRequest.from_json(json.loads(json.dumps(request.as_json()))) == request


@given(advice_requests, advice_requests)
def test_the_same_question_has_the_same_id(one: AdviceRequest, other: AdviceRequest) -> None:
    """Else asking again trains all pilots again, or gets the answer to another question."""
    assert (one.id == other.id) is (one.as_json() == other.as_json())


def test_the_originals_are_always_compared() -> None:
    """Else advice never says that nothing needs to be compressed."""
    assert replace(ONE, distances=(10.0, 4.0)).distances == (0.0, 4.0, 10.0)
    assert replace(ONE, distances=(10.0, 0.0, 4.0)).distances == (0.0, 4.0, 10.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(ONE, budgets=()), "budgets: 0 are not possible; name 1 to 100"),
        (lambda: replace(ONE, budgets=(BytesBudget(1),) * 101), "budgets: 101 are not possible; name 1 to 100"),
        (lambda: replace(ONE, accuracy=2.0), "accuracy: 2.0 is not possible; give a share such as 0.8"),
        (lambda: replace(ONE, accuracy=math.nan), "accuracy: nan is not possible"),
        (lambda: replace(ONE, images=3), "images: 3 are too few for pilots; use 60 or more"),
        (lambda: replace(ONE, price_per_gb_month=Decimal("NaN")), "price_per_gb_month: NaN is not possible"),
        (lambda: replace(ONE, price_per_gb_month=Decimal(-1)), "price_per_gb_month: -1 is not possible"),
        (lambda: replace(ONE, price_per_gb_month=price("1e400")), "price_per_gb_month: 1E+400 is not possible"),
        (lambda: replace(ONE, price_per_gb_month=Decimal("1e-19")), "price_per_gb_month: 1E-19 is not possible"),
        (lambda: replace(ONE, budgets=(CHEAP, DEAR)), "price_per_gb_month: 0.02, 0.04 are asked for"),
        (
            lambda: replace(ONE, budgets=(CHEAP,), price_per_gb_month=Decimal(1)),
            "price_per_gb_month: 1, 0.02 are",
        ),
        (lambda: replace(ONE, training=Training(seeds=101)), "training.seeds: 101 are too many for pilots; use 100"),
        (lambda: replace(ONE, training=Training(test_distances=(4.0,))), "training.test_distances: pilots are tested"),
        (lambda: price("cheap"), "price_per_gb_month: 'cheap' is not a number; give such as 0.023"),
        (lambda: replace(ONE, training=Training(method="finetune")), "training.method: pilots are probes"),
        (lambda: replace(ONE, distances=(0.0, 4.0)), "distances: 2 with 0 are too few; name 3 or more"),
    ],
)
def test_impossible_questions_name_field_value_and_remedy(make: Callable[[], Any], message: str) -> None:
    """Else minutes of pilots end with what could have been said at once."""
    with pytest.raises(InvalidRequest) as excinfo:
        make()
    assert message in excinfo.value.message


@pytest.mark.parametrize(
    ("distances", "error"),
    [((4.0, 4.0, 8.0), DuplicateDistance), ((1.0, 2.0, 26.0), DistanceOutOfRange), ((math.nan,), DistanceOutOfRange)],
)
def test_distances_are_those_that_a_job_may_have(distances: tuple[float, ...], error: type[InvalidRequest]) -> None:
    """Else a distance that no encoder has fails after the first pilots."""
    with pytest.raises(error, match="distances: "):
        replace(ONE, distances=distances)


def test_a_price_is_that_of_all_budgets() -> None:
    """Else a budget in money is said to cost another sum than it was asked for."""
    assert ONE.price is None
    assert replace(ONE, budgets=(CHEAP, BytesBudget(1))).price == Decimal("0.02")
    assert replace(ONE, budgets=(CHEAP,), price_per_gb_month=Decimal("0.020")).price == Decimal("0.02")
