"""The backend of a distributed service: steps go to Celery workers by way of Redis."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

from keepmore.scheduling.scheduler import Scheduler
from keepmore.storage import layout
from keepmore.storage.open import check_writable
from keepmore_api.backend.base import Backend
from keepmore_services.broker.celery_queue import CeleryQueue, celery_app
from keepmore_services.broker.redis_tracker import RedisStepTracker
from keepmore_services.settings import Settings


class Distributed:
    """Steps go to Celery workers by way of Redis."""

    def __init__(self, settings: Settings) -> None:
        self.config = settings.config
        self.store = settings.config.store()
        self._probe = replace(settings.config, access=replace(settings.config.access, retries=1)).store()
        self.tracker = RedisStepTracker(settings.redis)
        self._queue = CeleryQueue(celery_app(settings))
        self.scheduler = Scheduler(self.store, self.tracker, self._queue)

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def check(self) -> None:
        self._probe.exists(layout.job("readyz"))  # a caller does not wait until an outage is over
        check_writable(self._probe)
        self.tracker.ping()

    def depths(self) -> dict[str, int]:
        return self._queue.depths()
