"""Real parts for the tests: photograph-like JPEGs, stores, the `keepmore` command, and the shared photographs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.storage.folder import FolderStore
from keepmore.synthetic.dataset import write_sample
from tests.proxy import Proxy, proxy_for
from tests.servers import S3Server, seaweed, valkey

pytest_plugins = ["tests.parallel"]

# A slow machine is no failure; and in CI the same examples are drawn every time.
settings.register_profile("keepmore", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("keepmore")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn dataset: 8 classes of 6 images to keep from (`train`) and 3 to test on (`test`)."""
    root = tmp_path_factory.mktemp("sample") / "images"
    write_sample(root, train_per_class=6, test_per_class=3)
    return root


@pytest.fixture(scope="session")
def jpeg(sample: Path) -> bytes:
    """One photograph-like JPEG of about 400 pixels."""
    return min(sample.rglob("*.jpg")).read_bytes()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder() as decoder:
        yield decoder


def installed_command(default_store: Path) -> Command:
    """Runs the installed `keepmore` command; `store` None leaves --store away, as for commands that take none."""

    def run(*words: str, store: Path | None = default_store, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        place = ["--store", str(store)] if store and words[0] != "sample" and "--server" not in words else []
        command = [str(Path(sys.executable).with_name("keepmore")), *words, *place]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def keepmore(tmp_path: Path) -> Command:
    return installed_command(tmp_path / "store")


@pytest.fixture
def ran(keepmore: Command) -> Callable[..., dict[str, Any]]:
    """As `keepmore`, with --json, for a command that must end well; gives its answer."""

    def run(*words: str, **options: Any) -> dict[str, Any]:
        done = keepmore(*words, "--json", **options)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with an empty bucket; tests share it, each below a prefix of its own."""
    with seaweed(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """What stands before that server and breaks connections."""
    with proxy_for(s3.url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server that speaks Redis; tests share it, each with names of its own."""
    with valkey(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="session")
def clothing() -> Path:
    return _shared("clothing10")


@pytest.fixture(scope="session")
def some_clothing(clothing: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each class every sixth photograph to keep from, 378 in all, and every third to test on, 200."""
    root = tmp_path_factory.mktemp("some") / "clothing"
    for part, step in ("train", 6), ("test", 3):
        for folder in (clothing / part).iterdir():
            (root / part / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[::step]:
                shutil.copy(file, root / part / folder.name)
    return root


@pytest.fixture(scope="session")
def hostile() -> Path:
    return _shared("hostile")


def _shared(name: str) -> Path:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the shared {name} files are not beside this project")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium is installed")
    return path


def tar_file(path: Path, members: dict[str, bytes]) -> Path:
    """A tar at `path` with these members."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def digests(report: Mapping[str, Any]) -> dict[str, str]:
    """Manifest digests by distance, of a report or a subset."""
    rows = report["distances"]
    pairs = rows.items() if isinstance(rows, dict) else ((row["distance"], row) for row in rows)
    return {name: row["digest"] for name, row in pairs}
