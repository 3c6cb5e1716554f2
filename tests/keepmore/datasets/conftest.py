"""A web server, and an S3 server that takes files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepmore.net.access import Access
from keepmore.net.s3 import Bucket
from tests.keepmore.datasets.remote import Upload
from tests.servers import S3Server, WebServer, web


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[WebServer]:
    """A web server over tmp_path."""
    with web(tmp_path) as server:
        yield server


@pytest.fixture
def access(s3: S3Server) -> Access:
    return Access((s3.endpoint,))


@pytest.fixture
def upload(s3: S3Server) -> Upload:
    """Puts a file, or a folder with all that is in it, into the bucket, and gives its URI."""

    def put(path: Path) -> str:
        bucket = Bucket(s3.endpoint, s3.bucket)
        root = f"data/{secrets.token_hex(8)}/{path.name}"
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                bucket.put(root + str(file)[len(str(path)) :], file.read_bytes())
        return f"s3://{s3.bucket}/{root}"

    return put
