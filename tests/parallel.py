"""How tests share a machine: files side by side, each in one process, and tests marked `alone` beside no other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.guard import guard_this_run, run_folder

# The longest files first, so that neither process has much left to do when the other has nothing.
ORDER = ["e2e", "services", "contracts", "deploy", "keepmore"]


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a process of pytest-xdist belongs to the run that started it
        guard_this_run()
        # PyTorch's threads sleep while they wait for each other: side by side, they take the cores from other tests.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        side_by_side = getattr(config.option, "numprocesses", None) or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // side_by_side)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.nodeid.split("/")[1:2]
        return ORDER.index(folder[0]) if folder and folder[0] in ORDER else 0

    items.sort(key=place)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Before the time limit of a test begins: that it waits for others is not its fault."""
    with _turn(fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH):
        return (yield)


@contextmanager
def _turn(kind: int) -> Iterator[None]:
    """One test's. Who waits for an exclusive one is next: until it has been, no other test begins."""
    with ExitStack() as locks:
        with _lock("next", fcntl.LOCK_EX):
            locks.enter_context(_lock("turn", kind))
        yield


@contextmanager
def _lock(name: str, kind: int) -> Iterator[None]:
    file = os.open(run_folder() / name, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, kind)
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough where a forked process has the file too
        os.close(file)
