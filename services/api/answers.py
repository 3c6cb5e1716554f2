"""Waiting for the answer to a question that a worker works on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi.concurrency import run_in_threadpool

from keepmore.errors import from_dict
from keepmore.status import read_json
from keepmore.store import Store

LOOK_EVERY_S = 0.05


async def answer(store: Store, key: str, error_key: str, wait_s: float) -> dict[str, Any] | None:
    """What a worker wrote under `key`; None if nothing is there within `wait_s`. Raises the error it wrote instead."""
    deadline = time.monotonic() + wait_s
    while True:
        found = await run_in_threadpool(_look, store, key, error_key)
        if found is not None or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(LOOK_EVERY_S)


def _look(store: Store, key: str, error_key: str) -> dict[str, Any] | None:
    found = read_json(store, key)
    if found is None and (failed := read_json(store, error_key)):
        raise from_dict(failed)
    return found
