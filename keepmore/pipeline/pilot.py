"""The pilot step: some images of the pool at distances of their own."""

from __future__ import annotations

from keepmore.advice import pilots
from keepmore.compression import index
from keepmore.jobs.job import Job
from keepmore.jobs.requests import advice_request
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, read_listing
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    read_listing(job, store)
    request = advice_request(job, step.request, store)
    table = pilots.encode(context.encoder(job, store), store, job.id, request, job.request.selection.seed)
    return index.to_parquet(table)
