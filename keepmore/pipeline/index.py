"""The index step: the parts of all chunks become the index, and the table of evaluation images."""

from __future__ import annotations

from keepmore.compression import merge
from keepmore.compression.listing import Listing
from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, to_json
from keepmore.storage import layout
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listing = Listing.read(store, job.id)
    parts = [layout.part(job.id, number) for number in range(listing.chunks)]
    summary = merge.merge(
        store, parts, listing.splits, job.request.compressed, layout.index(job.id), layout.evaluation(job.id)
    )
    return to_json(summary.as_json())
