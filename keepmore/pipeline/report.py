"""The report step: everything that a job found, as JSON and as a page."""

from __future__ import annotations

from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, read_listing, to_json
from keepmore.reporting import figures, report
from keepmore.storage import layout
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    read_listing(job, store)
    result = figures.figures(job, store)
    store.put(layout.report_page(job.id), report.page(job, store, result, context.access).encode())
    return to_json(result.as_json())
