"""Settings to the parts that they name."""

from __future__ import annotations

from celery import Celery

from keepmore.isolation import IsolatedDecoder
from services.board import RedisBoard
from services.carrier import CeleryQueue
from services.crew import Crew, Relay
from services.settings import Settings


def crew(settings: Settings, app: Celery) -> Crew:
    """What a worker process works with."""
    site = settings.site
    return Crew(site, site.store(), RedisBoard(settings.redis), Relay(CeleryQueue(app)), IsolatedDecoder())
