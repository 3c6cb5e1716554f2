"""What of a job is done: which of its keys exist."""

from __future__ import annotations

from collections.abc import Collection

from keepmore.compression.listing import Listing
from keepmore.errors import NotFound
from keepmore.jobs.job import Job
from keepmore.jobs.requests import training_request
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store


def chunk_count(store: Store, job_id: str) -> int | None:
    try:
        return Listing.read(store, job_id).chunks
    except NotFound:
        return None


def asked_trainings(job: Job, done: Collection[str], store: Store) -> dict[str, Training]:
    """The trainings that somebody asked for beside the job's own and that still miss something, by id."""
    prefix = layout.trainings_prefix(job.id)
    names = [name for key in done if (name := layout.asked_id(key, prefix))]
    open_ = [name for name in names if layout.comparison(job.id, name) not in done]
    return {name: training_request(job, name, store)[1] for name in open_}
