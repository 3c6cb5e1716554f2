"""What carries steps to the workers: the local process pool, or Celery (`keepmore_services.broker`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from keepmore.errors import KeepmoreError, WorkerLost
from keepmore.jobs.step import Step
from keepmore.progress import Progress

TRIES = 3


class Queue(Protocol):
    """Carries steps; knows no results."""

    def submit(self, steps: Iterable[Step]) -> None:
        """Queue `steps`; a step that is submitted twice is harmless."""
        ...

    def cancel(self, job: str) -> None:
        """Stop the steps of `job` that are under way, where that is possible at once, and begin no more of them."""
        ...

    def depths(self) -> dict[str, int]:
        """How many steps wait for a worker, by lane."""
        ...


class StepListener(Protocol):
    """Is notified of what happens to steps."""

    def on_start(self, step: Step) -> int:
        """A worker starts on the step; returns how many did so without ending it, this one included."""
        ...

    def on_progress(self, step: Step, progress: Progress) -> None: ...

    def on_finish(self, step: Step) -> None: ...

    def on_failure(self, step: Step, error: KeepmoreError) -> None: ...

    def on_abandon(self, step: Step) -> None:
        """The step was stopped because its job was cancelled."""
        ...


def lost(step: Step, why: str) -> WorkerLost:
    return WorkerLost(
        f"a worker died {TRIES} times on step {step.kind} {step.part} ({why}); "
        "give it more memory or use fewer processes, then resume the job"
    )
