"""Polling: what it costs callers and the service."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from keepmore.jobs.requests import RequestRef
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import RequestKind
from keepmore_api.polling import result_of
from tests.services.api.conftest import Ask


def test_polling_costs_nothing_while_nothing_changes(ask: Ask, job: str) -> None:
    """Else a thousand pollers of a job of a month move gigabytes."""
    reply = ask("GET", f"/v1/jobs/{job}")
    again = ask("GET", f"/v1/jobs/{job}", If_None_Match=reply.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == reply.headers["etag"]
    started_at = time.monotonic()
    assert ask("GET", f"/v1/jobs/{job}?wait=2", If_None_Match=reply.headers["etag"]).status == 304
    assert time.monotonic() - started_at > 1.5
    assert ask("GET", f"/v1/jobs/{job}", If_None_Match='"another"').status == 200
    assert ask("GET", f"/v1/jobs/{job}", If_None_Match=f'"another", W/{reply.headers["etag"]}').status == 304


class _Counted(FolderStore):
    """Counts what is read."""

    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


@pytest.mark.alone
def test_who_waits_long_for_an_answer_looks_less_often(tmp_path: Path) -> None:
    """Else forty waiting callers keep the store from the workers; or an answer comes long after it is there."""
    store, ref = _Counted(tmp_path), RequestRef(RequestKind.ESTIMATE, "a", "a")
    started_at = time.monotonic()
    assert asyncio.run(result_of(store, ref, 2)) is None
    assert 2 <= time.monotonic() - started_at < 2.5
    assert store.reads <= 2 * 12
    threading.Timer(1, store.put, (ref.result_key, b"{}")).start()
    started_at = time.monotonic()
    assert asyncio.run(result_of(store, ref, 10)) == {}
    assert time.monotonic() - started_at < 2


@pytest.mark.alone
def test_polling_does_not_wait_for_long_polls(ask: Ask, job: str) -> None:
    """Else a hundred waiting pipelines block the hundred-and-first."""
    etag = ask("GET", f"/v1/jobs/{job}").headers["etag"]
    waiting = [
        threading.Thread(target=ask, args=("GET", f"/v1/jobs/{job}?wait=3"), kwargs={"If_None_Match": etag})
        for _ in range(100)
    ]
    for thread in waiting:
        thread.start()
    started_at = time.monotonic()
    assert ask("GET", f"/v1/jobs/{job}").status == 200
    assert time.monotonic() - started_at < 2
    for thread in waiting:
        thread.join()
