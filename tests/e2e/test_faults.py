"""What a distributed service loses when its parts are killed, stopped or emptied: nothing but time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import redis
import urllib3

from keepmore.client import Client
from keepmore_services import liveness
from tests.conftest import digests
from tests.e2e.jobs import MANY, REQUEST, records, starts, until, wait_until_compressing
from tests.service import Service, upload


def test_flushing_redis_in_the_middle_costs_only_time(
    service: Service, dataset: str, undisturbed: dict[str, str]
) -> None:
    """Else a Redis that restarts empty hangs every job, or loses images."""
    assert service.redis is not None
    job = service.client.start({"dataset": dataset, **REQUEST, "distances": [0, *MANY]})["job"]
    wait_until_compressing(service.client, job)
    with redis.Redis.from_url(service.redis.url) as server:
        server.flushall()
    service.client.wait(job, timeout_s=120)
    report = service.client.report(job)
    actual = digests(report)
    assert {distance: actual[distance] for distance in undisturbed} == undisturbed
    assert report["index"]["listed"] == 48


def test_a_worker_that_is_killed_loses_nothing(service: Service, sample: Path, undisturbed: dict[str, str]) -> None:
    """Else a machine that is taken away takes images with it."""
    fresh = upload(service, sample / "train", "killed")
    job = service.client.start({"dataset": fresh, **REQUEST, "effort": 5})["job"]
    wait_until_compressing(service.client, job)
    service.stop("worker-1", signal.SIGKILL)
    service.start_worker("worker-1", "control,compress")
    service.client.wait(job, timeout_s=180)
    assert service.client.report(job)["index"]["compressed"] == 48
    again = service.client.start({"dataset": fresh, **REQUEST})["job"]
    service.client.wait(again, timeout_s=120)
    assert digests(service.client.report(again)) == undisturbed


def test_a_worker_that_is_asked_to_stop_hands_its_steps_on(service: Service, large: str) -> None:
    """Else every deployment waits minutes for its workers, or kills them and pays for their chunks twice."""
    job = service.client.start({"dataset": large, "distances": MANY, "effort": 7})["job"]
    until(lambda: any("compress" in step for step in starts(service, "worker-1", job)))
    process = service.processes.pop("worker-1")
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(30) == 0
    (step,) = {record["handed_on"] for record in records(service, "worker-1", job) if "handed_on" in record}
    service.start_worker("worker-1", "control,compress")
    until(lambda: (starts(service, "worker-0", job) + starts(service, "worker-1", job)).count(step) == 2)
    service.client.cancel(job)


def test_orchestrators_see_that_workers_and_the_clock_live(service: Service) -> None:
    """Else one that hangs is never started again, or one that works is killed."""
    assert all(map(service.alive, ("worker-0", "worker-1", "trainer", "beat")))
    (service.folder / "nobody.tmp").mkdir(exist_ok=True)
    assert not service.alive("nobody")
    pid = service.processes["worker-0"].pid
    os.kill(pid, signal.SIGSTOP)
    mark = service.folder / "worker-0.tmp" / liveness.MARK.name
    try:
        os.utime(mark, (time.time() - 2 * liveness.STALE_S,) * 2)
        assert not service.alive("worker-0")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: service.alive("worker-0"))


def test_while_redis_is_away_jobs_are_written_down_and_done_later(
    service: Service, dataset: str, undisturbed: dict[str, str]
) -> None:
    """Else an outage of the queue loses jobs that were accepted, or shows none of those that there are."""
    assert service.redis is not None
    os.kill(service.redis.pid, signal.SIGSTOP)
    try:
        client = Client(service.url, service.api_key, retries=urllib3.Retry(0))
        job = client.start({"dataset": dataset, **REQUEST})["job"]
        assert client.job(job)["state"] == "accepted"
    finally:
        os.kill(service.redis.pid, signal.SIGCONT)
    service.client.wait(job, timeout_s=180)
    assert digests(service.client.report(job)) == undisturbed


def test_an_outage_of_the_store_costs_only_time(service: Service, sample: Path, undisturbed: dict[str, str]) -> None:
    """Else a store that restarts fails every job that runs."""
    assert service.s3 is not None
    fresh = upload(service, sample / "train", "outage")
    # An effort of its own: what other jobs have encoded is found again, and the job would be done before the outage.
    job = service.client.start({"dataset": fresh, "distances": [0, *MANY], "effort": 4})["job"]
    wait_until_compressing(service.client, job)
    os.kill(service.s3.pid, signal.SIGSTOP)
    time.sleep(5)
    os.kill(service.s3.pid, signal.SIGCONT)
    service.client.wait(job, timeout_s=180)
    assert service.client.report(job)["index"]["compressed"] == 48
    again = service.client.start({"dataset": fresh, **REQUEST})["job"]
    service.client.wait(again, timeout_s=120)
    assert digests(service.client.report(again)) == undisturbed
