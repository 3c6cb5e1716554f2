"""One open service with a finished job, and one with keys, for all tests of the API: none of them changes the job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.service import Service, embedded


@dataclass(frozen=True)
class Reply:
    """What came back: status, headers with names in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Reply]


def asking(service: Service) -> Ask:
    """Sends a request as any client would, nothing retried: a dict as JSON, bytes as they are, others in chunks."""
    http = urllib3.PoolManager()

    def ask(method: str, path: str, body: Any = None, **headers: str) -> Reply:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        all_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            all_headers.setdefault("Content-Type", "application/json")
        answer = http.request(
            method, service.url + path, body=data, headers=all_headers, retries=False, timeout=120, redirect=False
        )
        return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.data)

    return ask


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with embedded(tmp_path_factory.mktemp("api"), KEEPMORE_WEBHOOK_SECRET="") as service:
        yield service


@pytest.fixture(scope="session")
def ask(service: Service) -> Ask:
    return asking(service)


@pytest.fixture(scope="session")
def job(service: Service, sample: Path) -> str:
    """A finished job with labels, three distances and a budget."""
    body = {"dataset": (sample / "train").as_uri(), "distances": [0, 4, 10], "budget": {"as_distance": 10}}
    job_id = service.client.start({**body, "evaluation": {"holdout": 0.2}})["job"]
    service.client.wait(job_id, timeout_s=120)
    return job_id


@pytest.fixture(scope="session")
def waiting(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job that failed before it had an index."""
    job_id = service.client.start({"dataset": (tmp_path_factory.mktemp("empty")).as_uri(), "distances": [4]})["job"]
    service.client._ask("GET", f"/v1/jobs/{job_id}", query={"wait": "60"})
    return job_id
