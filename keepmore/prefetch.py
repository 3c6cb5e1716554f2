"""Starting work on the next items while the caller handles one: for work that waits on a disk or a network."""

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
    """Each of `items` with its future, in order, while up to `most` of the next ones are running.

    An item that is not `early`, for example because it is large, is submitted in its turn, and so are those after it.
    """
    futures: deque[Future[Result]] = deque()
    for position, item in enumerate(items):
        if not futures:
            futures.append(submit(item))
        for following in items[position + len(futures) : position + 1 + most]:
            if not early(following):
                break
            futures.append(submit(following))
        yield item, futures.popleft()
