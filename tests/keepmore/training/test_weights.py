"""Weights from anywhere: fetched whole, once, and only from where that is allowed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from minio import Minio

from keepmore.errors import KeepmoreError, SourceNotAllowed, StoreFull, WeightsUnavailable
from keepmore.net.access import EVERYTHING, Access
from keepmore.storage.scratch import Scratch
from keepmore.training.weights import weights_file
from tests.servers import S3Server, web


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path / "scratch"))


def _files(scratch: Scratch) -> list[str]:
    return sorted(file.name for file in scratch.root.rglob("*") if file.is_file() and not file.name.startswith("."))


def _put(s3: S3Server, name: str, data: bytes) -> str:
    client = Minio(s3.url.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    client.put_object(s3.bucket, name, io.BytesIO(data), len(data))
    return f"s3://{s3.bucket}/{name}"


@pytest.mark.parametrize(
    ("uri", "error", "why"),
    [
        ("https://example.org/weights/", WeightsUnavailable, "names no file; give one such as model.safetensors"),
        ("https://example.org/..", WeightsUnavailable, "names no file"),
        ("ftp://example.org/model.pt", KeepmoreError, "ftp://"),
        ("s3://secret/model.pt", SourceNotAllowed, "s3://secret/model.pt"),
        ("file:///none/model.pt", SourceNotAllowed, "file:///none/model.pt"),
    ],
)
def test_weights_that_may_not_or_cannot_be_read(
    scratch: Scratch, uri: str, error: type[KeepmoreError], why: str
) -> None:
    """Else a caller's training reads what the operator did not allow, or ends as a defect."""
    access = Access(allowed=("https://example.org",))
    with pytest.raises(error) as excinfo, weights_file(uri, access, scratch):
        pass
    assert why in excinfo.value.message
    assert _files(scratch) == []


def test_weights_on_this_machine_are_read_where_they_are(scratch: Scratch, tmp_path: Path) -> None:
    """Else every training copies them, or one path works and the other does not."""
    (tmp_path / "model.pt").write_bytes(b"weights")
    for address in (str(tmp_path / "model.pt"), (tmp_path / "model.pt").as_uri()):
        with weights_file(address, EVERYTHING, scratch) as file:
            assert file == tmp_path / "model.pt"
    missing = (tmp_path / "none.pt").as_uri()
    with pytest.raises(WeightsUnavailable, match=r"none\.pt"), weights_file(missing, EVERYTHING, scratch):
        pass
    assert _files(scratch) == []


def test_weights_are_fetched_from_a_bucket(s3: S3Server, scratch: Scratch) -> None:
    """Else weights of one's own can be used on one machine alone; or those that were replaced are used for ever."""
    access = Access((s3.endpoint,))
    uri = _put(s3, "weights/vit small.safetensors", b"first" * 1_000_000)
    with weights_file(uri, access, scratch) as file:
        assert (file.name, file.read_bytes()) == ("vit small.safetensors", b"first" * 1_000_000)
    _put(s3, "weights/vit small.safetensors", b"second")
    with weights_file(uri, access, scratch) as file:
        assert file.read_bytes() == b"second"


def test_weights_are_fetched_once(scratch: Scratch, tmp_path: Path) -> None:
    """Else every run of a training, and every try of a step, fetches gigabytes again."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "model.pt").write_bytes(b"weights" * 100_000)
    with web(tmp_path / "web") as config:
        for _ in range(3):
            with weights_file(f"{config.url}/model.pt", EVERYTHING, scratch) as file:
                assert file.read_bytes() == b"weights" * 100_000
        assert config.sent_bytes < 700_100
    assert _files(scratch) == ["model.pt"]


def test_weights_without_a_version_are_fetched_each_time(scratch: Scratch, tmp_path: Path) -> None:
    """Else a server that does not say whether they changed has the old ones used for ever."""
    (tmp_path / "web").mkdir()
    with web(tmp_path / "web", ranges=False) as config:
        for data in (b"old", b"new"):
            (tmp_path / "web" / "model.pt").write_bytes(data)
            with weights_file(f"{config.url}/model.pt", EVERYTHING, scratch) as file:
                assert file.read_bytes() == data
    assert _files(scratch) == []


def test_weights_that_do_not_fit_the_scratch_disk_say_so(scratch: Scratch, s3: S3Server) -> None:
    """Else the limit that somebody set is not kept, or a training ends as a defect."""
    uri = _put(s3, "weights/large.pt", b"x" * 10_000)
    small = Scratch(scratch.folder, 5_000)
    with pytest.raises(StoreFull, match="with KEEPMORE_SCRATCH"), weights_file(uri, Access((s3.endpoint,)), small):
        pass
    assert _files(scratch) == []


def test_weights_that_are_not_there_are_named(s3: S3Server, scratch: Scratch) -> None:
    """Else a training fails of an error about images."""
    uri = f"s3://{s3.bucket}/none.pt"
    with (
        pytest.raises(WeightsUnavailable, match=r"training.weights: s3://.*none.pt cannot be read"),
        weights_file(uri, Access((s3.endpoint,)), scratch),
    ):
        pass


def test_what_may_not_be_read_is_not_fetched(s3: S3Server, scratch: Scratch) -> None:
    """Else a record in the store that somebody altered reaches what its service may not read."""
    uri = _put(s3, "private/w.pt", b"secret")
    access = Access((s3.endpoint,), allowed=("s3://other",))
    with pytest.raises(SourceNotAllowed, match="KEEPMORE_ALLOWED_SOURCES"), weights_file(uri, access, scratch):
        pass
