"""Distances as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import InvalidRequest
from keepmore.spec import distance


def test_parsing_sorts() -> None:
    """Else the same request in another order is another job, with another report."""
    assert distance.parse("10,0, 4.5,2") == (0, 2, 4.5, 10)
    assert [distance.text(d) for d in distance.parse("-0,2")] == ["0", "2"]


@pytest.mark.parametrize("expression", ["", "0,x", "-1", "26", "0.05", "2,2", "2,2.0", "nan", "inf", "1e400"])
def test_impossible_distances_are_named(expression: str) -> None:
    """Else a job of hours fails at its first image, or compresses at a distance nobody asked for."""
    with pytest.raises(InvalidRequest, match="distances"):
        distance.parse(expression)


@given(st.floats(0.11, 25.0))
def test_the_text_form_names_one_distance(value: float) -> None:
    """Else two distances share a column or an object, and one overwrites the other."""
    assert float(distance.text(value)) == value
