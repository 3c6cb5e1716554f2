"""Waiting for the answer to a question that a worker works on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi.concurrency import run_in_threadpool

from keepmore.errors import from_dict
from keepmore.scheduling.status import read_json
from keepmore.storage.base import Store

# Most answers take less than a second. Whoever waits longer looks less often: every look is two requests to the store.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
GROWTH = 1.5


async def answer(store: Store, key: str, error_key: str, wait_s: float) -> dict[str, Any] | None:
    """What a worker wrote under `key`; None if nothing is there within `wait_s`. Raises the error it wrote instead."""
    deadline = time.monotonic() + wait_s
    pause_s = FIRST_PAUSE_S
    while True:
        found = await run_in_threadpool(_look, store, key, error_key)
        left_s = deadline - time.monotonic()
        if found is not None or left_s <= 0:
            return found
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * GROWTH, LONGEST_PAUSE_S)


def _look(store: Store, key: str, error_key: str) -> dict[str, Any] | None:
    found = read_json(store, key)
    if found is None and (failed := read_json(store, error_key)):
        raise from_dict(failed)
    return found
