"""Errors as they travel between processes and into records."""

from __future__ import annotations

import pytest

from keepmore import errors
from keepmore.errors import BudgetTooSmall, InvalidRequest, KeepmoreError, StoreFull, from_dict


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("must be 1 or more", field="training.steps"),
        InvalidRequest("the request has no body"),
        BudgetTooSmall("smaller than the first image", field="budget", smallest=70_000),
        StoreFull("no room in /data: make room and retry", stage="select"),
    ],
)
def test_an_error_is_the_same_after_its_way_through_a_record(error: KeepmoreError) -> None:
    """Else a client sees another message, field or class than the process that failed."""
    back = from_dict(error.as_dict())
    assert type(back) is type(error)
    assert (back.message, back.reason, back.field, back.details) == (
        error.message,
        error.reason,
        error.field,
        error.details,
    )
    assert back.as_dict() == error.as_dict()


def test_the_tree_of_errors_is_whole() -> None:
    """Else whoever looks for the error to raise adds one that is there."""
    tree = (errors.__doc__ or "").split()
    names = [name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, KeepmoreError)]
    assert [name for name in names if tree.count(name) != 1] == []
