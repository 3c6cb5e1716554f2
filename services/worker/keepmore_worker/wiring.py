"""Settings to the parts that they name."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore_services import tracing
from keepmore_services.broker.celery_queue import CeleryQueue
from keepmore_services.broker.redis_tracker import RedisBoard
from keepmore_services.settings import Settings
from keepmore_services.tracing import Tracer
from keepmore_worker.executor import Crew, Relay


def crew(settings: Settings, app: Celery, stopping: Callable[[], bool]) -> Crew:
    """What a worker process works with. `stopping`: whether it was asked to stop."""
    site = settings.site
    store = site.store()
    tracer = Tracer(tracing.provider(settings.otlp_endpoint, "keepmore-worker"), store)
    board, relay = RedisBoard(settings.redis), Relay(CeleryQueue(app))
    return Crew(site, store, board, relay, IsolatedDecoder(), stopping, tracer)
