"""The next items are started before they are needed, and no more of them than allowed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.prefetch import ahead


@given(st.lists(st.booleans()), st.integers(0, 5))
def test_all_come_once_in_order_and_few_are_begun(early: list[bool], most: int) -> None:
    """Else an image gets the bytes of another one, or a worker holds more images than it has memory for."""
    items = list(enumerate(early))
    submissions: list[tuple[int, bool]] = []

    def submit(item: tuple[int, bool]) -> Future[int]:
        submissions.append(item)
        future: Future[int] = Future()
        future.set_result(item[0])
        return future

    for count, (item, future) in enumerate(ahead(items, submit, most, lambda item: item[1]), 1):
        assert item == items[count - 1] == (future.result(), item[1])
        assert submissions == items[: len(submissions)]
        assert all(small for _, small in submissions[count:])
        assert len(submissions) == count + most or submissions == items or not items[len(submissions)][1]
        assert len(submissions) <= count + most
    assert submissions == items


def test_one_that_fails_fails_in_its_turn() -> None:
    """Else a damaged image costs the images before it."""
    with ThreadPoolExecutor(1) as thread:
        turns = ahead([1, 0, 2], lambda number: thread.submit(lambda: 1 / number), 2)
        assert next(turns)[1].result() == 1
        with pytest.raises(ZeroDivisionError):
            next(turns)[1].result()
        assert next(turns)[1].result() == 0.5
