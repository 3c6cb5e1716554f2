"""Running a step: the module of its kind reads from the store, works, and returns the output, which is written last."""

from __future__ import annotations

import traceback
from importlib import import_module
from typing import Protocol, cast

from keepmore.errors import Cancelled, InternalError, KeepmoreError
from keepmore.jobs import webhooks
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.requests import is_wanted
from keepmore.jobs.step import Kind, Step
from keepmore.pipeline import estimate
from keepmore.pipeline.context import StepContext
from keepmore.storage.base import Store


class StepRunner(Protocol):
    """The interface of the module of a kind of step."""

    def run(self, job: Job, step: Step, store: Store, context: StepContext) -> bytes:
        """Run `step`; returns the bytes to write under its output key."""
        ...


def runner_of(kind: Kind) -> StepRunner:
    """The module that does steps of `kind`. Imported when it is needed: Matplotlib, SciPy and the like cost every
    other worker 40 to 100 MB."""
    return cast(StepRunner, import_module(kind.spec.run or ""))


def run_step(step: Step, store: Store, context: StepContext) -> None:
    """Run one step unless its output exists. Any number of processes may run it at once: they write the same bytes.

    Raises Cancelled if nobody waits for it any more.
    """
    if step.kind is Kind.ESTIMATE:
        if not store.exists(step.output):
            store.put(step.output, estimate.answer(store, step.job, context.access, context.decoder, context.report))
        return
    job = JobRepository(store).get(step.job)
    if step.kind is Kind.NOTIFY:
        if webhooks.is_due(job, store):
            store.put(step.output, context.notify(job, store))
    elif not store.exists(step.output):
        if not is_wanted(step, job, store):
            raise Cancelled(f"job {job.id} is {job.state}: nobody waits for the step {step}")
        # The first of two listings counts: the chunks of another one may hold other images.
        write = store.create if step.kind is Kind.LIST else store.put
        write(step.output, runner_of(step.kind).run(job, step, store, context))


def attempt(step: Step, store: Store, context: StepContext) -> None:
    """`run_step`, but any other exception than a KeepmoreError becomes an InternalError."""
    try:
        run_step(step, store, context)
    except (KeepmoreError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        raise InternalError(f"step {step.kind} {step.part}".rstrip() + f":\n{traceback.format_exc()}") from error
