"""Questions to jobs that were stopped, and jobs that were made by another version of the codec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import chunking, index
from keepmore.compression.index import Summary
from keepmore.compression.listing import Listing
from keepmore.config import RuntimeConfig
from keepmore.errors import Cancelled, DatasetChanged, NotTrainable, StoreError
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.requests import is_wanted, request_training
from keepmore.jobs.snapshot import take_snapshot
from keepmore.jobs.step import Kind, Step
from keepmore.net.access import EVERYTHING
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.runner import run_step
from keepmore.progress import METADATA
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Scheduler
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import Evaluation, Request
from keepmore.spec.training import Training, TrainingRequest
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import RequestKind
from tests.conftest import Command

Ran = Callable[..., dict[str, Any]]

REQUEST = Request("file:///d", (4,))
SECRET = "whsec_" + "c2VjcmV0IHRoYXQgaXMgb25seSBmb3IgdGVzdHM="


def test_the_own_training_of_a_cancelled_job_can_be_asked_for_again(store: FolderStore) -> None:
    """Else it is said to run, and nobody runs it; or it fails, and is tried for ever."""
    request = Request("file:///d", (4,), evaluation=Evaluation(holdout=0.2), training=Training())
    repository = JobRepository(store)
    job = repository.create(request).ended(State.CANCELLED)
    repository.save(job)
    for key, value in (
        (layout.index_summary(job.id), Summary(pool=3, evaluation=1, classes={"a": 2, "b": 1}).as_json()),
        (layout.subset(job.id, request.subset_id), {}),
        (layout.listing(job.id), Listing("a", 1, 4, {"pool": 3, "evaluation": 1}, {}, "any").as_json()),
    ):
        store.put(key, json.dumps(value).encode())
    name = request_training(job, store, TrainingRequest(request.subset_id, Training()))
    assert name == request.training_id

    def missing() -> list[Step]:
        return list(take_snapshot(job, store).ready())

    ready = missing()
    assert {step.kind for step in ready} == {Kind.FEATURES}
    with LocalQueue(RuntimeConfig(str(store.root)), 1) as queue:
        Scheduler(store, InMemoryStepTracker(1), queue).on_failure(ready[0], NotTrainable("no"))
    assert repository.get(job.id).state is State.CANCELLED
    assert json.loads(store.get(layout.request_error(RequestKind.TRAINING, job.id, name)))["code"] == "not_trainable"
    assert not missing()


def test_a_silent_worker_loses_its_step_and_a_waiting_message_does_not(store: FolderStore) -> None:
    """Else a lost message hangs its job; or a lane without a worker collects copies of its steps."""
    tracker = InMemoryStepTracker(1)
    job = JobRepository(store).create(Request("file:///d", (4,)))
    with LocalQueue(RuntimeConfig(str(store.root)), 1) as queue:
        scheduler = Scheduler(store, tracker, queue)
        scheduler.start(job.id)
        (step,) = tracker.leases.lost(job.id, -1000)
        assert scheduler._lost(job.id) == []
        tracker.leases.begin(step)
        tracker.leases._jobs[job.id].under_way[step] -= 30
        assert scheduler._lost(job.id) == [step]


def test_another_codec_selects_nothing_from_an_index(ran: Ran, keepmore: Command, sample: Path, tmp_path: Path) -> None:
    """Else a manifest names objects that do not exist, and originals are deleted on its word."""
    report = ran("run", str(sample / "test"), "--distances", "4")
    store = FolderStore(tmp_path / "store")
    listing = json.loads(store.get(layout.listing(report["job"])))
    store.put(layout.listing(report["job"]), json.dumps(listing | {"codec": "k1-older"}).encode())
    process = keepmore("select", report["job"], "--budget", "100kB")
    assert process.returncode == 1
    assert "began with the codec k1-older" in process.stderr


def test_subset_steps_are_told_apart(store: FolderStore) -> None:
    """Else the failure of a second budget is taken for that of the job."""
    repository = JobRepository(store)
    job = repository.create(Request("file:///d", (4,), budget=BytesBudget(5)))
    with LocalQueue(RuntimeConfig(str(store.root)), 1) as queue:
        scheduler = Scheduler(store, InMemoryStepTracker(1), queue)
        scheduler.on_failure(Step(job.id, Kind.SELECT, "another"), NotTrainable("no"))
        assert repository.get(job.id).state is State.ACCEPTED
        assert store.exists(layout.request_error(RequestKind.SUBSET, job.id, "another"))
        scheduler.on_failure(Step(job.id, Kind.SELECT, job.request.subset_id), NotTrainable("no"))
        assert repository.get(job.id).state is State.FAILED


class _InterruptedStore(FolderStore):
    """A store in which something else happens while the keys of a job are listed, once."""

    def __init__(self, root: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(root)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        keys = list(super().keys(prefix, after))
        if prefix.startswith("work/") and self._meanwhile:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        yield from keys


@pytest.fixture
def queue(store: FolderStore) -> Iterator[LocalQueue]:
    with LocalQueue(RuntimeConfig(str(store.root)), 1) as local_queue:
        yield local_queue


def _write_listing(store: FolderStore, job: Job, chunks: int) -> None:
    listing = Listing("a", chunks, 9, {"pool": 9, "evaluation": 0}, {}, "any")
    store.put(layout.listing(job.id), json.dumps(listing.as_json()).encode())


def test_a_job_that_was_cancelled_stays_cancelled(store: FolderStore, queue: LocalQueue) -> None:
    """Else its caller was told "cancelled", and later finds it succeeded: whoever looked first wins."""
    job = JobRepository(store).create(REQUEST)
    _write_listing(store, job, 1)
    for step in (Step(job.id, Kind.CHECK), Step(job.id, Kind.COMPRESS, chunk=0), Step(job.id, Kind.INDEX)):
        store.put(step.output, b"{}")
    for key in (layout.subset(job.id, job.request.subset_id), layout.report(job.id)):
        store.put(key, b"{}")
    canceller = Scheduler(store, InMemoryStepTracker(1), queue)
    slow = _InterruptedStore(store.root, lambda: canceller.cancel(job.id))
    tracker = InMemoryStepTracker(1)
    tracker.progress.restore(job.id, Kind.COMPRESS, {})
    Scheduler(slow, tracker, queue).advance(job.id)
    assert JobRepository(store).get(job.id).state is State.CANCELLED


def test_a_job_that_is_cancelled_while_its_steps_are_looked_up_hands_out_none(
    store: FolderStore, queue: LocalQueue
) -> None:
    """Else a service runs all of a job that its caller stopped."""
    job = JobRepository(store).create(REQUEST)
    _write_listing(store, job, 100)
    tracker = InMemoryStepTracker(1)
    tracker.progress.restore(job.id, Kind.COMPRESS, {})
    slow = _InterruptedStore(store.root, lambda: Scheduler(store, tracker, queue).cancel(job.id))
    Scheduler(slow, tracker, queue).advance(job.id)
    assert tracker.leases.idle(job.id)


class _RecordingStore(FolderStore):
    """A store that remembers the keys that were listed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listed_keys: list[str] = []

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        for key in super().keys(prefix, after):
            self.listed_keys.append(key)
            yield key


def test_the_steps_behind_the_index_pass_over_no_chunk_and_no_part(store: FolderStore, queue: LocalQueue) -> None:
    """Else each of them takes as long as the job is large, and so does every question to a job that ended."""
    job = JobRepository(store).create(REQUEST)
    _write_listing(store, job, 50)
    for number in range(50):
        store.put(layout.chunk(job.id, "a", number), b"")
        store.put(layout.part(job.id, number), b"no part at all")
    for key in (
        layout.codec_check(job.id),
        layout.index_summary(job.id),
        layout.request(RequestKind.SUBSET, job.id, "abc"),
    ):
        store.put(key, b"{}")
    recording_store, tracker = _RecordingStore(store.root), InMemoryStepTracker(1)
    Scheduler(recording_store, tracker, queue).advance(job.id)
    assert {step.part for step in tracker.leases.lost(job.id, -1000)} == {job.request.subset_id, "abc"}
    assert recording_store.listed_keys == [layout.request(RequestKind.SUBSET, job.id, "abc")]


def test_an_end_that_was_not_written_into_the_record_is_made_up_for(store: FolderStore, queue: LocalQueue) -> None:
    """Else a process that dies in the middle of a cancel leaves a job that never ends, nor can be retried."""
    repository = JobRepository(store)
    job = repository.create(REQUEST)
    repository.end(job, State.CANCELLED)
    repository.save(job)
    scheduler = Scheduler(store, InMemoryStepTracker(1), queue)
    store.put(layout.active(job.id), b"")
    scheduler.reconcile()
    assert repository.get(job.id).state is State.CANCELLED
    assert scheduler.retry(job.id).attempt == 1
    assert repository.get(job.id).state is State.ACCEPTED


def test_a_late_failure_of_a_step_that_is_done_fails_nothing(store: FolderStore, queue: LocalQueue) -> None:
    """Else a worker that came second, and found its source gone, fails a job that has all that it needs."""
    job = JobRepository(store).create(REQUEST)
    _write_listing(store, job, 2)
    step = Step(job.id, Kind.COMPRESS, chunk=0)
    store.put(step.output, index.to_parquet(pa.table({"a": [1]}).replace_schema_metadata({METADATA: b"{}"})))
    Scheduler(store, InMemoryStepTracker(1), queue).on_failure(step, DatasetChanged("gone"))
    assert JobRepository(store).get(job.id).state is State.ACCEPTED


def test_a_job_whose_record_is_gone_is_let_go_of(store: FolderStore, queue: LocalQueue) -> None:
    """Else its last step fails for ever, or ends the thread that hands out everybody's steps."""
    tracker = InMemoryStepTracker(1)
    scheduler = Scheduler(store, tracker, queue)
    step = Step("20200101-000000-000000aaaa", Kind.COMPRESS, chunk=0)
    store.put(layout.active(step.job), b"")
    tracker.leases.push(step)
    scheduler.on_failure(step, DatasetChanged("gone"))
    assert tracker.leases.idle(step.job)
    assert not store.exists(layout.active(step.job))


def test_a_damaged_record_holds_up_no_other_job(store: FolderStore, queue: LocalQueue) -> None:
    """Else one bad file stops every job behind it."""
    repository = JobRepository(store)
    first, second = repository.create(REQUEST), repository.create(REQUEST)
    for job in (first, second):
        store.put(layout.active(job.id), b"")
    store.put(layout.listing(first.id), b"{")
    tracker = InMemoryStepTracker(1)
    Scheduler(store, tracker, queue).reconcile()
    assert not tracker.leases.idle(second.id)
    store.put(layout.job(first.id), b"{}")
    with pytest.raises(StoreError, match="is not a job record"):
        repository.get(first.id)
    tracker = InMemoryStepTracker(1)
    Scheduler(store, tracker, queue).reconcile()
    assert not tracker.leases.idle(second.id)


def test_files_of_others_beside_the_records_stay(store: FolderStore, queue: LocalQueue) -> None:
    """Else the service deletes what a sync program or a person put there, or a list of jobs ends at it."""
    job = JobRepository(store).create(REQUEST)
    strangers = [
        "active/notes.txt",
        "active/.DS_Store",
        "jobs/.DS_Store",
        "jobs/readme.txt",
        "jobs/a.sync-conflict.json",
    ]
    for key in strangers:
        store.put(key, b"mine")
    Scheduler(store, InMemoryStepTracker(1), queue).reconcile()
    assert [store.get(key) for key in strangers] == [b"mine"] * len(strangers)
    assert list(JobRepository(store).ids()) == [job.id]


def test_a_file_of_somebody_else_that_is_named_as_a_job_stays(store: FolderStore, queue: LocalQueue) -> None:
    """Else notes that somebody put beside the marks are gone after a few seconds."""
    store.put("active/notes", b"mine")
    Scheduler(store, InMemoryStepTracker(1), queue).reconcile()
    assert store.get("active/notes") == b"mine"


def test_steps_that_nobody_waits_for_are_not_done(store: FolderStore, sample: Path, decoder: IsolatedDecoder) -> None:
    """Else a cancelled job goes on for as many steps as were handed out; or it answers no question any more."""
    repository = JobRepository(store)
    job = repository.create(Request((sample / "test").as_uri(), (4,)))
    context = StepContext.at(RuntimeConfig(str(store.root)), decoder, lambda progress: None)
    for step in (Step(job.id, Kind.LIST), Step(job.id, Kind.COMPRESS, chunk=0)):
        run_step(step, store, context)
    ended = repository.end(job, State.CANCELLED)
    with pytest.raises(Cancelled, match="nobody waits"):
        run_step(Step(job.id, Kind.COMPRESS, chunk=1), store, context)
    own = Step(job.id, Kind.SELECT, job.request.subset_id)
    assert not is_wanted(own, ended, store)
    store.put(layout.request(RequestKind.SUBSET, job.id, own.part), b"{}")
    assert is_wanted(own, ended, store)
    assert is_wanted(Step(job.id, Kind.NOTIFY), ended, store)


def test_of_two_listings_the_first_counts(store: FolderStore, sample: Path, decoder: IsolatedDecoder) -> None:
    """Else a job mixes two states of a dataset that changed meanwhile, and an image is in neither: lost, uncounted."""
    changing = store.root.parent / "d"
    shutil.copytree(sample / "test", changing)
    job = JobRepository(store).create(Request(changing.as_uri(), (4,)))
    context = StepContext.at(RuntimeConfig(str(store.root)), decoder, lambda progress: None)
    first = chunking.write_listing(store, job.id, job.request, EVERYTHING)
    store.put(layout.listing(job.id), json.dumps(first.as_json()).encode())
    min(changing.rglob("*.jpg")).unlink()
    second = chunking.write_listing(store, job.id, job.request, EVERYTHING)
    assert second.images == first.images - 1
    assert not store.create(layout.listing(job.id), json.dumps(second.as_json()).encode())
    with pytest.raises(DatasetChanged, match="gone"):
        run_step(Step(job.id, Kind.COMPRESS, chunk=0), store, context)


def test_a_retried_job_sends_no_webhook(store: FolderStore, decoder: IsolatedDecoder) -> None:
    """Else a receiver is notified of an end that was undone, and the real one passes for sent."""
    repository = JobRepository(store)
    job = repository.create(Request("file:///d", (4,), webhook="http://127.0.0.1:1/"))
    context = StepContext.at(RuntimeConfig(str(store.root), webhook_secret=SECRET), decoder, lambda progress: None)
    repository.retry(repository.end(job, State.FAILED))
    run_step(Step(job.id, Kind.NOTIFY), store, context)
    assert not store.exists(layout.webhook(job.id))
    repository.end(repository.get(job.id), State.CANCELLED)
    run_step(Step(job.id, Kind.NOTIFY), store, context)
    assert len(json.loads(store.get(layout.webhook(job.id)))["tries"]) == 1
    run_step(Step(job.id, Kind.NOTIFY), store, context)
    assert len(json.loads(store.get(layout.webhook(job.id)))["tries"]) == 1
