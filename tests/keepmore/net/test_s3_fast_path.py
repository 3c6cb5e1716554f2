"""The short way to small objects: that it is taken, that it leads to the same place, and that it may be closed."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmore.net.access import S3Endpoint
from keepmore.net.s3 import Bucket
from keepmore.net.s3_fast_path import SMALL_BYTES, ObstoreFastPath
from tests.proxy import Proxy
from tests.servers import S3Server, serving

SHA256 = "0" * 64
ODD = "aZ0-_. %+#?&=~:;,@!$'()*[]{}|^`\"<>é猫"


def _key() -> str:
    return f"shortcut/{secrets.token_hex(8)}/a b+ü%20.jxl"


def test_an_object_is_the_one_that_the_long_way_writes(s3: S3Server) -> None:
    """Else what was written the short way has another name, or no checksum to be verified with."""
    bucket, key = Bucket(s3.endpoint, s3.bucket), _key()
    assert ObstoreFastPath(s3.endpoint, s3.bucket).put(key, b"bytes", SHA256)
    data, found = bucket.read(key)
    assert (data, found.sha256, found.size) == (b"bytes", SHA256, 5)
    assert [one.key for one in bucket.list(key)] == [key]
    assert ObstoreFastPath(s3.endpoint, s3.bucket).keys(key.rpartition("/")[0] + "/") == frozenset({key})


def test_any_name_is_kept(s3: S3Server) -> None:
    """Else an object with an unusual letter in its name lies where no manifest looks for it."""
    bucket, fast_path = Bucket(s3.endpoint, s3.bucket), ObstoreFastPath(s3.endpoint, s3.bucket)

    @given(st.lists(st.text(ODD, min_size=1, max_size=5).filter(lambda part: part.strip(".")), min_size=1, max_size=3))
    @settings(max_examples=40)
    def check(parts: list[str]) -> None:
        folder = f"shortcut/{secrets.token_hex(8)}/"
        key = folder + "/".join(parts)
        assert fast_path.put(key, key.encode(), SHA256)
        assert bucket.read(key)[0] == key.encode()
        assert fast_path.keys(folder) == frozenset({key})

    check()


class _Server(BaseHTTPRequestHandler):
    """Keeps no bytes, but who put them, and the checksum that came with them unless it forgets."""

    protocol_version = "HTTP/1.1"
    agents: ClassVar[list[str]]
    kept: ClassVar[dict[str, str]]
    forgets: ClassVar[bool]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.agents.append(re.split("[ /]", self.headers["User-Agent"])[0])
        if not self.forgets:
            self.kept[self.path] = self.headers["x-amz-meta-sha256"]
        self._answer(200, {"ETag": '"1"'})

    def do_HEAD(self) -> None:
        found = self.kept.get(self.path)
        self._answer(200 if found else 404, {"ETag": '"1"', "x-amz-meta-sha256": found} if found else {})

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def _agents(forgets: bool) -> list[str]:
    """Who wrote to a server that was given two objects."""
    agents: list[str] = []
    with serving(type("Handler", (_Server,), {"agents": agents, "kept": {}, "forgets": forgets})) as url:
        bucket = Bucket(S3Endpoint(url, "k", "secretsecret"), "bucket")
        bucket.put("a", b"1")
        bucket.put("b", b"2")
    return agents


def test_a_bucket_takes_the_short_way(caplog: pytest.LogCaptureFixture) -> None:
    """Else an eighth of the images a second is lost, and nobody notices."""
    assert _agents(forgets=False) == ["object_store", "object_store"]
    assert not caplog.records


def test_a_way_that_leads_elsewhere_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """Else images are written where no manifest looks for them, and the originals are deleted."""
    assert _agents(forgets=True) == ["object_store", "MinIO", "MinIO"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is closed: a was written" in caplog.text


def test_variables_for_other_programs_do_not_lead_astray(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else images go to another server, or through a proxy, because a shell had a variable set for something else."""
    nowhere = "http://127.0.0.1:9"
    wrong = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "AWS_ENDPOINT", "AWS_ENDPOINT_URL"), nowhere)
    wrong |= dict.fromkeys(("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "another")
    wrong |= dict.fromkeys(("AWS_SKIP_SIGNATURE", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_S3_EXPRESS"), "true")
    wrong |= {"AWS_BUCKET": "another", "AWS_REGION": "eu-nowhere-1"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    assert ObstoreFastPath(s3.endpoint, s3.bucket).put(_key(), b"bytes", SHA256)


def test_where_it_does_not_lead_it_declines(s3: S3Server, proxy: Proxy) -> None:
    """Else an address that it cannot sign for, a name that it would change or a large object goes astray or is dear."""
    endpoint = replace(s3.endpoint, url=proxy.url)
    for key in ("a//b", "a/../b", "a/", "/a"):
        assert not ObstoreFastPath(endpoint, s3.bucket).put(key, b"", SHA256)
    assert not ObstoreFastPath(endpoint, s3.bucket).put(_key(), bytes(SMALL_BYTES + 1), SHA256)
    assert not ObstoreFastPath(replace(endpoint, access_key=""), s3.bucket).put(_key(), b"", SHA256)
    assert proxy.connections == 0
    assert ObstoreFastPath(endpoint, s3.bucket).put(_key(), bytes(SMALL_BYTES), SHA256)
    assert proxy.connections == 1


def test_amazon_is_left_to_minio(caplog: pytest.LogCaptureFixture) -> None:
    """Else each of its regions is asked in a way that was never tried, and refuses."""
    caplog.set_level(logging.INFO, "keepmore.net.s3_fast_path")
    amazon = S3Endpoint("https://s3.eu-west-1.amazonaws.com", "k", "secretsecret", "eu-west-1")
    assert not ObstoreFastPath(amazon, "bucket").put("a", b"", SHA256)
    assert not caplog.records


def test_a_server_that_is_down_or_refuses_is_no_error_yet(s3: S3Server) -> None:
    """Else the other client never gets to try again, or to say what is wrong."""
    wrong = (replace(s3.endpoint, url="http://127.0.0.1:9"), replace(s3.endpoint, secret_key="not-the-secret"))
    for endpoint in wrong:
        assert not ObstoreFastPath(endpoint, s3.bucket).put(_key(), b"", SHA256)
        assert ObstoreFastPath(endpoint, s3.bucket).keys("a/") is None


def test_after_a_failure_it_is_left_alone_for_a_while(s3: S3Server, proxy: Proxy) -> None:
    """Else every object of an outage waits for two clients, one after the other."""
    fast_path = ObstoreFastPath(replace(s3.endpoint, url=proxy.url), s3.bucket)
    assert fast_path.put(_key(), b"", SHA256)
    proxy.drop()
    assert not fast_path.put(_key(), b"", SHA256)
    proxy.restore()
    before = proxy.connections
    assert not fast_path.put(_key(), b"", SHA256)
    assert proxy.connections == before


def test_a_forked_process_does_without(s3: S3Server) -> None:
    """Else a worker that its parent forked after a first write hangs in the next one for ever."""
    key = _key()
    assert ObstoreFastPath(s3.endpoint, s3.bucket).put(key, b"parent", SHA256)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        Bucket(s3.endpoint, s3.bucket).put(key, b"child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert Bucket(s3.endpoint, s3.bucket).read(key)[0] == b"child"
