"""Steps done one after the other in this process, as far as a test needs a job."""

from __future__ import annotations

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.jobs.graph import ready_steps
from keepmore.jobs.job import Job, JobRepository
from keepmore.jobs.snapshot import chunk_count
from keepmore.jobs.step import Kind, kinds_of
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.runner import run_step
from keepmore.progress import Progress
from keepmore.spec.job import Request
from keepmore.storage import layout
from keepmore.storage.base import Store
from keepmore.storage.layout import RequestKind
from keepmore.storage.scratch import Scratch


def selected_job(store: Store, request: Request) -> Job:
    """A job whose manifests are written, and nothing behind them is done."""
    job = JobRepository(store).create(request)
    with IsolatedDecoder() as decoder:
        context = StepContext(decoder, ignore_progress)
        while True:
            done = set(store.keys(layout.work(job.id)))
            ready = list(ready_steps(job, done, chunk_count(store, job.id)))
            steps = [step for step in ready if step.kind not in (*kinds_of(RequestKind.TRAINING), Kind.REPORT)]
            if not steps:
                return job
            for step in steps:
                run_step(step, store, context)


def do_steps(kind: Kind, job: Job, store: Store, scratch: Scratch) -> None:
    """Do the job's ready steps of one kind."""
    with IsolatedDecoder() as decoder:
        context = StepContext(decoder, ignore_progress, scratch=scratch)
        for step in ready_steps(job, set(store.keys(layout.work(job.id))), chunk_count(store, job.id)):
            if step.kind is kind:
                run_step(step, store, context)


def ignore_progress(progress: Progress) -> None:
    return None
