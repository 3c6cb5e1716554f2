"""Prefixes of an S3 bucket as datasets: the same as a folder on a disk."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmore.datasets.address import absolute_uri
from keepmore.net.access import Access
from keepmore.net.s3 import Bucket
from tests.keepmore.datasets.remote import Upload
from tests.keepmore.datasets.remote import list_dataset as _list
from tests.keepmore.datasets.remote import read_images as _read
from tests.keepmore.datasets.remote import write_tree as _tree
from tests.servers import S3Server

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
