"""Crashes, interruptions, full disks: whatever happens, the job can go on and ends with the same digests."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keepmore.jobs.job import JobRepository, State
from keepmore.jobs.stage import stage
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from tests.conftest import Command, digests, installed_command
from tests.service import group_lives

Ran = Callable[..., dict[str, Any]]
Undisturbed = tuple[dict[str, Any], Path]  # the report of a job that nothing happened to, and its store

WORDS = ["--distances", "0,2,10", "--budget", "as:10*0.5", "--holdout", "0.2"]


def _start(words: list[str], store: Path) -> subprocess.Popen[str]:
    # A shell that runs the tests in the background has them, and what they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [str(Path(sys.executable).with_name("keepmore")), *words, "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the command and its workers alike, as the kernel or a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _only_job(store: Path) -> str:
    return next(FolderStore(store).keys(layout.jobs_prefix())).removeprefix("jobs/").removesuffix(".json")


def _stage(store: Path) -> str | None:
    """Of the one job; None once all of it is done."""
    folder = FolderStore(store)
    return stage(JobRepository(folder).get(_only_job(store)), folder)


def _files(store: Path) -> int:
    """How far a job is, for as long as nobody has asked it: all that it does is files."""
    return sum(len(files) for _, _, files in os.walk(store))


def _kill_at(files: int, words: list[str], store: Path) -> None:
    """Start the command, and kill it once its job is accepted and so many files are there, or it has ended."""
    process = _start(words, store)
    while (_files(store) < files or not list(store.glob("jobs/*.json"))) and process.poll() is None:
        time.sleep(0.005)
    _kill(process)


@pytest.fixture(scope="module")
def undisturbed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    done = installed_command(store)("run", str(sample / "train"), *WORDS, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), store


@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.long)])
def test_killed_at_random_moments_a_job_ends_with_the_same_digests(
    ran: Ran, sample: Path, tmp_path: Path, undisturbed: Undisturbed, kills: int
) -> None:
    """Else a crash loses images, or leaves a half-written object that a manifest then points at."""
    expected, whole = undisturbed
    draw = random.Random(20)
    stages: list[str] = []
    for number in range(2 * kills):
        store = tmp_path / f"killed-{number}"
        # One in each part of the job, from when it is accepted on: before that, the caller asks again.
        share = 0.95 * (len(stages) + draw.random()) / kills
        _kill_at(int(share * _files(whole)), ["run", str(sample / "train"), *WORDS], store)
        now = _stage(store)
        if now is None:
            continue  # it was done when the kill came
        stages.append(now)
        job = _only_job(store)
        resumed = ran("resume", job, store=store)
        assert digests(resumed) == digests(expected), f"kill {number}, {now}"
        assert resumed["index"] == expected["index"]
        assert JobRepository(FolderStore(store)).get(job).state is State.SUCCEEDED
        if len(stages) == kills:
            break
    assert len(stages) == kills, "so many hit a job that was not finished"
    assert "compress" in stages


def test_a_job_killed_again_and_again_still_ends(
    ran: Ran, sample: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Else a job on a machine that is often taken away never gets further."""
    expected, whole = undisturbed
    store = tmp_path / "store"
    words = ["run", str(sample / "train"), *WORDS]
    for share in (0.1, 0.3, 0.5, 0.7):
        _kill_at(int(share * _files(whole)), words, store)
        assert _stage(store) is not None, "it was done when the kill came"
        words = ["resume", _only_job(store)]
    ended = ran(*words)
    assert ended["index"]["listed"] == 48
    assert digests(ended) == digests(expected)


@pytest.mark.alone
def test_ctrl_c_stops_at_once_and_prints_how_to_go_on(keepmore: Command, sample: Path, tmp_path: Path) -> None:
    """Else stopping a long job takes minutes, or costs what it has done."""
    process = _start(["run", str(sample / "train"), "--distances", "0,2,4,6,8,10,15,20"], tmp_path / "store")
    while not list((tmp_path / "store").glob("work/*/listing.json")):
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    started_at = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - started_at < 5
    assert process.returncode == 130
    assert "Traceback" not in err
    resume = next(line for line in err.splitlines() if "stopped; nothing is lost" in line).split("keepmore resume ")[1]
    assert keepmore("resume", resume.split()[0]).returncode == 0


@pytest.mark.alone
def test_a_job_that_is_cancelled_from_elsewhere_stops_and_can_go_on(
    keepmore: Command, ran: Ran, sample: Path, tmp_path: Path
) -> None:
    """Else the only way to stop a job is to find its process."""
    process = _start(["run", str(sample / "train"), "--distances", "0,2,4,6,8,10,15,20"], tmp_path / "store")
    while not list((tmp_path / "store").glob("work/*/listing.json")):
        time.sleep(0.05)
    job = _only_job(tmp_path / "store")
    assert keepmore("cancel", job).returncode == 0
    started_at = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - started_at < 10
    assert process.returncode == 1
    assert "was cancelled" in err
    assert f"keepmore resume {job}" in err
    assert ran("show", job)["state"] == State.CANCELLED
    assert ran("resume", job)["index"]["compressed"] == 48


def test_workers_end_with_their_parent(sample: Path, tmp_path: Path) -> None:
    """Else every crash of the command leaves processes that use the machine for ever."""
    process = _start(["run", str(sample / "train"), "--distances", "0,2,4,6,8,10"], tmp_path / "store")
    while not list((tmp_path / "store").glob("work/*/listing.json")):
        time.sleep(0.05)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not group_lives(process.pid)


def test_a_worker_that_dies_costs_a_retry_and_nothing_else(
    sample: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Else the kernel's out-of-memory killer ends a job of a million images."""
    store = tmp_path / "store"
    process = _start(["run", str(sample / "train"), *WORDS, "--json"], store)
    while not list(store.glob("work/*/listing.json")):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert digests(json.loads(out)) == digests(undisturbed[0])


@contextmanager
def _small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_is_a_clear_error_and_the_job_goes_on_with_room(
    keepmore: Command, ran: Ran, sample: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Else a full disk leaves half-written objects, or a job that cannot be finished."""
    with _small_disk(tmp_path / "disk", megabytes=1):
        store = tmp_path / "disk" / "store"
        done = keepmore("run", str(sample / "train"), *WORDS, store=store)
        assert done.returncode == 1
        assert "is full" in done.stderr
        assert "free some space" in done.stderr
        assert "Traceback" not in done.stderr
        job = _only_job(store)
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        resumed = ran("resume", job, store=store)
    assert digests(resumed) == digests(undisturbed[0])


def test_a_store_that_cannot_be_written_is_a_clear_error(keepmore: Command, sample: Path, tmp_path: Path) -> None:
    """Else a read-only disk ends in a traceback, and the user does not know what to fix."""
    with _small_disk(tmp_path / "disk", megabytes=64):
        store = tmp_path / "disk" / "store"
        assert keepmore("run", str(sample / "test"), "--distances", "4", store=store).returncode == 0
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        done = keepmore("run", str(sample / "train"), "--distances", "4", store=store)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "file").touch()
    in_the_way = keepmore("run", str(sample / "test"), "--distances", "4", store=tmp_path / "file" / "store")
    assert in_the_way.returncode == 1
    assert "cannot be written" in in_the_way.stderr


def test_a_dataset_that_changes_under_a_job_stops_it_and_put_back_it_goes_on(
    keepmore: Command, ran: Ran, sample: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    """Else a manifest mixes two states of a dataset, and nobody notices."""
    dataset, store = tmp_path / "dataset", tmp_path / "store"
    shutil.copytree(sample / "train", dataset)
    process = _start(["run", str(dataset), *WORDS], store)
    while not list(store.glob("work/*/listing.json")):
        time.sleep(0.02)
    _kill(process)
    job = _only_job(store)
    victim = max(dataset.rglob("*.jpg"))
    original = victim.read_bytes()
    for change in (lambda: victim.write_bytes(original[:-1]), victim.unlink):
        change()
        done = keepmore("resume", job)
        assert done.returncode == 1
        assert victim.name in done.stderr
        assert "when it was listed" in done.stderr or "was listed and is gone" in done.stderr
        assert "Traceback" not in done.stderr
        record = JobRepository(FolderStore(store)).get(job)
        assert record.state is State.FAILED
        assert record.error is not None
        assert record.error["code"] == "dataset_changed"
    victim.write_bytes(original)
    assert digests(ran("resume", job)) == digests(undisturbed[0])
