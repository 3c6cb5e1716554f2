"""Commands beside jobs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keepmore.storage.s3 import S3Store
from tests.servers import S3Server
from tests.tools import BIN

pytestmark = pytest.mark.slow


def _upload(s3: S3Server, folder: Path, place: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "KEEPMORE_S3_ENDPOINT": s3.url,
        "KEEPMORE_S3_ACCESS_KEY": s3.access_key,
        "KEEPMORE_S3_SECRET_KEY": s3.secret_key,
        "KEEPMORE_ALLOWED_SOURCES": "s3://,https://",  # as in a service's container
    }
    command = [str(BIN / "keepmore"), "upload", str(folder), place]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False)


def test_uploaded_images_are_the_same_under_the_same_paths(s3: S3Server, sample: Path) -> None:
    """Else a job over what was uploaded keeps other images than one over the folder."""
    process = _upload(s3, sample / "test", f"s3://{s3.bucket}/uploaded")
    assert process.returncode == 0, process.stderr
    store = S3Store(s3.endpoint, s3.bucket, "uploaded")
    files = {
        path.relative_to(sample / "test").as_posix(): path.read_bytes() for path in (sample / "test").rglob("*.jpg")
    }
    assert {key: store.get(key) for key in store.keys("")} == files
    assert f"{len(files)} images are in s3://{s3.bucket}/uploaded" in process.stderr


def test_what_cannot_be_uploaded_is_named(s3: S3Server, sample: Path, tmp_path: Path) -> None:
    """Else an empty prefix is noticed only by the job over it."""
    process = _upload(s3, tmp_path, f"s3://{s3.bucket}/nothing")
    assert (process.returncode, "holds no image" in process.stderr) == (2, True)
    process = _upload(s3, sample / "test", "elsewhere")
    assert (process.returncode, "name an S3 place" in process.stderr) == (2, True)
    process = _upload(s3, sample / "test", "s3://no-such-bucket/x")
    assert (process.returncode, "no-such-bucket" in process.stderr) == (1, True)


def test_a_name_that_is_not_utf8_is_uploaded(s3: S3Server, sample: Path, tmp_path: Path) -> None:
    """Else one such name ends the upload with a traceback."""
    photograph = next((sample / "test").rglob("*.jpg")).read_bytes()
    (tmp_path / os.fsdecode(b"a\xff.jpg")).write_bytes(photograph)
    process = _upload(s3, tmp_path, f"s3://{s3.bucket}/odd")
    assert process.returncode == 0, process.stderr
    store = S3Store(s3.endpoint, s3.bucket, "odd")
    assert [store.get(key) for key in store.keys("")] == [photograph]
