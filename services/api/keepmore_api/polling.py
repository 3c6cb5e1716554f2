"""Waiting for the answer to a request that a worker works on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from fastapi.concurrency import run_in_threadpool

from keepmore.jobs.requests import RequestRef, RequestRepository
from keepmore.storage.base import Store

# Most answers take less than a second. A longer wait polls less often: every poll is two calls of the store.
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
GROWTH = 1.5


async def result_of(store: Store, ref: RequestRef, wait_s: float) -> Mapping[str, Any] | None:
    """The answer of a worker; None if there is none within `wait_s`. Raises the error that it stored instead."""
    requests = RequestRepository(store)
    deadline = time.monotonic() + wait_s
    pause_s = FIRST_PAUSE_S
    while True:
        result = await run_in_threadpool(requests.result, ref)
        left_s = deadline - time.monotonic()
        if result is not None or left_s <= 0:
            return result
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * GROWTH, LONGEST_PAUSE_S)
