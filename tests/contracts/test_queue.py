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
class Told:
    """A listener that keeps what it hears; `follow` is submitted once a step of its kind is done."""

    queue: LocalQueue
    follow: dict[Kind, list[Step]] = field(default_factory=dict)
    begun: list[Step] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    wrong: list[KeepmoreError] = field(default_factory=list)
    left: list[Step] = field(default_factory=list)

    def on_start(self, step: Step) -> int:
        self.begun.append(step)
        return self.begun.count(step)

    def on_progress(self, step: Step, progress: Progress) -> None:
        self.progress.append(progress)

    def on_finish(self, step: Step) -> None:
        self.done.append(step)
        self.queue.submit(self.follow.get(step.kind, []))

    def on_failure(self, step: Step, error: KeepmoreError) -> None:
        self.wrong.append(error)

    def on_abandon(self, step: Step) -> None:
        self.left.append(step)


@pytest.fixture
def queue(store: FolderStore) -> Iterator[LocalQueue]:
    with LocalQueue(RuntimeConfig(str(store.root)), processes=2) as found:
        yield found


def _job(store: FolderStore, dataset: Path, distances: tuple[float, ...] = (4,)) -> Job:
    return JobRepository(store).create(Request(dataset.as_uri(), distances))


@dataclass
class Carried:
    """A queue whose steps are run, and the store that they write to."""

    queue: Queue
    store: FolderStore
    settle: Callable[[], None]


@pytest.fixture(params=["local", "celery"])
def carried(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Carried]:
    if request.param == "local":
        store = FolderStore(tmp_path / "store")
        with LocalQueue(RuntimeConfig(str(store.root)), processes=2) as local:
            yield Carried(local, store, lambda: local.run(Told(local), until_idle=True))
        return
    redis_url, store = request.getfixturevalue("worker")
    celery = CeleryQueue(celery_app(Settings(redis_url=redis_url, store=str(store.root))))
    yield Carried(celery, store, lambda: None)


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


def _until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_any_queue_has_a_step_done_however_often_it_is_submitted(carried: Carried, sample: Path) -> None:
    """Else a job hangs for ever, or a message that comes twice breaks it."""
    step = Step(_job(carried.store, sample / "test").id, Kind.LIST)
    carried.queue.submit([step, step])
    carried.queue.submit([step])
    carried.settle()
    _until(lambda: carried.store.exists(step.output))


def test_any_queue_tells_how_much_waits(carried: Carried, sample: Path) -> None:
    """Else nobody knows that a lane has no worker, and its steps are submitted again and again."""
    assert set(carried.queue.depths()) == {"control", "compress", "training"}
    job = _job(carried.store, sample / "test")
    before = carried.queue.depths()["training"]
    carried.queue.submit([Step(job.id, Kind.FEATURES, "abc", "4")])
    if isinstance(carried.queue, CeleryQueue):  # nobody takes this lane; the local pool takes all
        assert carried.queue.depths()["training"] == before + 1
    carried.queue.cancel(job.id)


def test_any_queue_has_a_failure_written_down(carried: Carried, tmp_path: Path) -> None:
    """Else a job that cannot be done looks like one that takes long."""
    job = _job(carried.store, tmp_path / "nowhere")
    step = Step(job.id, Kind.LIST)
    carried.queue.submit([step])
    if isinstance(carried.queue, CeleryQueue):
        _until(lambda: JobRepository(carried.store).get(job.id).state is State.FAILED)
    else:
        carried.settle()
    assert not carried.store.exists(step.output)


def test_a_submitted_step_is_done(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a job hangs for ever."""
    told, step = Told(queue), Step(_job(store, sample / "test").id, Kind.LIST)
    queue.submit([step])
    queue.run(told, until_idle=True)
    assert told.done == [step]
    assert store.exists(step.output)


def test_duplicates_are_harmless(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a redelivered message does a step's work, and counts it, twice."""
    told, step = Told(queue), Step(_job(store, sample / "test").id, Kind.LIST)
    queue.submit([step, step])
    queue.submit([step])
    queue.run(told, until_idle=True)
    queue.submit([step])
    queue.run(told, until_idle=True)
    assert told.done == [step, step]
    assert store.exists(layout.listing(step.job))


def test_what_follows_a_step_is_done_too(store: FolderStore, queue: LocalQueue, sample: Path) -> None:
    """Else a job stops after its first stage."""
    job = _job(store, sample / "test")
    told = Told(queue, {Kind.LIST: [Step(job.id, Kind.COMPRESS, chunk=0)]})
    queue.submit([Step(job.id, Kind.LIST)])
    queue.run(told, until_idle=True)
    assert store.exists(layout.part(job.id, 0))
    assert sum(told.progress, Progress()).images == 16


def test_a_failing_step_tells_its_own_error(store: FolderStore, queue: LocalQueue, tmp_path: Path) -> None:
    """Else the user reads "a worker failed" and not what to mend."""
    told = Told(queue)
    queue.submit([Step(_job(store, tmp_path / "nowhere").id, Kind.LIST)])
    queue.run(told, until_idle=True)
    assert isinstance(told.wrong[0], DatasetNotFound)
    assert "nowhere" in told.wrong[0].message


@pytest.mark.alone
def test_a_cancelled_job_stops_within_seconds_and_another_goes_on(
    store: FolderStore, queue: LocalQueue, sample: Path
) -> None:
    """Else stopping a job frees its workers only after everything that it had handed out."""
    job, other = (_job(store, sample / "train", tuple(range(2, 26))) for _ in range(2))
    told = Told(queue)
    queue.submit([Step(name, Kind.LIST) for name in (job.id, other.id)])
    queue.run(told, until_idle=True)
    queue.submit([Step(job.id, Kind.COMPRESS, chunk=number) for number in range(3)])
    queue.submit([Step(other.id, Kind.COMPRESS, chunk=0)])
    thread = threading.Thread(target=queue.run, args=(told, True))
    thread.start()
    while not told.progress:
        time.sleep(0.01)
    queue.cancel(job.id)
    asked = time.monotonic()
    while not told.left:
        time.sleep(0.01)
    assert time.monotonic() - asked < 3
    thread.join()
    assert told.done[2:] == [Step(other.id, Kind.COMPRESS, chunk=0)]
    assert not store.exists(layout.part(job.id, 0))


def test_run_returns_when_it_is_stopped(queue: LocalQueue) -> None:
    """Else a service that is told to end hangs."""
    thread = threading.Thread(target=queue.run, args=(Told(queue), False))
    thread.start()
    queue.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()
