"""A worker's process: what becomes of a fine-tuning that it does not finish."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.config import RuntimeConfig
from keepmore.errors import NotTrainable
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.step import Kind, Step
from keepmore.net.access import Access
from keepmore.scheduling import metrics
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.queue import TRIES
from keepmore.spec.job import Evaluation, Request
from keepmore.spec.training import Training, Tuning
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import RequestKind
from keepmore.storage.scratch import Scratch
from keepmore.training.results import Run
from keepmore_services.tracing import Tracer
from keepmore_worker.executor import ChainingQueue, StepExecutor
from tests.steps import selected_job

STEPS = 8
TRAINING = Training(
    "mobilenet_v2", "none", "finetune", steps=STEPS, seeds=1, tuning=Tuning(batch=4, image_size=32, head="new")
)


@pytest.fixture
def job(store: FolderStore, sample: Path, tmp_path: Path) -> Job:
    """A job whose next step is a fine-tuning."""
    for name in sorted(folder.name for folder in (sample / "train").iterdir())[:2]:
        shutil.copytree(sample / "train" / name, tmp_path / "images" / name)
    evaluation = Evaluation(holdout=0.5)
    return selected_job(store, Request((tmp_path / "images").as_uri(), (8,), evaluation=evaluation, training=TRAINING))


@pytest.fixture
def worker(store: FolderStore, tmp_path: Path, decoder: IsolatedDecoder) -> Iterator[StepExecutor]:
    config = RuntimeConfig(str(store.root), Access(), scratch=Scratch(str(tmp_path / "scratch")))
    with LocalQueue(config, 1) as queue:
        tracer, tracker = Tracer(None, store), InMemoryStepTracker(1)
        yield StepExecutor(config, store, tracker, ChainingQueue(queue), decoder, lambda: False, tracer)


def _tune(job: Job) -> Step:
    return Step(job.id, Kind.TUNE, job.request.training_id, "8", 0)


def _checkpoint(job: Job) -> str:
    return layout.checkpoint(job.id, job.request.training_id, "8", 0)


def _run(store: FolderStore, step: Step) -> Run:
    return Run.from_bytes(store.get(step.output))


def test_a_long_fine_tuning_takes_turns_to_its_end(worker: StepExecutor, store: FolderStore, job: Job) -> None:
    """Else it is killed at a worker's time limit, begins again each time, and then counts as one that kills workers."""
    step = _tune(job)
    worker.longest_turn_s = 0.0
    turns = 0
    while not store.exists(step.output):
        assert turns < STEPS, "a turn in which no step is made is none"
        assert not store.exists(layout.request_error(RequestKind.TRAINING, job.id, job.request.training_id))
        worker.do(step)
        turns += 1
    assert turns > TRIES
    counts = worker.tracker.counters.counts()
    assert counts[metrics.total("steps", kind="tune", outcome="handed_on")] == turns - 1, "else it counts as stuck"
    assert len(_run(store, step).curve["loss"]) == STEPS


def test_a_worker_that_is_asked_to_stop_hands_its_run_on(worker: StepExecutor, store: FolderStore, job: Job) -> None:
    """Else every release of the service throws away the hours of all fine-tunings under way."""
    step, checks = _tune(job), count()
    worker.stopping = lambda: next(checks) > 1 + 12 + 3  # as the step begins, as images are decoded, after some steps
    worker.do(step)
    assert not store.exists(step.output)
    assert store.exists(_checkpoint(job))
    assert worker.tracker.leases.lost(job.id, -1000) == [step], "another worker is to go on"
    assert worker.tracker.leases.tries(step) == 0, "nobody died"
    worker.stopping = lambda: False
    worker.do(step)
    run = _run(store, step)
    assert len(run.curve["loss"]) == STEPS
    assert np.isfinite(run.curve["loss"]).all()


def test_a_fine_tuning_that_kills_its_workers_is_given_up(worker: StepExecutor, store: FolderStore, job: Job) -> None:
    """Else one model that is too large for the memory takes down one worker after the other, for ever."""
    step = _tune(job)
    for _ in range(TRIES):
        worker.scheduler.on_start(step)  # and died, without a word
    assert isinstance(worker.tracker, InMemoryStepTracker)
    worker.tracker.leases._jobs[job.id].under_way[step] -= 30
    worker.do(step)
    repository = JobRepository(store)
    ended = repository.settled(repository.get(job.id))
    assert ended.state is State.FAILED
    assert ended.error
    assert ended.error["code"] == "worker_lost"


def test_a_failure_that_cannot_be_saved_is_no_death_of_a_worker(
    worker: StepExecutor, store: FolderStore, job: Job
) -> None:
    """Else the job ends as one whose workers died, and nobody learns why it failed."""
    step = _tune(job)
    endings = store.root / layout.ending(job.id, 0)
    endings.parent.parent.mkdir(parents=True, exist_ok=True)
    endings.parent.write_text("in the way")
    for _ in range(2 * TRIES):
        assert worker.scheduler.on_start(step) <= TRIES
        worker.fail(step, NotTrainable("there are no labels"))
    assert JobRepository(store).get(job.id).state is State.ACCEPTED
    endings.parent.unlink()
    worker.scheduler.on_start(step)
    worker.fail(step, NotTrainable("there are no labels"))
    error = JobRepository(store).get(job.id).error
    assert error is not None
    assert error["code"] == "not_trainable"
