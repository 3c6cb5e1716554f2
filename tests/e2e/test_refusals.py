"""What the installed command refuses: with status 2, a message that names the cause, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.e2e.jobs import until
from tests.tools import BIN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere"], "there is nothing at"),
        (["run", ".", "--distances", "0,99"], "distances: 99 is not possible"),
        (["run", ".", "--budget", "5XB"], "'5XB' is not a size"),
        (["run", ".", "--budget", "as:7"], "use one of the job's distances: 0, 2, 4, 6, 8, 10"),
        (["run", ".", "--train", "mobilenet_v2"], "there is nothing to test on"),
        (["run", ".", "--train", "x", "--weights", "none.pth"], "training.weights: there is no file none.pth"),
        (["run", ".", "--train", "x", "--method", "magic"], "'magic' is unknown; use probe or finetune"),
        (["run", ".", "--train", "x", "--tune", "batch=8"], "nothing to tune in a probe"),
        (
            ["run", ".", "--train", "x", "--method", "finetune", "--tune", "lr=1"],
            "'lr' is not a field; use one of batch",
        ),
        (["run", ".", "--train", "x", "--epochs", "0"], "training.epochs: 0 is not possible"),
        (["run", ".", "--train", "x", "--test-distances", "4,99"], "training.test_distances: 99 is not possible"),
        (["run", ".", "--holdout", "2"], "evaluation.holdout: 2.0"),
        (["run", ".", "--evaluate", "nowhere"], "there is nothing at"),
        (["run", "s3://bucket/x"], "no S3 endpoint is known for the bucket bucket"),
        (["resume", "20200101-000000"], "no such job"),
        (["run"], "Missing argument"),
        (["run", ".", "--budget", ""], "'' is not a size"),
        (["run", ".", "--evaluate", ""], "give one of `dataset`"),
        (["errors", "20200101-000000"], "no such job"),
    ],
)
def test_wrong_requests_exit_with_two_and_make_no_job(
    keepmore: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    """Else a typing error costs a traceback, or leaves a job that can never finish."""
    done = keepmore(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("jobs/*"))


def test_a_store_inside_the_dataset_is_refused(keepmore: Command, sample: Path, tmp_path: Path) -> None:
    """Else the next job finds the encoded images of this one as a class of their own."""
    shutil.copytree(sample / "test", tmp_path / "d")
    done = keepmore("run", str(tmp_path / "d"), "--distances", "4", store=tmp_path / "d" / "store")
    assert done.returncode == 2
    assert "name places that are apart" in done.stderr
    assert not (tmp_path / "d" / "store").exists()


def test_sample_refuses_a_folder_in_use(keepmore: Command, tmp_path: Path) -> None:
    """Else drawn images mix with a user's own."""
    (tmp_path / "mine.jpg").write_bytes(b"precious")
    done = keepmore("sample", str(tmp_path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (tmp_path / "mine.jpg").read_bytes() == b"precious"


def test_an_end_that_an_orchestrator_asks_for_leaves_nothing(keepmore: Command, tmp_path: Path) -> None:
    """Else a pod that is moved leaves half a dataset, and processes that nobody ends."""
    command = [str(BIN / "keepmore"), "sample", str(tmp_path / "sample")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as drawing:
        until(lambda: bool(list(tmp_path.rglob("*.jpg"))))
        drawing.terminate()
        assert drawing.wait(30) == 130
    assert list(tmp_path.iterdir()) == []
    until(lambda: not _is_running(drawing.pid))


def _is_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_record_that_is_a_link_to_nothing_ends_no_list(keepmore: Command, tmp_path: Path) -> None:
    """Else a person with such a link sees none of their jobs."""
    (tmp_path / "store" / "jobs").mkdir(parents=True)
    (tmp_path / "store" / "jobs" / "abc.json").symlink_to(tmp_path / "nothing")
    done = keepmore("show", store=tmp_path / "store")
    assert (done.returncode, done.stdout.strip()[:11]) == (0, "no jobs yet")
