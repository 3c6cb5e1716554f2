"""The fit step: the distance at which a given number of images fills the budget."""

from __future__ import annotations

from keepmore.jobs.job import Job
from keepmore.jobs.requests import subset_request
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, read_listing, read_summary
from keepmore.selection import fit
from keepmore.storage import layout
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    read_listing(job, store)
    request = subset_request(job, step.request, store)
    job.request.check_budget(request.budget)
    (rule,) = (rule for rule in job.request.fits if rule.name == step.variant)
    # There is a budget: that was checked.
    limit = request.budget.bytes(read_summary(job, store).pool_bytes) if request.budget else 0
    return fit.find(context.encoder(job, store), layout.index(job.id), rule, limit, request.selection)
