"""Who answers a command: this machine (`keepmore.cli.local`) or a service (`keepmore.cli.remote`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from keepmore.answers import (
    AdviceAnswer,
    EstimateAnswer,
    FailedImageAnswer,
    JobAnswer,
    JobRecordAnswer,
    ReportAnswer,
    SubsetAnswer,
    TrainingAnswer,
)
from keepmore.cli.console import Console
from keepmore.cli.options import DEFAULT_STORE, Place
from keepmore.config import RuntimeConfig, packages_of
from keepmore.net.access import Access
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.budget import Budget
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import Request, Selection
from keepmore.spec.training import Training
from keepmore.storage.scratch import Scratch


class Backend(Protocol):
    @property
    def where(self) -> str:
        """Which store or service answers, in words."""
        ...

    @property
    def when_left(self) -> str:
        """What happens to a job whose command is interrupted; the command that resumes it follows."""
        ...

    def start(self, request: Request) -> str:
        """Store a new job; returns its id."""
        ...

    def work(self, job: str, console: Console) -> ReportAnswer:
        """Run a job to its end, showing its progress; returns its report. Raises the error that made it fail."""
        ...

    def jobs(self) -> list[JobRecordAnswer]: ...

    def status(self, job: str) -> JobAnswer: ...

    def subsets(self, job: str) -> list[SubsetAnswer]: ...

    def cancel(self, job: str) -> None: ...

    def select(self, job: str, budget: Budget | None, selection: Selection) -> SubsetAnswer: ...

    def train(self, job: str, subset: str | None, training: Training, console: Console) -> TrainingAnswer:
        """Train on the subsets `subset` (None: the job's own); returns the results by distance."""
        ...

    def advise(self, job: str, request: AdviceRequest, console: Console) -> tuple[AdviceAnswer, bytes]:
        """Advice on a job, and its page."""
        ...

    def estimate(self, request: EstimateRequest, console: Console) -> EstimateAnswer: ...

    def errors(self, job: str) -> Iterator[FailedImageAnswer]: ...

    def manifest(self, reference: str) -> AbstractContextManager[Path]:
        """The file of a manifest, named by its path or as JOB/VARIANT or JOB/SUBSET/VARIANT."""
        ...

    def command(self, name: str, job: str) -> str:
        """The command line of the command `name` for a job."""
        ...


def open_backend(place: Place, processes: int | None = None) -> Backend:
    """Who answers at `place`. Imported when it is needed: a client of a service does not need the packages that do the
    work."""
    if place.server is not None:
        from keepmore.cli.remote import RemoteBackend
        from keepmore.client import Client

        return RemoteBackend(Client(place.server, place.api_key))
    config = RuntimeConfig(
        place.store, Access.from_environment(os.environ), scratch=Scratch.from_environment(os.environ)
    )
    with packages_of("local"):
        from keepmore.cli.local import LocalBackend
    return LocalBackend(config, DEFAULT_STORE, processes or os.cpu_count() or 1)
