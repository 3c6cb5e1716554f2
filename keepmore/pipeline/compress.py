"""The compress step: a chunk of images becomes objects, and a part of the index."""

from __future__ import annotations

from keepmore.compression import index
from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, read_listing
from keepmore.progress import Progress
from keepmore.storage import layout
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listing = read_listing(job, store)
    rows = index.read_chunk(store.get(layout.chunk(job.id, listing.name, step.chunk)))
    total = Progress()

    def report(progress: Progress) -> None:
        nonlocal total
        total += progress
        context.report(progress)

    table = context.compressor(job, store).chunk(rows, report)
    return index.to_parquet(table.replace_schema_metadata(total.as_metadata()))
