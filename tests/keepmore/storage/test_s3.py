"""The store in a bucket: what goes wrong between machines. (What every store does: `tests/contracts/test_store.py`.)"""

from __future__ import annotations

import io
import pickle
import random
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from minio import Minio

from keepmore.errors import EndpointMissing, InvalidUri, StoreError, StoreFull, StoreUnavailable, StoreUnwritable
from keepmore.net.access import Access, S3Endpoint
from keepmore.net.s3 import Bucket
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore
from keepmore.storage.open import open_store
from keepmore.storage.s3 import WHOLE_BYTES, S3Store
from tests.proxy import Proxy
from tests.servers import S3Server, answering

CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", b"x"),
    "put_all": lambda store: store.put_all({"a": b"", "b": b""}),
    "create": lambda store: store.create("a", b"x"),
    "exists": lambda store: store.exists("a"),
    "delete": lambda store: store.delete("a"),
    "keys": lambda store: list(store.keys("")),
    "keys_in": lambda store: store.keys_in("a"),
    "open": lambda store: store.open("a"),
    "writer": lambda store: _write(store, "a", b"x"),
}


def _write(store: Store, key: str, data: bytes) -> None:
    with store.writer(key) as file:
        file.write(data)


@pytest.fixture
def proxied_store(s3: S3Server, proxy: Proxy) -> S3Store:
    """A store behind the proxy, with few enough retries for a test."""
    endpoint = replace(s3.endpoint, url=proxy.url)
    return S3Store(endpoint, s3.bucket, f"through/{secrets.token_hex(8)}", retries=6)


@pytest.fixture
def s3_store(s3: S3Server) -> S3Store:
    return S3Store(s3.endpoint, s3.bucket, f"store/{secrets.token_hex(8)}")


def test_a_place_says_which_store_it_is(s3: S3Server, tmp_path: Path) -> None:
    """Else a job's store is looked for in the wrong place."""
    access = Access((s3.endpoint,))
    name = secrets.token_hex(8)
    store = open_store(f"s3://{s3.bucket}/teams/{name}/", access)
    store.put("a", b"1")
    assert store.uri("a") == f"s3://{s3.bucket}/teams/{name}/a"
    assert open_store(f"s3://{s3.bucket}", access).get(f"teams/{name}/a") == b"1"
    assert isinstance(open_store(str(tmp_path / "store"), access), FolderStore)
    with pytest.raises(EndpointMissing, match=r"bucket photos; set KEEPMORE_S3_ENDPOINT"):
        open_store("s3://photos/x", Access())
    with pytest.raises(InvalidUri, match="names no bucket"):
        open_store("s3:///x", access)


def test_a_uri_holds_the_key_as_it_is(s3_store: S3Store) -> None:
    """Else a retention system deletes, or spares, another object than the manifest names."""
    assert s3_store.uri("a b/ü#1%20.jxl").endswith("/a b/ü#1%20.jxl")


def test_making_a_store_connects_to_nothing() -> None:
    """Else a service cannot start before its storage."""
    store = S3Store(S3Endpoint("http://127.0.0.1:9", "k", "secretsecret"), "bucket", retries=0)
    assert store.uri("a") == "s3://bucket/a"
    with pytest.raises(StoreUnavailable):
        store.get("a")


def test_a_store_travels_to_other_processes(s3_store: S3Store) -> None:
    """Else worker processes cannot be handed a store, or share one connection and read each other's answers."""
    s3_store.put("a", b"1")
    assert pickle.loads(pickle.dumps(s3_store)).get("a") == b"1"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_wrong_credentials_are_named(s3: S3Server, call: Callable[[Store], object]) -> None:
    """Else a typing error in a secret looks like an empty store, or repeats the secret in a log."""
    wrong = S3Endpoint(s3.url, s3.access_key, "not-the-secret")
    with pytest.raises(StoreUnwritable, match=rf"s3://{s3.bucket}.*{s3.url}.*KEEPMORE_S3_SECRET_KEY") as excinfo:
        call(S3Store(wrong, s3.bucket))
    assert "not-the-secret" not in str(excinfo.value)
    assert excinfo.value.retryable
    assert not excinfo.value.transient


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_missing_bucket_is_named(s3: S3Server, call: Callable[[Store], object]) -> None:
    """Else a misspelt bucket is an empty store, or a new bucket that nobody looks after."""
    with pytest.raises(StoreUnwritable, match=rf"s3://no-such-bucket at {s3.url}: there is no such bucket"):
        call(S3Store(s3.endpoint, "no-such-bucket"))


def test_damaged_bytes_are_not_handed_out(s3: S3Server, s3_store: S3Store) -> None:
    """Else a broken disk behind the store puts other images into a subset."""
    s3_store.put("a", b"what was written")
    name = s3_store.uri("a").removeprefix(f"s3://{s3.bucket}/")
    client = Minio(s3.url.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False, region="us-east-1")
    checksum = Bucket(s3.endpoint, s3.bucket).head(name).sha256
    assert checksum
    client.put_object(s3.bucket, name, io.BytesIO(b"what was altered"), 16, metadata={"sha256": checksum})
    for read in (s3_store.get, s3_store.open):
        with pytest.raises(StoreError, match=r": a is damaged.*SHA-256.*delete that object"):
            read("a")


def test_a_large_object_is_read_in_part(proxy: Proxy, proxied_store: S3Store) -> None:
    """Else looking at the end of an index of a million images means fetching all of it."""
    data = random.Random(0).randbytes(20_000_000)
    _write(proxied_store, "big", data)
    before = proxy.received_bytes
    with proxied_store.open("big") as file:
        for place in (len(data) - 100, 5_000_000, 5_100_000, 12_345_678):
            file.seek(place)
            assert file.read(100) == data[place : place + 100]
    assert proxy.received_bytes - before < 2_000_000


def test_an_outage_is_waited_for(proxy: Proxy, proxied_store: S3Store) -> None:
    """Else every restart of the storage server ends all jobs."""
    proxied_store.put("a", b"1")
    for number, call in enumerate(CALLS.values()):
        if number % 3 == 0:
            proxy.drop_for(0.8)
        call(proxied_store)
        proxied_store.put("a", b"1")


def test_an_outage_that_does_not_end_is_named(s3: S3Server, proxy: Proxy) -> None:
    """Else a job hangs for ever, or its message does not say which machine is missing."""
    endpoint = replace(s3.endpoint, url=proxy.url)
    store = S3Store(endpoint, s3.bucket, retries=1)
    assert not store.exists("a")
    proxy.drop()
    for call in CALLS.values():
        with pytest.raises(StoreUnavailable, match=rf"s3://{s3.bucket} at {proxy.url} cannot be reached") as excinfo:
            call(store)
        assert excinfo.value.transient


@pytest.mark.parametrize("size", [WHOLE_BYTES // 2, WHOLE_BYTES * 2])
def test_a_broken_connection_is_taken_up_again(proxy: Proxy, proxied_store: S3Store, size: int) -> None:
    """Else one lost connection in an hour of reading fails a step."""
    data = random.Random(1).randbytes(size)
    _write(proxied_store, "big", data)
    proxy.drop()
    proxy.restore()
    proxy.cuts = [100_000, 3_000_000, 50]
    with proxied_store.open("big") as file:
        assert file.read() == data
    assert not proxy.cuts


def test_a_lost_answer_to_create_is_no_conflict(proxy: Proxy, proxied_store: S3Store) -> None:
    """Else a client whose job was made is told that the job belongs to somebody else."""
    assert proxied_store.create("first", b"1")
    proxy.drop()
    proxy.restore()
    proxy.cuts = [0]
    assert proxied_store.create("jobs/1", b"mine")
    assert not proxy.cuts
    assert not proxied_store.create("jobs/1", b"other")


def test_an_object_that_is_replaced_while_it_is_read(s3_store: S3Store) -> None:
    """Else a reader gets the head of one index and the tail of another."""
    _write(s3_store, "big", bytes(WHOLE_BYTES + 1))
    with s3_store.open("big") as file:
        file.read(10)
        _write(s3_store, "big", b"\1" * (WHOLE_BYTES + 1))
        file.seek(WHOLE_BYTES - 10)
        with pytest.raises(StoreError, match="big was replaced while it was read"):
            file.read()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (507, "XMinioStorageFull", StoreFull),
        (400, "XMinioAdminBucketQuotaExceeded", StoreFull),
        (403, "QuotaExceeded", StoreFull),
        (507, "", StoreFull),
        (503, "SlowDown", StoreUnavailable),
        (502, "", StoreUnavailable),
        (409, "ConditionalRequestConflict", StoreUnavailable),
        (403, "AccessDenied", StoreUnwritable),
    ],
)
def test_what_a_server_answers_becomes_what_a_user_can_do(status: int, code: str, kind: type[StoreError]) -> None:
    """Else a full disk reads like a defect, and a passing fault ends a job."""
    body = f"<Error><Code>{code}</Code><Message>why</Message></Error>".encode() if code else b""
    answers = {"HEAD": (200, b""), "PUT": (status, body)}
    with answering(answers) as url:
        store = S3Store(S3Endpoint(url, "k", "secretsecret"), "bucket", retries=1)
        for call in (CALLS["put"], CALLS["create"], CALLS["writer"]):
            with pytest.raises(kind, match=rf"s3://bucket at {url}.*(resume|job)"):
                call(store)
