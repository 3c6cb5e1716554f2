"""Jobs that several files of tests give a service, and what its workers' logs say of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from keepmore.client import Client
from tests.conftest import Command
from tests.service import Service

REQUEST = {
    "distances": [0, 4, 10],
    "budget": {"as_distance": 10, "fraction": 0.5},
    "evaluation": {"holdout": 0.2},
}
WORDS = ["--distances", "0,4,10", "--budget", "as:10*0.5", "--holdout", "0.2"]
MANY = list(range(2, 22))


def answer(command: Command, *words: str) -> dict[str, Any]:
    done = command(*words, "--json", timeout=550)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def wait_until_compressing(client: Client, job: str) -> None:
    """Wait until some images of a job are done, and some are not."""
    while True:
        status = client.job(job)
        assert status["state"] == "accepted", status
        if status["stage"] == "compress" and status["images"] and status["images"]["done"]:
            return
        time.sleep(0.05)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def starts(service: Service, worker: str, job: str) -> list[str]:
    return [record["step"] for record in records(service, worker, job) if record["message"] == "step begins"]


def ends(service: Service, worker: str, job: str) -> list[str]:
    ends = ("step done", "step abandoned: nobody waits for it")
    return [record["step"] for record in records(service, worker, job) if record["message"] in ends]


def records(service: Service, worker: str, job: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in service.log(worker).splitlines() if line.startswith("{")]
    return [record for record in records if record.get("job") == job]
