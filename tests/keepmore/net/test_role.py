"""Credentials that a cloud gives a process, by the protocol that containers ask it with."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from keepmore.errors import StoreError
from keepmore.net.access import S3Endpoint
from keepmore.storage.s3 import S3Store
from tests.servers import S3Server, serving


class Cloud:
    """Hands out credentials at `url` that are valid for `valid_s`; `requests`: how many there were."""

    def __init__(self, s3: S3Server) -> None:
        self.s3 = s3
        self.url = ""
        self.valid_s = 3600.0
        self.requests = 0
        self.refuses = False
        self.lock = threading.Lock()

    def answer(self) -> bytes:
        with self.lock:
            self.requests += 1
        until = datetime.now(UTC) + timedelta(seconds=self.valid_s)
        # The server takes no session's token that it did not give; minio sends one that is not empty.
        fields = {"AccessKeyId": self.s3.access_key, "SecretAccessKey": self.s3.secret_key, "Token": ""}
        return json.dumps(fields | {"Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()


@pytest.fixture
def cloud(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    fake = Cloud(s3)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = fake.answer()
            self.send_response(403 if fake.refuses else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            return None

    with serving(Handler) as url:
        fake.url = url
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
        yield fake


def _store(cloud: Cloud) -> S3Store:
    return S3Store(S3Endpoint(cloud.s3.url, "", "", role=True), cloud.s3.bucket, "role", retries=0)


def test_a_store_is_reached_with_the_credentials_of_a_role(cloud: Cloud) -> None:
    """Else every cluster needs a user with keys that never expire."""
    store = _store(cloud)
    store.put("jobs/a.json", b"{}")
    assert store.get("jobs/a.json") == b"{}"
    assert not store.create("jobs/a.json", b"other")
    assert list(store.keys("jobs/")) == ["jobs/a.json"]
    assert cloud.requests == 1


def test_credentials_that_expire_are_fetched_again(cloud: Cloud) -> None:
    """Else a worker stops after an hour."""
    cloud.valid_s = 0
    store = _store(cloud)
    store.put("jobs/b.json", b"1")
    store.put("jobs/b.json", b"2")
    assert cloud.requests > 1


def test_a_role_that_gives_nothing_is_named(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a pod without its role reports a bucket that is missing."""
    cloud.refuses = True
    with pytest.raises(StoreError, match="no credentials for a role"):
        _store(cloud).put("jobs/c.json", b"1")
