"""Does one advise step."""

from __future__ import annotations

from keepmore.jobs.job import Job
from keepmore.jobs.requests import advice_request
from keepmore.jobs.step import Step
from keepmore.pipeline.advice import Adviser
from keepmore.pipeline.context import StepContext, read_listing, to_json
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    read_listing(job, store)
    request = advice_request(job, step.request, store)
    trainer = context.trainer(request.training.method)
    adviser = Adviser(job, store, context.access, context.scratch, context.report, trainer)
    return to_json(adviser.advise(request, step.request).as_json())
