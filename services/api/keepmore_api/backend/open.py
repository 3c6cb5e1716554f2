"""Which backend the settings name."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider

from keepmore.config import packages_of
from keepmore_api.backend.base import Backend
from keepmore_api.backend.distributed import Distributed
from keepmore_services.settings import Settings


def open_backend(settings: Settings, tracing: TracerProvider | None = None) -> Backend:
    """An embedded backend needs the packages that run steps, an API with workers does not: so they are imported only
    here."""
    if settings.distributed:
        return Distributed(settings)
    with packages_of("local"):
        from keepmore_api.backend.embedded import Embedded
    return Embedded(settings, tracing)
