"""Questions to jobs that were stopped, and jobs that were made by another version of the codec."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keepmore import keys
from keepmore.board import MemoryBoard
from keepmore.budget import BytesBudget
from keepmore.errors import NotTrainable
from keepmore.foreman import Foreman
from keepmore.index import Summary
from keepmore.jobs import JobBook, State
from keepmore.questions import ask_for_training
from keepmore.queue import LocalQueue
from keepmore.request import Evaluation, Request, Training
from keepmore.site import Site
from keepmore.steps import Kind, Step, ready_steps
from keepmore.store import FolderStore
from tests.conftest import Command

Ran = Callable[..., dict[str, Any]]


def test_the_own_training_of_a_cancelled_job_can_be_asked_for_again(store: FolderStore) -> None:
    """Else it is said to run, and nobody runs it; or it fails, and is tried for ever."""
    request = Request("file:///d", (4,), evaluation=Evaluation(holdout=0.2), training=Training())
    book = JobBook(store)
    job = book.create(request).evolve(State.CANCELLED)
    book.save(job)
    for key, found in (
        (keys.index_summary(job.id), Summary(pool=3, evaluation=1, classes={"a": 2, "b": 1}).as_json()),
        (keys.subset(job.id, request.subset_id), {}),
        (keys.listing(job.id), {"chunks": 1, "images": 4, "codec": "any"}),
    ):
        store.put(key, json.dumps(found).encode())
    name = ask_for_training(job, store, request.subset_id, Training())
    assert name == request.training_id
    ready = list(ready_steps(job, set(store.keys(keys.work(job.id))), 1))
    assert {step.kind for step in ready} == {Kind.FEATURES}
    with LocalQueue(Site(str(store.root)), 1) as queue:
        Foreman(store, MemoryBoard(1), queue).failed(ready[0], NotTrainable("no"))
    assert book.get(job.id).state is State.CANCELLED
    assert json.loads(store.get(keys.training_error(job.id, name)))["code"] == "not_trainable"
    assert not list(ready_steps(job, set(store.keys(keys.work(job.id))), 1))


def test_a_silent_worker_loses_its_step_and_a_waiting_message_does_not(store: FolderStore) -> None:
    """Else a lost message hangs its job; or a lane without a worker collects copies of its steps."""
    board = MemoryBoard(1)
    job = JobBook(store).create(Request("file:///d", (4,)))
    with LocalQueue(Site(str(store.root)), 1) as queue:
        foreman = Foreman(store, board, queue)
        foreman.start(job.id)
        (step,) = board.lost(job.id, -1000)
        assert foreman._lost(job.id) == []
        board.begin(step)
        board._desks[job.id].under_way[step] -= 30
        assert foreman._lost(job.id) == [step]


def test_another_codec_selects_nothing_from_an_index(ran: Ran, keepmore: Command, sample: Path, tmp_path: Path) -> None:
    """Else a manifest names objects that do not exist, and originals are deleted on its word."""
    report = ran("run", str(sample / "test"), "--distances", "4")
    store = FolderStore(tmp_path / "store")
    listing = json.loads(store.get(keys.listing(report["job"])))
    store.put(keys.listing(report["job"]), json.dumps(listing | {"codec": "k1-older"}).encode())
    done = keepmore("select", report["job"], "--budget", "100kB")
    assert done.returncode == 1
    assert "began with the codec k1-older" in done.stderr


def test_subset_steps_are_told_apart(store: FolderStore) -> None:
    """Else the failure of a second budget is taken for that of the job."""
    book = JobBook(store)
    job = book.create(Request("file:///d", (4,), budget=BytesBudget(5)))
    with LocalQueue(Site(str(store.root)), 1) as queue:
        foreman = Foreman(store, MemoryBoard(1), queue)
        foreman.failed(Step(job.id, Kind.SELECT, "another"), NotTrainable("no"))
        assert book.get(job.id).state is State.ACCEPTED
        assert store.exists(keys.subset_error(job.id, "another"))
        foreman.failed(Step(job.id, Kind.SELECT, job.request.subset_id), NotTrainable("no"))
        assert book.get(job.id).state is State.FAILED
