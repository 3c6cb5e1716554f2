"""Runs a job to its end in local processes, over a folder store."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keepmore import keys
from keepmore.errors import KeepmoreError, StoreError
from keepmore.jobs import Job, JobBook, State
from keepmore.queue import LocalQueue, OnProgress
from keepmore.steps import Kind, Step, chunk_count, output, ready_steps
from keepmore.store import FolderStore

OnStep = Callable[[Step], None]


def run_job(job: Job, store: FolderStore, processes: int, on_progress: OnProgress, on_done: OnStep) -> Job:
    """Do what the store lacks of `job`; gives the job as it ended. Raises what failed, after writing it down."""
    book = JobBook(store)
    job = job.evolve(State.ACCEPTED)
    book.save(job)
    try:
        with LocalQueue(store.root, processes) as queue:
            foreman = _Foreman(job, store, on_done)
            queue.submit(foreman.next_steps())
            queue.drain(foreman.finished, on_progress)
    except KeepmoreError as error:
        _write_down(book, job.evolve(State.FAILED, error))
        raise
    job = job.evolve(State.SUCCEEDED)
    book.save(job)
    return job


def _write_down(book: JobBook, job: Job) -> None:
    try:
        book.save(job)
    except StoreError:
        return  # the store is what failed: the error itself is on its way to the user


class _Foreman:
    """Says what comes next, whenever all that was handed out is done."""

    def __init__(self, job: Job, store: FolderStore, on_done: OnStep) -> None:
        self._job = job
        self._store = store
        self._on_done = on_done
        self._done = set(store.keys(keys.work(job.id)))
        self._chunks = chunk_count(store, job.id)
        self._under_way: set[Step] = set()

    def next_steps(self) -> list[Step]:
        steps = list(ready_steps(self._job, self._done, self._chunks))
        self._under_way = set(steps)
        return steps

    def finished(self, step: Step) -> Iterable[Step]:
        self._on_done(step)
        self._done.add(output(self._job, step))
        self._under_way.discard(step)
        if step.kind is Kind.LIST:
            self._chunks = chunk_count(self._store, self._job.id)
        return () if self._under_way else self.next_steps()
