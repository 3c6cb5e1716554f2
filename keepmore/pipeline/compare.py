"""The compare step: which variants of a training differ by more than noise."""

from __future__ import annotations

from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext, to_json
from keepmore.pipeline.training import TrainingSteps
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    training = TrainingSteps.of(job, step.request, store, context.access, context.scratch, context.report)
    return to_json(training.comparison(job.request.variants).as_json())
