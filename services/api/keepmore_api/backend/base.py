"""What the API stands on: store, board, queue and foreman, embedded in its own process or distributed."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from opentelemetry.sdk.trace import TracerProvider

from keepmore.cli.options import local_packages
from keepmore.config import Site
from keepmore.scheduling.scheduler import Foreman
from keepmore.scheduling.tracker import Board
from keepmore.storage import layout
from keepmore.storage.folder import Store
from keepmore_services.broker.celery_queue import CeleryQueue, celery_app
from keepmore_services.broker.redis_tracker import RedisBoard
from keepmore_services.settings import Settings

log = logging.getLogger(__name__)


class Backend(Protocol):
    @property
    def site(self) -> Site: ...

    @property
    def store(self) -> Store: ...

    @property
    def board(self) -> Board: ...

    @property
    def foreman(self) -> Foreman: ...

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


class Distributed:
    """Steps go to Celery workers by way of Redis."""

    def __init__(self, settings: Settings) -> None:
        self.site = settings.site
        self.store = settings.site.store()
        self._probe = replace(settings.site, access=replace(settings.site.access, retries=1)).store()
        self.board = RedisBoard(settings.redis)
        self._queue = CeleryQueue(celery_app(settings))
        self.foreman = Foreman(self.store, self.board, self._queue)

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def check(self) -> None:
        self._probe.exists(layout.job("readyz"))  # who asks does not wait until an outage is over
        self.board.ping()

    def depths(self) -> dict[str, int]:
        return self._queue.depths()


def backend(settings: Settings, tracing: TracerProvider | None = None) -> Backend:
    """Whoever does the steps needs what does them, an API before workers does not: so that is not imported for it."""
    if settings.distributed:
        return Distributed(settings)
    with local_packages():
        from keepmore_api.backend.embedded import Embedded
    return Embedded(settings, tracing)
