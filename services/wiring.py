"""Settings to the parts that they name."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from keepmore.isolation import IsolatedDecoder
from services import traces
from services.board import RedisBoard
from services.carrier import CeleryQueue
from services.crew import Crew, Relay
from services.settings import Settings
from services.traces import Tracer


def crew(settings: Settings, app: Celery, stopping: Callable[[], bool]) -> Crew:
    """What a worker process works with. `stopping`: whether it was asked to stop."""
    site = settings.site
    store = site.store()
    tracer = Tracer(traces.provider(settings.otlp_endpoint, "keepmore-worker"), store)
    board, relay = RedisBoard(settings.redis), Relay(CeleryQueue(app))
    return Crew(site, store, board, relay, IsolatedDecoder(), stopping, tracer)
