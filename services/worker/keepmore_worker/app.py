"""The Celery application of workers, trainers and beat: `celery -A keepmore_worker.app worker -Q compress,control`.

A trainer is the same with `-Q training`, where PyTorch is installed; `beat` starts the reconciler every few seconds.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from celery import Task
from celery.signals import setup_logging, worker_ready, worker_shutting_down

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.errors import InvalidRequest, KeepmoreError
from keepmore.jobs.step import Kind, Lane, Step
from keepmore.storage.open import check_writable
from keepmore_services import logs, tracing
from keepmore_services.broker.celery_queue import RECONCILE, RUN_STEP, CeleryQueue, celery_app
from keepmore_services.broker.redis_tracker import ALIVE_S, RedisStepTracker
from keepmore_services.settings import load
from keepmore_services.tracing import Tracer
from keepmore_worker.bootsteps import Marking, Stop
from keepmore_worker.executor import ChainingQueue, StepExecutor
from keepmore_worker.heartbeat import log

# Two minutes in all, beside the retries of the store's own client.
MOST_RETRIES = 8
LONGEST_WAIT_S = 30

settings = load()
if not settings.distributed:
    raise InvalidRequest("KEEPMORE_REDIS_URL: a worker, a trainer and beat need it: redis://host:port/number")
check_writable(settings.config.store())  # a worker with a wrong one would take steps and lose them
app = celery_app(settings)
app.steps["consumer"].add(Marking)
stop = Stop()  # before any fork


@cache
def executor() -> StepExecutor:
    """The executor of a worker process: one per process, created after the fork."""
    config = settings.config
    store = config.store()
    tracer = Tracer(tracing.provider(settings.otlp_endpoint, "keepmore-worker"), store)
    tracker, chaining_queue = RedisStepTracker(settings.redis), ChainingQueue(CeleryQueue(app))
    return StepExecutor(config, store, tracker, chaining_queue, IsolatedDecoder(), stop.is_set, tracer)


@app.task(name=RUN_STEP, bind=True, max_retries=MOST_RETRIES)  # type: ignore[untyped-decorator]
def run_step(self: Task[Any, Any], job: str, kind: str, part: str) -> None:
    step = Step.of(job, Kind(kind), part)
    try:
        executor().do(step)
    except KeepmoreError as error:
        if not error.transient:
            raise
        if self.request.retries == MOST_RETRIES:
            executor().fail(step, error)
            return
        executor().put_off(step)
        raise self.retry(exc=error, countdown=min(2**self.request.retries, LONGEST_WAIT_S)) from error


@app.task(name=RECONCILE)  # type: ignore[untyped-decorator]
def reconcile() -> None:
    try:
        executor().scheduler.reconcile()
    except KeepmoreError as error:
        if not error.transient:
            raise
        log.warning("jobs not looked after", extra={"code": error.code, "reason": error.message})


@setup_logging.connect  # type: ignore[untyped-decorator]
def _configure_logs(**_: Any) -> None:
    logs.configure(settings.log_level)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    stop.ask()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _sign_on(sender: Any, **_: Any) -> None:
    """Tell the tracker how many processes compress here: each job's share of them depends on it."""
    queues = {queue.name for queue in sender.task_consumer.queues}
    if Lane.COMPRESS in queues:
        name, slots = sender.hostname, sender.controller.concurrency
        threading.Thread(target=_beat, args=(name, slots), name="sign-on", daemon=True).start()


def _beat(name: str, slots: int) -> None:
    tracker, never = RedisStepTracker(settings.redis), threading.Event()
    while True:
        try:
            tracker.capacity.beat(name, slots)
        except KeepmoreError as error:
            log.warning("could not sign on", extra={"reason": error.message})
        never.wait(ALIVE_S / 4)
