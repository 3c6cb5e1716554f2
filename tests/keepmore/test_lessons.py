"""What the steps of a training fetch for the trainer. (How it trains: `tests/services/trainer`.)"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from keepmore.access import Access
from keepmore.errors import KeepmoreError, SourceNotAllowed, WeightsUnavailable
from keepmore.lessons import weights_file
from keepmore.scratch import Scratch
from tests.servers import S3Server


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(str(tmp_path / "scratch"))


def _put(s3: S3Server, name: str, data: bytes) -> str:
    from minio import Minio

    client = Minio(s3.url.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    client.put_object(s3.bucket, name, io.BytesIO(data), len(data))
    return f"s3://{s3.bucket}/{name}"


def test_weights_are_fetched_from_a_bucket(s3: S3Server, scratch: Scratch) -> None:
    """Else weights of one's own can be used on one machine alone; or those that were replaced are used for ever."""
    access = Access((s3.endpoint,))
    uri = _put(s3, "weights/vit small.safetensors", b"first")
    file = weights_file(uri, access, scratch)
    assert (file.name, file.read_bytes()) == ("vit small.safetensors", b"first")
    _put(s3, "weights/vit small.safetensors", b"second")
    assert weights_file(uri, access, scratch).read_bytes() == b"second"
    assert [entry.name for entry in file.parent.iterdir()] == [file.name], "nothing half fetched is left"


def test_weights_that_are_not_there_are_named(s3: S3Server, scratch: Scratch) -> None:
    """Else a training fails of an error about images."""
    with pytest.raises(WeightsUnavailable, match=r"training.weights: s3://.*none.pt cannot be read"):
        weights_file(f"s3://{s3.bucket}/none.pt", Access((s3.endpoint,)), scratch)


def test_what_may_not_be_read_is_not_fetched(s3: S3Server, scratch: Scratch) -> None:
    """Else a record in the store that somebody altered reaches what its service may not read."""
    uri = _put(s3, "private/w.pt", b"secret")
    with pytest.raises((SourceNotAllowed, WeightsUnavailable)) as caught:
        weights_file(uri, Access((s3.endpoint,), allowed=("s3://other",)), scratch)
    assert isinstance(caught.value, KeepmoreError)
    assert "KEEPMORE_ALLOWED_SOURCES" in str(caught.value)
