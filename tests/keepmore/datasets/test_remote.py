"""Datasets on other machines: the same images as from a disk, and what goes wrong on the way."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmore.datasets.address import absolute_uri, check_dataset
from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.datasets.member import Member, member_of
from keepmore.datasets.reader import SourceReader
from keepmore.errors import (
    DatasetChanged,
    DatasetNotFound,
    DatasetUnreadable,
    EndpointMissing,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    SourceTooLarge,
    UnreadableImage,
    UnsupportedDataset,
)
from keepmore.net.access import Access, S3Endpoint
from keepmore.net.s3 import Bucket
from tests.conftest import tar_file
from tests.proxy import proxy_for
from tests.servers import S3Server, WebServer, web

NAMES = [
    "cat/1.jpg",
    "cat/2 b.JPEG",
    "cat-big/1.png",
    "cat.x/deep/er/1.webp",
    "a.jpg",
    "odd/a#b?c%20d+e&f.jpg",
    "odd/späße 猫.jpg",
    "odd/q'uo\"te<>.jpg",
    "odd/%2e%41.jpg",
]

Upload = Callable[[Path], str]


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


def _tree(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"bytes of " + name.encode())
    return root


def _table(path: Path, rows: list[tuple[str, str]]) -> Path:
    if path.suffix == ".csv":
        path.write_text("uri,label\n" + "".join(f'"{uri}",{label}\n' for uri, label in rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"uri": uri, "label": label}) + "\n" for uri, label in rows))
    else:
        pq.write_table(pa.table({"uri": [uri for uri, _ in rows], "label": [label for _, label in rows]}), path)
    return path


def _write_embedded(path: Path, count: int, size: int = 50) -> list[bytes]:
    data = [random.Random(n).randbytes(size) for n in range(count)]
    images = [{"bytes": one, "path": f"{n}.jpg"} for n, one in enumerate(data)]
    pq.write_table(pa.table({"image": images, "label": ["a"] * count}), path, row_group_size=10, compression=None)
    return data


def _list(uri: str, access: Access) -> tuple[list[Entry], Skipped]:
    skipped = Skipped()
    return list(list_images(uri, skipped, access)), skipped


def _read(entries: list[Entry], access: Access) -> list[bytes]:
    with SourceReader(1_000_000, access) as reader:
        return [reader.read(entry.uri, entry.size, entry.version) for entry in entries]


def test_a_folder_and_its_copy_in_s3_are_one_dataset(tmp_path: Path, upload: Upload, access: Access) -> None:
    """Else moving a dataset to S3 changes paths, labels or order, and with them every digest."""
    root = _tree(tmp_path / "d", [*NAMES, "cat/.hidden.jpg", ".git/1.jpg", ".git/2/3.jpg", "cat/readme.txt"])
    local, skipped = _list(absolute_uri(str(root)), access)
    uri = upload(root)
    remote, skipped_there = _list(uri, access)
    assert [(e.path, e.label, e.size) for e in remote] == [(e.path, e.label, e.size) for e in local]
    assert skipped_there == skipped
    assert _read(remote, access) == _read(local, access) == [b"bytes of " + e.path.encode() for e in remote]
    assert [e.uri for e in remote] == [f"{uri}/{e.path}" for e in remote], "the key as it is"
    assert _list(uri + "/", access)[0] == remote


@given(names=st.lists(st.text("ab-. 0", min_size=1, max_size=3).map(str.strip), min_size=1, max_size=8, unique=True))
@settings(max_examples=15)
def test_classes_come_in_the_order_of_a_disk(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, names: list[str]
) -> None:
    """Else a class "cat-big" beside "cat" makes the index of a dataset fall out of order."""
    root = tmp_path_factory.mktemp("order") / secrets.token_hex(4)
    names = [name for name in names if name and not name.startswith(".")] or ["a"]
    _tree(root, [f"{name}/1.jpg" for name in names] + [f"{name}.jpg" for name in names])
    bucket, prefix = Bucket(s3.endpoint, s3.bucket), f"order/{secrets.token_hex(8)}"
    access = Access((s3.endpoint,))
    local, _ = _list(root.as_uri(), access)
    for entry in local:
        bucket.put(f"{prefix}/{entry.path}", b"")
    assert [e.path for e in _list(f"s3://{s3.bucket}/{prefix}", access)[0]] == [e.path for e in local]


def test_folder_markers_are_no_images(s3: S3Server, access: Access) -> None:
    """Else a prefix made in a web console holds images of zero bytes."""
    prefix = f"markers/{secrets.token_hex(8)}"
    bucket = Bucket(s3.endpoint, s3.bucket)
    for key in ("/", "/a/", "/a/1.jpg"):
        bucket.put(prefix + key, b"")
    entries, skipped = _list(f"s3://{s3.bucket}/{prefix}", access)
    assert [e.path for e in entries] == ["a/1.jpg"]
    assert set(skipped) <= {"folder marker"}


@pytest.mark.parametrize("where", ["s3", "http"])
def test_a_tar_elsewhere(tmp_path: Path, where: str, web_server: WebServer, upload: Upload, access: Access) -> None:
    """Else a packed dataset has to be copied to a disk first."""
    members = {f"{n % 3}/{n}.jpg": random.Random(n).randbytes(n * 1000) for n in range(40)}
    members |= {"odd/a#b&path=%20.jpg": b"odd", "notes.txt": b""}
    local = tar_file(tmp_path / "d.tar", members)
    uri = upload(local) if where == "s3" else f"{web_server.url}/d.tar"
    entries, skipped = _list(uri, access)
    expected, _ = _list(local.as_uri(), access)
    assert [(e.path, e.label, e.size) for e in entries] == [(e.path, e.label, e.size) for e in expected]
    assert skipped == {"not an image": 1}
    assert _read(entries, access) == [members[e.path] for e in entries]
    assert all(e.uri.startswith(f"{uri}#offset=") for e in entries)


@pytest.mark.parametrize("where", ["s3", "http"])
def test_embedded_images_elsewhere(
    tmp_path: Path, where: str, web_server: WebServer, upload: Upload, access: Access
) -> None:
    """Else a dataset from the hub has to be copied to a disk first."""
    data = _write_embedded(tmp_path / "d.parquet", 40)
    uri = upload(tmp_path / "d.parquet") if where == "s3" else f"{web_server.url}/d.parquet"
    entries, _ = _list(uri, access)
    assert [e.path for e in entries[:2]] == ["000000000-0.jpg", "000000001-1.jpg"]
    assert _read(entries, access) == data
    assert _read([entries[35], entries[3]], access) == [data[35], data[3]]


@pytest.mark.parametrize("where", ["s3", "http", "http without ranges"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_elsewhere(tmp_path: Path, kind: str, where: str, upload: Upload, access: Access) -> None:
    """Else a catalogue on the web cannot be used, or its relative names are looked up in the wrong place."""
    folder = tmp_path / "d"
    _tree(folder, ["images/1.jpg", "images/a#b?c%20d.jpg", "up.jpg"])
    (tmp_path / "here.jpg").write_bytes(b"here")
    absolute = (tmp_path / "here.jpg").as_uri()
    names = ["1.jpg", "./a#b?c%20d.jpg", "../up.jpg", absolute]
    _table(folder / f"images/t.{kind}", [(name, "x") for name in names])
    with web(folder, ranges=where == "http") as web_server:
        uri = f"{upload(folder)}/images/t.{kind}" if where == "s3" else f"{web_server.url}/images/t.{kind}"
        if kind == "parquet" and where == "http without ranges":
            with pytest.raises(UnsupportedDataset, match=r"HTTP ranges\); copy it to a disk or to S3"):
                _list(uri, access)
            return
        entries, _ = _list(uri, access)
        assert [(e.path, e.label) for e in entries] == [(name, "x") for name in sorted(names)]
        contents = dict(zip([e.path for e in entries], _read(entries, access), strict=True))
    files = ["images/1.jpg", "images/a#b?c%20d.jpg", "up.jpg"]
    assert [contents[name] for name in names] == [b"bytes of " + name.encode() for name in files] + [b"here"]


def test_a_tar_needs_a_server_with_ranges(tmp_path: Path) -> None:
    """Else reading one image of a tar means fetching all of it, every time."""
    tar_file(tmp_path / "d.tar", {"a/1.jpg": b"1"})
    with web(tmp_path, ranges=False) as web_server, pytest.raises(UnsupportedDataset, match="HTTP ranges"):
        _list(f"{web_server.url}/d.tar", Access())


def test_a_table_on_the_web_reads_no_files_of_this_machine(
    tmp_path: Path, web_server: WebServer, access: Access
) -> None:
    """Else whoever writes a table reads /etc/passwd, or the bucket of another team."""
    (tmp_path / "1.jpg").write_bytes(b"picture")
    _table(tmp_path / "t.csv", [("file:///etc/passwd", "a"), ("s3://keepmore/x.jpg", "a"), ("1.jpg", "a")])
    narrow = replace(access, allowed=(web_server.url,))
    entries, _ = _list(f"{web_server.url}/t.csv", narrow)
    with SourceReader(1000, narrow) as reader:
        assert [reader.read(entry.uri) for entry in entries if entry.path == "1.jpg"] == [b"picture"]
        for entry in entries:
            if entry.path != "1.jpg":
                with pytest.raises(SourceNotAllowed):
                    reader.read(entry.uri)
    with pytest.raises(SourceNotAllowed):
        check_dataset((tmp_path / "t.csv").as_uri(), narrow)


def test_a_remote_dataset_that_changed_is_noticed(
    tmp_path: Path, s3: S3Server, web_server: WebServer, upload: Upload, access: Access
) -> None:
    """Else offsets point at other bytes, and rows describe images that were never listed."""
    folder = upload(_tree(tmp_path / "d", ["a/1.jpg", "a/2.jpg"]))
    bucket, key = Bucket(s3.endpoint, s3.bucket), folder.removeprefix(f"s3://{s3.bucket}/")
    entries, _ = _list(folder, access)
    bucket.put(f"{key}/a/1.jpg", b"bytes of A/1.jpg")
    bucket.delete(f"{key}/a/2.jpg")
    for entry, message in zip(entries, ("was modified after it was listed", "is gone"), strict=True):
        with pytest.raises(DatasetChanged, match=f"{message}.*resume the job"):
            _read([entry], access)

    tar_file(tmp_path / "d.tar", {"a/1.jpg": b"1", "a/2.jpg": bytes(300_000)})
    in_s3, on_web = upload(tmp_path / "d.tar"), f"{web_server.url}/d.tar"
    for uri in (in_s3, on_web):
        first, second = _list(uri, access)[0]
        with SourceReader(1_000_000, access) as reader:
            assert reader.read(first.uri, first.size, first.version) == b"1"
            tar_file(tmp_path / "d.tar", {"a/1.jpg": b"2", "a/2.jpg": b"\1" * 300_000})
            bucket.put(in_s3.removeprefix(f"s3://{s3.bucket}/"), (tmp_path / "d.tar").read_bytes())
            with pytest.raises(DatasetChanged, match="was modified after it was listed"):
                reader.read(second.uri, second.size, second.version)
        with pytest.raises(DatasetChanged, match="was modified after it was listed"):
            _read([first], access)
        tar_file(tmp_path / "d.tar", {"a/1.jpg": b"1", "a/2.jpg": bytes(300_000)})
    (tmp_path / "d.tar").unlink()
    with pytest.raises(DatasetChanged, match="is gone"):
        _read([first], access)


def test_what_is_wrong_with_one_image_elsewhere(
    web_server: WebServer, s3: S3Server, tmp_path: Path, access: Access
) -> None:
    """Else one row of a table that points at nothing ends the job."""
    (tmp_path / "big.jpg").write_bytes(bytes(2_000_000))
    with SourceReader(1000, access) as reader:
        for uri in (f"{web_server.url}/none.jpg", f"{web_server.url}/status/410", f"s3://{s3.bucket}/none.jpg"):
            with pytest.raises(SourceNotFound, match="no such file"):
                reader.read(uri)
        with pytest.raises(SourceForbidden, match="403"):
            reader.read(f"{web_server.url}/status/403")
        with pytest.raises(UnreadableImage, match="418"):
            reader.read(f"{web_server.url}/status/418")
        with pytest.raises(UnreadableImage, match="more than 5 redirects"):
            reader.read(f"{web_server.url}/loop")
        with pytest.raises(SourceTooLarge, match="2,000,000 bytes is over the limit of 1,000"):
            reader.read(f"{web_server.url}/big.jpg")
        with pytest.raises(UnreadableImage, match="ftp:// cannot be read"):
            reader.read("ftp://host/x.jpg")
        with pytest.raises(UnreadableImage, match="credentials") as excinfo:
            reader.read("https://me:hunter2@host/x.jpg")
    assert "hunter2" not in str(excinfo.value)
    wrong = Access((S3Endpoint(s3.url, s3.access_key, "not-the-secret"),))
    with SourceReader(1000, wrong) as reader, pytest.raises(SourceForbidden, match="access is denied"):
        reader.read(f"s3://{s3.bucket}/none.jpg")
    with pytest.raises(DatasetUnreadable, match="access is denied") as denial_info:
        _list(f"s3://{s3.bucket}/data", wrong)
    assert denial_info.value.retryable


def test_an_address_that_names_nothing(s3: S3Server, web_server: WebServer, access: Access) -> None:
    """Else a typing error ends as an empty job that passes for a success."""
    for uri in (
        f"s3://{s3.bucket}/none",
        f"s3://{s3.bucket}/none.tar",
        "s3://no-such-bucket/x",
        f"{web_server.url}/none.csv",
    ):
        with pytest.raises(DatasetNotFound, match="there is nothing at this address"):
            _list(uri, access)
    with pytest.raises(UnsupportedDataset, match=r"a \.zip cannot be read; use a folder.*s3://bucket/prefix"):
        check_dataset("https://h.example/x.zip", access)
    with pytest.raises(EndpointMissing, match="KEEPMORE_S3_ENDPOINT"):
        check_dataset("s3://bucket/x", Access())
    check_dataset("https://never.connected.to/x.tar?signature=1", Access())


def test_a_passing_fault_of_a_server_is_waited_for(tmp_path: Path, web_server: WebServer) -> None:
    """Else one overloaded minute of a server fails a thousand images."""
    (tmp_path / "1.jpg").write_bytes(b"picture")
    web_server.failures = [503, 500]
    with SourceReader(1000) as reader:
        assert reader.read(f"{web_server.url}/1.jpg") == b"picture"


@pytest.mark.parametrize("where", ["s3", "http"])
def test_a_lost_connection_fails_the_step_and_no_image(
    tmp_path: Path, where: str, s3: S3Server, web_server: WebServer
) -> None:
    """Else an outage writes a thousand sound images into the errors list, and they are never kept."""
    tar_file(tmp_path / "d.tar", {f"{n}.jpg": random.Random(n).randbytes(200_000) for n in range(10)})
    _write_embedded(tmp_path / "d.parquet", 40, 40_000)
    Bucket(s3.endpoint, s3.bucket).put("lost/d.tar", (tmp_path / "d.tar").read_bytes())
    Bucket(s3.endpoint, s3.bucket).put("lost/d.parquet", (tmp_path / "d.parquet").read_bytes())
    with proxy_for(s3.url if where == "s3" else web_server.url) as proxy:
        access = Access((replace(s3.endpoint, url=proxy.url),), retries=2)
        root = f"s3://{s3.bucket}/lost" if where == "s3" else proxy.url
        for name in ("d.tar", "d.parquet"):
            entries, _ = _list(f"{root}/{name}", access)
            first, last = entries[0], entries[-1]
            with SourceReader(1_000_000, access) as reader:
                reader.read(first.uri, first.size, first.version)
                proxy.drop()
                proxy.restore()
                proxy.cuts = [0, 10_000, 50]
                assert reader.read(last.uri, last.size, last.version)
                assert not proxy.cuts
                proxy.drop()
                with pytest.raises(DatasetUnreadable, match="cannot be read") as excinfo:
                    reader.read(first.uri, first.size, first.version)
                assert excinfo.value.transient
            with pytest.raises(DatasetUnreadable, match=f"dataset {root}/{name} cannot be read"):
                _list(f"{root}/{name}", access)
            proxy.restore()


def test_reading_in_order_takes_few_requests(tmp_path: Path, web_server: WebServer) -> None:
    """Else every image of a tar costs a round trip, and a job over the web takes days."""
    tar_file(tmp_path / "d.tar", {f"{n:03d}.jpg": random.Random(n).randbytes(50_000) for n in range(200)})
    entries, _ = _list(f"{web_server.url}/d.tar", Access())
    assert len(web_server.requests) < 20
    web_server.requests.clear()
    web_server.sent_bytes = 0
    assert len(_read(entries, Access())) == 200
    assert len(web_server.requests) < 20
    assert web_server.sent_bytes < 12_000_000
    _let_finish(web_server)
    web_server.sent_bytes = 0
    _read(entries[150:151], Access())
    assert web_server.sent_bytes < 400_000


def _let_finish(web_server: WebServer) -> None:
    """Wait until the server has noticed that nobody reads on."""
    sent_bytes = -1
    while sent_bytes != web_server.sent_bytes:
        sent_bytes = web_server.sent_bytes
        time.sleep(0.3)


@pytest.mark.parametrize(
    ("uri", "member"),
    [
        ("s3://b/a#b?c.jpg", Member("s3://b/a#b?c.jpg")),
        ("s3://b/x#y.tar#offset=512&length=7&path=a%23b.jpg", Member("s3://b/x#y.tar", 512, 7)),
        ("s3://b/x.jpg#offset=512&length=7&path=a", Member("s3://b/x.jpg#offset=512&length=7&path=a")),
        ("s3://b/x.tar#offset=-1&length=7&path=a", Member("s3://b/x.tar#offset=-1&length=7&path=a")),
        ("file:///x.parquet#row=3", Member("file:///x.parquet", row=3)),
        ("https://h/x.tar?sig=1#offset=512&length=7&path=a", Member("https://h/x.tar?sig=1", 512, 7)),
    ],
)
def test_only_the_end_of_a_uri_names_a_part_of_an_archive(uri: str, member: Member) -> None:
    """Else an object whose key holds "#" is reported missing."""
    assert member_of(uri) == member
