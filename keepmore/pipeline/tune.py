"""The tune step: one run of a fine-tuning."""

from __future__ import annotations

from keepmore.jobs.job import Job
from keepmore.jobs.step import Step
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.training import TrainingSteps
from keepmore.storage.base import Store


def run(job: Job, step: Step, store: Store, context: StepContext) -> bytes:
    training = TrainingSteps.of(job, step.request, store, context.access, context.scratch, context.report)
    return training.tune(step.variant, step.seed, context.trainer(training.training.method)).as_bytes()
