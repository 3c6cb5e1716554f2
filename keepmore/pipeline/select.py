"""The select step: an index and a budget become one manifest for each variant."""

from __future__ import annotations

from keepmore.jobs.job import Job
from keepmore.jobs.requests import subset_request
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, read_listing, read_summary, to_json
from keepmore.selection import select
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    read_listing(job, store)
    request = subset_request(job, step.request, store)
    plan = select.SelectionPlan(
        job.request.distances, job.request.effort, request.budget, request.selection, job.request.rules
    )
    return to_json(select.write_subsets(store, job.id, step.request, plan, read_summary(job, store)).as_json())
