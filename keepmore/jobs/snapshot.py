"""What of a job is done: which of its keys exist."""

from __future__ import annotations

import json
from collections.abc import Collection

from keepmore.errors import (
    NotFound,
    StoreError,
)
from keepmore.jobs.job import Job
from keepmore.jobs.requests import training_request
from keepmore.spec.training import Training
from keepmore.storage import layout
from keepmore.storage.base import Store


def chunk_count(store: Store, job_id: str) -> int | None:
    key = layout.listing(job_id)
    try:
        return int(json.loads(store.get(key))["chunks"])
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{key} is damaged ({error!r}); start a new job, which finds the encodings again") from error


def asked_trainings(job: Job, done: Collection[str], store: Store) -> dict[str, Training]:
    """The trainings that somebody asked for beside the job's own and that still miss something, by id."""
    prefix = layout.trainings_prefix(job.id)
    names = [name for key in done if (name := layout.asked_id(key, prefix))]
    open_ = [name for name in names if layout.comparison(job.id, name) not in done]
    return {name: training_request(job, name, store)[1] for name in open_}
