"""The check step: a few images at every distance, to warn of a distance that makes no sense."""

from __future__ import annotations

from keepmore.compression import codec_check
from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, read_listing, to_json
from keepmore.storage import layout
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    listing = read_listing(job, store)
    chunks = [layout.chunk(job.id, listing.name, number) for number in codec_check.spread(listing.chunks)]
    return to_json(codec_check.run(store, chunks, context.compressor(job, store), job.request.distances).as_json())
