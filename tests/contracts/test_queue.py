"""What every queue must do, whatever carries its steps."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keepmore.config import RuntimeConfig
from keepmore.errors import DatasetNotFound, KeepmoreError
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.step import Kind, Step
from keepmore.progress import Progress
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.queue import Queue
from keepmore.spec.job import Request
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore_services.broker.celery_queue import CeleryQueue, celery_app
from keepmore_services.settings import Settings
from tests.service import Service


@dataclass
class RecordingListener:
    """A listener that keeps what it hears; `follow` is submitted once a step of its kind is done."""

    queue: LocalQueue
    follow: dict[Kind, list[Step]] = field(default_factory=dict)
    starts: list[Step] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    errors: list[KeepmoreError] = field(default_factory=list)
    abandoned: list[Step] = field(default_factory=list)

    def on_start(self, step: Step) -> int:
        self.starts.append(step)
        return self.starts.count(step)

    def on_progress(self, step: Step, progress: Progress) -> None:
        self.progress.append(progress)

    def on_finish(self, step: Step) -> None:
        self.done.append(step)
        self.queue.submit(self.follow.get(step.kind, []))

    def on_failure(self, step: Step, error: KeepmoreError) -> None:
        self.errors.append(error)

    def on_abandon(self, step: Step) -> None:
        self.abandoned.append(step)


@pytest.fixture
def queue(store: FolderStore) -> Iterator[LocalQueue]:
    with LocalQueue(RuntimeConfig(str(store.root)), processes=2) as queue:
        yield queue


def _job(store: FolderStore, dataset: Path, distances: tuple[float, ...] = (4,)) -> Job:
    return JobRepository(store).create(Request(dataset.as_uri(), distances))


@dataclass
class Backend:
    """A queue whose steps are run, and the store that they write to."""

    queue: Queue
    store: FolderStore
    settle: Callable[[], None]


@pytest.fixture(params=["local", "celery"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "local":
        store = FolderStore(tmp_path / "store")
        with LocalQueue(RuntimeConfig(str(store.root)), processes=2) as local:
            yield Backend(local, store, lambda: local.run(RecordingListener(local), until_idle=True))
        return
    redis_url, store = request.getfixturevalue("worker")
    celery = CeleryQueue(celery_app(Settings(redis_url=redis_url, store=str(store.root))))
    yield Backend(celery, store, lambda: None)


@pytest.fixture(scope="module")
def worker(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FolderStore]]:
    """A Celery worker of the lanes control and compress, over a folder."""
    folder = tmp_path_factory.mktemp("worker")
    settings = {"KEEPMORE_STORE": str(folder / "store"), "KEEPMORE_ALLOWED_SOURCES": "file:///"}
    environment = {**os.environ, **settings, "KEEPMORE_REDIS_URL": redis_url}
    service = Service("", environment, folder)
    try:
        service.start_worker("worker", "control,compress")
        yield redis_url, FolderStore(folder / "store")
    finally:
        service.stop("worker")


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_any_queue_has_a_step_done_however_often_it_is_submitted(backend: Backend, sample: Path) -> None:
    """Else a job hangs for ever, or a message that comes twice breaks it."""
    step = Step(_job(backend.store, sample / "test").id, Kind.LIST)
    backend.queue.submit([step, step])
    backend.queue.submit([step])
    backend.settle()
    _until(lambda: backend.store.exists(step.output))


def test_any_queue_tells_how_much_waits(backend: Backend, sample: Path) -> None:
    """Else nobody knows that a lane has no worker, and its steps are submitted again and again."""
    assert set(backend.queue.depths()) == {"control", "compress", "training"}
    job = _job(backend.store, sample / "test")
    before = backend.queue.depths()["training"]
    backend.queue.submit([Step(job.id, Kind.FEATURES, "abc", "4")])
    if isinstance(backend.queue, CeleryQueue):  # nobody takes this lane; the local pool takes all
        assert backend.queue.depths()["training"] == before + 1
    backend.queue.cancel(job.id)


def test_any_queue_has_a_failure_written_down(backend: Backend, tmp_path: Path) -> None:
    """Else a job that cannot be done looks like one that takes long."""
    job = _job(backend.store, tmp_path / "nowhere")
    step = Step(job.id, Kind.LIST)
    backend.queue.submit([step])
    if isinstance(backend.queue, CeleryQueue):
        _until(lambda: JobRepository(backend.store).get(job.id).state is State.FAILED)
    else:
        backend.settle()
    assert not backend.store.exists(step.output)


def test_a_submitted_step_is_done(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a job hangs for ever."""
    listener, step = RecordingListener(queue), Step(_job(store, sample / "test").id, Kind.LIST)
    queue.submit([step])
    queue.run(listener, until_idle=True)
    assert listener.done == [step]
    assert store.exists(step.output)


def test_duplicates_are_harmless(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a redelivered message does a step's work, and counts it, twice."""
    listener, step = RecordingListener(queue), Step(_job(store, sample / "test").id, Kind.LIST)
    queue.submit([step, step])
    queue.submit([step])
    queue.run(listener, until_idle=True)
    queue.submit([step])
    queue.run(listener, until_idle=True)
    assert listener.done == [step, step]
    assert store.exists(layout.listing(step.job))


def test_what_follows_a_step_is_done_too(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a job stops after its first stage."""
    job = _job(store, sample / "test")
    listener = RecordingListener(queue, {Kind.LIST: [Step(job.id, Kind.COMPRESS, chunk=0)]})
    queue.submit([Step(job.id, Kind.LIST)])
    queue.run(listener, until_idle=True)
    assert store.exists(layout.part(job.id, 0))
    assert sum(listener.progress, Progress()).images == 16


def test_a_failing_step_tells_its_own_error(store: FolderStore, queue: LocalQueue, tmp_path: Path) -> None:
    """Else the user reads "a worker failed" and not what to fix."""
    listener = RecordingListener(queue)
    queue.submit([Step(_job(store, tmp_path / "nowhere").id, Kind.LIST)])
    queue.run(listener, until_idle=True)
    assert isinstance(listener.errors[0], DatasetNotFound)
    assert "nowhere" in listener.errors[0].message


@pytest.mark.alone
def test_a_cancelled_job_stops_within_seconds_and_another_goes_on(
    store: FolderStore, queue: LocalQueue, sample: Path
) -> None:
    """Else stopping a job frees its workers only after everything that it had handed out."""
    job, other = (_job(store, sample / "train", tuple(range(2, 26))) for _ in range(2))
    listener = RecordingListener(queue)
    queue.submit([Step(name, Kind.LIST) for name in (job.id, other.id)])
    queue.run(listener, until_idle=True)
    queue.submit([Step(job.id, Kind.COMPRESS, chunk=number) for number in range(3)])
    queue.submit([Step(other.id, Kind.COMPRESS, chunk=0)])
    thread = threading.Thread(target=queue.run, args=(listener, True))
    thread.start()
    while not listener.progress:
        time.sleep(0.01)
    queue.cancel(job.id)
    cancelled_at = time.monotonic()
    while not listener.abandoned:
        time.sleep(0.01)
    assert time.monotonic() - cancelled_at < 3
    thread.join()
    assert listener.done[2:] == [Step(other.id, Kind.COMPRESS, chunk=0)]
    assert not store.exists(layout.part(job.id, 0))


def test_run_returns_when_it_is_stopped(queue: LocalQueue) -> None:
    """Else a service that is asked to stop hangs."""
    thread = threading.Thread(target=queue.run, args=(RecordingListener(queue), False))
    thread.start()
    queue.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()
