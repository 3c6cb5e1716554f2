"""What every queue must do, whatever carries its steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepmore import keys
from keepmore.compress import Progress
from keepmore.errors import DatasetNotFound
from keepmore.jobs import Job, JobBook
from keepmore.queue import LocalQueue
from keepmore.request import Request
from keepmore.steps import Kind, Step
from keepmore.store import FolderStore


@pytest.fixture
def queue(store: FolderStore) -> Iterator[LocalQueue]:
    with LocalQueue(store.root, processes=2) as found:
        yield found


def _job(store: FolderStore, dataset: Path) -> Job:
    return JobBook(store).create(Request(dataset.as_uri(), (4,)))


def _nothing(step: Step, progress: Progress) -> None:
    return None


def test_a_submitted_step_is_done(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a job hangs for ever."""
    job = _job(store, sample / "test")
    queue.submit([Step(job.id, Kind.LIST)])
    queue.drain(lambda step: (), _nothing)
    assert store.exists(keys.listing(job.id))


def test_duplicates_are_harmless(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a redelivered message does a step's work, and counts it, twice."""
    job = _job(store, sample / "test")
    queue.submit([Step(job.id, Kind.LIST), Step(job.id, Kind.LIST)])
    queue.submit([Step(job.id, Kind.LIST)])
    queue.drain(lambda step: [step], _nothing)
    assert store.exists(keys.listing(job.id))


def test_what_follows_a_step_is_done_too(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a job stops after its first stage."""
    job = _job(store, sample / "test")
    seen: list[Progress] = []

    def follow(step: Step) -> list[Step]:
        return [Step(job.id, Kind.COMPRESS, "0")] if step.kind is Kind.LIST else []

    queue.submit([Step(job.id, Kind.LIST)])
    queue.drain(follow, lambda step, progress: seen.append(progress))
    assert store.exists(keys.part(job.id, 0))
    assert sum(progress.images for progress in seen) == 16


def test_a_failing_step_raises_its_own_error(store: FolderStore, queue: LocalQueue, tmp_path: Path) -> None:
    """Else the user reads "a worker failed" and not what to mend."""
    job = _job(store, tmp_path / "nowhere")
    queue.submit([Step(job.id, Kind.LIST)])
    with pytest.raises(DatasetNotFound, match="nowhere"):
        queue.drain(lambda step: (), _nothing)
