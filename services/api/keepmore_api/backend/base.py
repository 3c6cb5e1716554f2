"""What the API depends on: store, tracker, queue and scheduler, embedded in its own process or distributed."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Protocol

from keepmore.config import RuntimeConfig
from keepmore.scheduling.scheduler import Scheduler
from keepmore.scheduling.tracker import StepTracker
from keepmore.storage.base import Store

log = logging.getLogger(__name__)


class Backend(Protocol):
    @property
    def config(self) -> RuntimeConfig: ...

    @property
    def store(self) -> Store: ...

    @property
    def tracker(self) -> StepTracker: ...

    @property
    def scheduler(self) -> Scheduler: ...

    def __enter__(self) -> Backend: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def check(self) -> None:
        """Raises StoreError or QueueUnavailable unless store and queue can be reached."""
        ...

    def depths(self) -> dict[str, int]:
        """How many steps wait, by lane."""
        ...
