"""`keepmore serve`, killed and started again; and the command over S3, without any service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.conftest import digests, installed_command
from tests.servers import S3Server
from tests.service import Service, embedded, group_lives
from tests.tools import BIN

REQUEST = {"distances": [0, 2, 4, 6, 8, 10], "budget": {"as_distance": 10, "fraction": 0.5}}
WORDS = ["--distances", "0,2,4,6,8,10", "--budget", "as:10*0.5"]


def _run(sample: Path, store: Path) -> dict[str, Any]:
    done = installed_command(store)("run", str(sample / "train"), *WORDS, "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _wait_until_compressing(service: Service, job: str) -> None:
    while not (status := service.client.job(job))["images"] or status["stage"] == "list":
        time.sleep(0.02)


def test_a_service_that_is_killed_goes_on_with_its_jobs(sample: Path, tmp_path: Path) -> None:
    """Else every restart of the service loses the jobs that ran, or what they had done."""
    here = _run(sample, tmp_path / "here")
    with embedded(tmp_path / "service") as service:
        job = service.client.start({"dataset": (sample / "train").as_uri(), **REQUEST})["job"]
        _wait_until_compressing(service, job)
        service.stop("api", signal.SIGKILL)
    with embedded(tmp_path / "service") as service:
        status = service.client.wait(job, timeout_s=120)
        assert status["images"] == {"listed": 48, "done": 48, "failed": 0}
        assert digests(service.client.report(job)) == digests(here)
        assert [record["id"] for record in service.client.jobs("succeeded")] == [job]


@pytest.mark.alone
def test_a_service_ends_when_it_is_asked_to_and_leaves_no_process(sample: Path, tmp_path: Path) -> None:
    """Else a deployment waits for its grace period each time, and workers pile up."""
    with embedded(tmp_path / "service") as service:
        process = service.processes["api"]
        job = service.client.start({"dataset": (sample / "train").as_uri(), **REQUEST})["job"]
        _wait_until_compressing(service, job)
        started_at = time.monotonic()
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)
        assert time.monotonic() - started_at < 10
        deadline = time.monotonic() + 10
        while group_lives(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_cancelled_job_lets_others_work_and_goes_on_at_once_when_it_is_retried(sample: Path, tmp_path: Path) -> None:
    """Else a cancel comes too late, or what it stopped is waited for, for two minutes."""
    here = _run(sample, tmp_path / "here")
    with embedded(tmp_path / "service", KEEPMORE_PROCESSES="1") as service:
        client, dataset = service.client, (sample / "train").as_uri()
        at_once = client.start({"dataset": dataset, "distances": [7, 9]})["job"]
        assert client.cancel(at_once)["state"] == "cancelled"
        job = client.start({"dataset": dataset, **REQUEST})["job"]
        _wait_until_compressing(service, job)
        client.cancel(job)
        other = client.start({"dataset": (sample / "test").as_uri(), "distances": [25], "effort": 1})["job"]
        client.wait(other, timeout_s=30)
        client.retry(job)
        client.wait(job, timeout_s=60)
        assert digests(client.report(job)) == digests(here)
        assert client.job(at_once)["state"] == "cancelled"
        assert (tmp_path / "service" / "store" / "work" / at_once).exists()
        assert not list((tmp_path / "service" / "store" / "work" / at_once).glob("parts/*"))


def test_a_run_from_s3_to_s3_keeps_the_same_images(sample: Path, tmp_path: Path, s3: S3Server) -> None:
    """Else where images and objects lie changes what is kept."""
    here = _run(sample, tmp_path / "here")
    client = Minio(s3.url.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    for file in (sample / "train").rglob("*.jpg"):
        client.fput_object(s3.bucket, f"run/{file.relative_to(sample / 'train')}", str(file))
    environment = os.environ | {
        "KEEPMORE_S3_ENDPOINT": s3.url,
        "KEEPMORE_S3_ACCESS_KEY": s3.access_key,
        "KEEPMORE_S3_SECRET_KEY": s3.secret_key,
    }

    def keepmore(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "keepmore"), *words, "--store", f"s3://{s3.bucket}/run-store"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)

    done = keepmore("run", f"s3://{s3.bucket}/run", *WORDS, "--json")
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert digests(there) == digests(here)
    assert there["index"] == here["index"]
    check = keepmore("verify", f"{there['job']}/10")
    assert check.returncode == 0, check.stdout + check.stderr
    assert "all there and unchanged" in check.stdout
    inside = keepmore("run", f"s3://{s3.bucket}/", "--distances", "4")
    assert inside.returncode == 2
    assert "lies in the dataset" in inside.stderr
