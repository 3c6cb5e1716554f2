"""Which backend the settings name."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider

from keepmore.config import packages_of
from keepmore_api.backend.base import Backend
from keepmore_api.backend.distributed import Distributed
from keepmore_services.settings import Settings


def open_backend(settings: Settings, tracing: TracerProvider | None = None) -> Backend:
    """Whoever does the steps needs what does them, an API before workers does not: so that is not imported for it."""
    if settings.distributed:
        return Distributed(settings)
    with packages_of("local"):
        from keepmore_api.backend.embedded import Embedded
    return Embedded(settings, tracing)
