"""The list step: a dataset becomes chunks of images."""

from __future__ import annotations

from keepmore.compression import chunking
from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, to_json
from keepmore.progress import Progress
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listing = chunking.write_listing(store, job.id, job.request, context.access, lambda: context.report(Progress()))
    return to_json(listing.as_json())
