"""Datasets over S3 and HTTP alike: the same images as from a disk, and what goes wrong on the way."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keepmore.datasets.address import check_dataset
from keepmore.datasets.reader import SourceReader
from keepmore.errors import (
    DatasetChanged,
    DatasetNotFound,
    DatasetUnreadable,
    EndpointMissing,
    SourceForbidden,
    SourceNotFound,
    SourceTooLarge,
    UnreadableImage,
    UnsupportedDataset,
)
from keepmore.net.access import Access, S3Endpoint
from keepmore.net.s3 import Bucket
from tests.conftest import tar_file
from tests.keepmore.datasets.remote import Upload
from tests.keepmore.datasets.remote import list_dataset as _list
from tests.keepmore.datasets.remote import read_images as _read
from tests.keepmore.datasets.remote import write_table as _table
from tests.keepmore.datasets.remote import write_tree as _tree
from tests.proxy import proxy_for
from tests.servers import S3Server, WebServer, web


def _write_embedded(path: Path, count: int, size: int = 50) -> list[bytes]:
    data = [random.Random(n).randbytes(size) for n in range(count)]
    images = [{"bytes": one, "path": f"{n}.jpg"} for n, one in enumerate(data)]
    pq.write_table(pa.table({"image": images, "label": ["a"] * count}), path, row_group_size=10, compression=None)
    return data


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
