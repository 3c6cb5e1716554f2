"""What a POST costs before the job's first step is under way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from keepmore.config import RuntimeConfig
from keepmore.jobs.step import Kind, Step
from keepmore.net import uri as uris
from keepmore.scheduling.memory_tracker import InMemoryStepTracker
from keepmore.scheduling.process_pool import LocalQueue
from keepmore.scheduling.scheduler import Scheduler
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore_api.app import create_app
from keepmore_api.auth import Gate
from keepmore_api.backend.base import Backend

MOST_CALLS = 6
COUNTED = {"get", "put", "put_all", "create", "exists", "delete", "keys", "open", "writer"}


class CountingStore(FolderStore):
    """Notes the calls."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in COUNTED:
            self.calls.append(name)
        return super().__getattribute__(name)


class WatchedQueue(LocalQueue):
    """Notes how many calls of the store there were before each step was submitted."""

    def __init__(self, config: RuntimeConfig, store: CountingStore) -> None:
        super().__init__(config, 1)
        self.store = store
        self.submitted: list[tuple[Step, list[str]]] = []

    def submit(self, steps: Iterable[Step]) -> None:
        batch = list(steps)
        self.submitted += [(step, list(self.store.calls)) for step in batch]
        super().submit(batch)


class CountingBackend:
    """A service in one process whose pool is not running, so that nobody but the POST calls the store."""

    def __init__(self, root: Path) -> None:
        self.config = RuntimeConfig(str(root))
        self.store = CountingStore(root)
        self.tracker = InMemoryStepTracker(1)
        self.queue = WatchedQueue(self.config, self.store)
        self.scheduler = Scheduler(self.store, self.tracker, self.queue)

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def check(self) -> None:
        return None

    def depths(self) -> dict[str, int]:
        return self.queue.depths()


def _post(backend: Backend, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """POST a job as a server hands it to the application; gives the answer."""
    app = create_app(backend, Gate(()), 100_000, local_only=False)
    data = json.dumps(body).encode()
    all_headers = {"content-type": "application/json", "content-length": str(len(data)), "host": "localhost", **headers}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/v1/jobs", "raw_path": b"/v1/jobs", "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2), "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
    }  # fmt: skip
    messages, parts = iter([{"type": "http.request", "body": data, "more_body": False}]), []

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        parts.append(message)

    asyncio.run(app(scope, receive, send))
    assert parts[0]["status"] == 202, parts
    answer: dict[str, Any] = json.loads(b"".join(part.get("body", b"") for part in parts[1:]))
    return answer


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "abc"}], ids=["plain", "with a key"])
def test_a_post_asks_the_store_little_before_its_listing_is_under_way(headers: dict[str, str], tmp_path: Path) -> None:
    """Else thousands of POSTs an hour cost more requests to S3 than their jobs, and every first step waits."""
    backend = CountingBackend(tmp_path)
    job = _post(backend, {"dataset": "s3://photos/train", "distances": [0, 10]}, **headers)["job"]
    ((step, calls),) = backend.queue.submitted
    assert step == Step(job, Kind.LIST)
    assert len(calls) <= MOST_CALLS, calls


def test_a_post_takes_its_uri_apart_once(tmp_path: Path) -> None:
    """Else each check of a request reads the same text again, and two of them may read it differently."""
    backend = CountingBackend(tmp_path)
    uris.parse(str(tmp_path.as_uri()))  # the store's own
    before = uris.parse.cache_info().misses
    _post(backend, {"dataset": f"s3://photos/{tmp_path.name}", "distances": [0, 10]})
    prefixes = 7  # places of the store that a dataset may not lie in
    assert uris.parse.cache_info().misses - before <= 1 + prefixes


class ReconciledStore(CountingStore):
    """Another process looks after all jobs just before a job's record is written."""

    reconcile: Callable[[], None]

    def create(self, key: str, data: bytes) -> bool:
        if key.startswith("jobs/"):
            self.reconcile()
        return super().create(key, data)


def test_a_job_is_looked_after_whatever_its_post_races_with(tmp_path: Path) -> None:
    """Else a job whose mark the reconciler took for a leftover stays accepted for ever once a message is lost."""
    backend = CountingBackend(tmp_path)
    backend.store = store = ReconciledStore(tmp_path)
    scheduler = Scheduler(store, backend.tracker, backend.queue)
    store.reconcile = scheduler.reconcile
    backend.scheduler = scheduler
    job = _post(backend, {"dataset": "s3://photos/train", "distances": [0, 10]})["job"]
    assert store.exists(layout.active(job))
