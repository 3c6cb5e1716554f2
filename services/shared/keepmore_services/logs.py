"""JSON logs on standard error, one object per line, with the job and the step that a line is about."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from keepmore.jobs.step import Step

_STEP: ContextVar[Step | None] = ContextVar("step", default=None)
QUIET = (
    "uvicorn.access",
    "urllib3",
    "kombu",
    "celery.worker.strategy",
    "celery.app.trace",
    "celery.beat",
    "matplotlib",
)


class _Context(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        step = _STEP.get()
        if step:
            record.job, record.step = step.job, str(step)
        return True


def configure(level: str) -> None:
    """One handler at the root; libraries that log every request or message log from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        )
    )
    handler.addFilter(_Context())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def about(step: Step) -> Iterator[None]:
    """Log lines within this context are about `step`."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)
