"""The Celery application, and the queue that carries steps through it: one message per step, names only."""

from __future__ import annotations

from collections.abc import Iterable

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from keepmore.errors import QueueUnavailable
from keepmore.jobs.step import Lane, Step
from keepmore_services.liveness import EVERY_S
from keepmore_services.settings import Settings

RUN_STEP = "keepmore.run_step"
RECONCILE = "keepmore.reconcile"

# A step takes seconds to minutes; merging ten million rows takes longer. A step that is not done by then is killed, and
# one not acknowledged after twice that is delivered again.
HARD_LIMIT_S = 2 * 3600
SOFT_SHUTDOWN_S = 60.0


def celery_app(settings: Settings) -> Celery:
    """Does not connect yet."""
    app = Celery("keepmore", broker=settings.redis)
    app.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=Lane.CONTROL.value,
        task_acks_late=True,
        # A step whose process died is delivered again; its tries are counted on the tracker, so it cannot loop.
        task_reject_on_worker_lost=True,
        task_time_limit=HARD_LIMIT_S,
        worker_prefetch_multiplier=1,
        broker_transport_options={"visibility_timeout": 2 * HARD_LIMIT_S},
        result_backend_transport_options={"visibility_timeout": 2 * HARD_LIMIT_S},
        broker_connection_retry_on_startup=True,
        # A step that is under way while Redis restarts is finished: its result goes to the store, not to Redis.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=SOFT_SHUTDOWN_S,
        worker_hijack_root_logger=False,
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 1},
        beat_scheduler="keepmore_worker.bootsteps:Clock",
        beat_max_loop_interval=EVERY_S,
        beat_schedule={
            "reconcile": {
                "task": RECONCILE,
                "schedule": settings.reconcile_s,
                "options": {"expires": settings.reconcile_s},
            }
        },
    )
    return app


class CeleryQueue:
    """Implements `keepmore.scheduling.queue.Queue`; raises QueueUnavailable while Redis cannot be reached."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(app.conf.broker_url, socket_timeout=10, socket_connect_timeout=5)

    def submit(self, steps: Iterable[Step]) -> None:
        for step in steps:
            try:
                self._app.send_task(RUN_STEP, (step.job, step.kind.value, step.part), queue=step.kind.lane.value)
            except OperationalError as error:
                raise QueueUnavailable(f"the queue's Redis cannot be reached ({error})") from error

    def depths(self) -> dict[str, int]:
        """Celery's queues are lists in Redis, named as the lanes."""
        try:
            return {lane.value: self._redis.llen(lane.value) for lane in Lane}
        except redis.RedisError as error:
            raise QueueUnavailable(f"the queue's Redis cannot be reached ({error})") from error

    def cancel(self, job: str) -> None:
        """Nothing to do: every worker reads the record of its job every few seconds."""
