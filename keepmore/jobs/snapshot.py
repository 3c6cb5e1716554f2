"""What is done of a job according to the store; `ready_steps` decides on this basis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keepmore.compression.listing import Listing
from keepmore.errors import NotFound
from keepmore.jobs.graph import ready_steps
from keepmore.jobs.job import Job
from keepmore.jobs.requests import training_request
from keepmore.jobs.step import JOB_KINDS, Step
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment: the keys that exist; its chunks, None before it is listed; trainings requested beside it."""

    job: Job
    done: frozenset[str]
    chunks: int | None
    trainings: dict[str, Training]

    def ready(self) -> Iterator[Step]:
        return ready_steps(self.job, self.done, self.chunks, self.trainings)


def take_snapshot(job: Job, store: Store) -> Snapshot:
    done = _keys(job.id, store)
    chunks = chunk_count(store, job.id) if layout.listing(job.id) in done else None
    return Snapshot(job, done, chunks, _open_trainings(job, done, store))


def _keys(job_id: str, store: Store) -> frozenset[str]:
    """The keys that `ready_steps` looks for. Listing all keys would go through every chunk and part again for each of
    the steps that follow the index."""
    single = [Step(job_id, kind) for kind in JOB_KINDS if not kind.spec.fields]
    done = {step.output for step in single if store.exists(step.output)}
    if layout.listing(job_id) not in done:
        return frozenset(done)
    prefixes = [
        layout.requests_prefix(kind, job_id) for kind in (RequestKind.SUBSET, RequestKind.TRAINING, RequestKind.ADVICE)
    ]
    if layout.index_summary(job_id) not in done:
        prefixes.append(layout.parts_prefix(job_id))
    return frozenset(done.union(*(store.keys(prefix) for prefix in prefixes)))


def chunk_count(store: Store, job_id: str) -> int | None:
    """How many chunks the listing counted; None before there is one."""
    try:
        return Listing.read(store, job_id).chunks
    except NotFound:
        return None


def _open_trainings(job: Job, done: frozenset[str], store: Store) -> dict[str, Training]:
    """The unfinished trainings that were requested beside the job's own, by id."""
    prefix = layout.requests_prefix(RequestKind.TRAINING, job.id)
    names = [name for key in done if (name := layout.request_id(key, prefix))]
    return {
        name: training_request(job, name, store).training
        for name in names
        if layout.comparison(job.id, name) not in done
    }
