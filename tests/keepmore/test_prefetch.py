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
    started: list[tuple[int, bool]] = []

    def submit(item: tuple[int, bool]) -> Future[int]:
        started.append(item)
        done: Future[int] = Future()
        done.set_result(item[0])
        return done

    for taken, (item, future) in enumerate(ahead(items, submit, most, lambda item: item[1]), 1):
        assert item == items[taken - 1] == (future.result(), item[1])
        assert started == items[: len(started)]
        assert all(small for _, small in started[taken:])
        assert len(started) == taken + most or started == items or not items[len(started)][1]
        assert len(started) <= taken + most
    assert started == items


def test_one_that_fails_fails_in_its_turn() -> None:
    """Else a damaged image costs the images before it."""
    with ThreadPoolExecutor(1) as thread:
        turns = ahead([1, 0, 2], lambda number: thread.submit(lambda: 1 / number), 2)
        assert next(turns)[1].result() == 1
        with pytest.raises(ZeroDivisionError):
            next(turns)[1].result()
        assert next(turns)[1].result() == 0.5
