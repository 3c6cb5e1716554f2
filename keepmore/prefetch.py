"""Work on a row of things of which the next ones are begun already: for what waits on a disk or a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    items: Sequence[Item],
    submit: Callable[[Item], Future[Result]],
    most: int,
    early: Callable[[Item], bool] = lambda item: True,
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each of `items` with its future, in order, while up to `most` of the next ones are under way.

    One that is not `early`, say because it is large, is submitted when its turn has come, and so is what follows it.
    """
    begun: deque[Future[Result]] = deque()
    for position, item in enumerate(items):
        if not begun:
            begun.append(submit(item))
        for following in items[position + len(begun) : position + 1 + most]:
            if not early(following):
                break
            begun.append(submit(following))
        yield item, begun.popleft()
