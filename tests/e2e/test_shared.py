"""The main job over the shared photographs and hostile files, where these lie beside the project."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command, digests, installed_command

Ran = Callable[..., dict[str, Any]]


def test_hostile_files_are_all_accounted_for(ran: Ran, keepmore: Command, hostile: Path, tmp_path: Path) -> None:
    """Else one file from the wild crashes, hangs or silently drops out of a job."""
    words = ["run", str(hostile), "--distances", "0,4"]
    first = ran(*words, timeout=300)
    files = [path for path in hostile.rglob("*") if path.is_file()]
    counts = first["index"]
    assert counts["listed"] + sum(first["skipped"].values()) == len(files)
    assert counts["listed"] == counts["compressed"] + counts["failed"]
    assert counts["compressed"] == 100
    assert len(first["errors"]) == counts["failed"] == sum(counts["errors"].values())
    assert "unexpected" not in counts["errors"]
    second = keepmore(*words, store=tmp_path / "second")
    assert second.returncode == 0
    assert "Traceback" not in second.stderr + second.stdout
    assert digests(ran(*words, store=tmp_path / "third")) == digests(first)
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    assert megabytes < 3500, "the largest process stays within the limit that decoders have"


@dataclass(frozen=True)
class Experiment:
    """The report of the published experiment on photographs (some, or the whole dataset), and the command over its
    store."""

    report: dict[str, Any]
    photographs: Path
    run: Command
    is_whole: bool


@pytest.fixture(scope="module", params=["some", pytest.param("whole", marks=pytest.mark.long)])
def experiment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    some = request.param == "some"
    photographs: Path = request.getfixturevalue("some_clothing" if some else "clothing")
    run = installed_command(tmp_path_factory.mktemp("experiment") / "store")
    done = run(
        "run", str(photographs / "train"), "--distances", "0,4,10" if some else "0,2,4,6,8,10", "--budget", "as:10",
        "--evaluate", str(photographs / "test"), "--train", "mobilenet_v2", "--json", timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Experiment(json.loads(done.stdout), photographs, run, is_whole=not some)


def test_the_published_experiment_on_real_photographs(experiment: Experiment) -> None:
    """Else the claim of the project does not hold on real photographs: more images, more accuracy."""
    report, photographs = experiment.report, experiment.photographs
    rows = report["distances"]
    images = [row["images"] for row in rows]
    train, test = (len(list((photographs / part).rglob("*.jpg"))) for part in ("train", "test"))
    assert images == sorted(images)
    assert images[-1] == report["index"]["pool"] == train
    assert rows[-1]["factor"] > 3
    assert rows[-1]["top1"] > rows[0]["top1"] + 0.01, "measured: 3.3 points more on all of them, 10 on some"
    assert all(row["bytes"] <= report["budget_bytes"] for row in rows)
    assert all(row["test_images"] == test for row in rows)
    assert report["index"]["failed"] == 0


def test_advice_on_real_photographs(experiment: Experiment, tmp_path: Path) -> None:
    """Else where to store real photographs is found out only by training on all of them, or not within a coffee."""
    job: str = experiment.report["job"]
    page = tmp_path / "advice.html"
    pilots = () if experiment.is_whole else ("--distances", "0,4,10", "--seeds", "4")  # the default takes minutes
    done = experiment.run("advise", job, "--budgets", "1MB,as:10", "--page", str(page), *pilots, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert "1,000,000 bytes: store" in done.stdout
    assert done.stdout.count("top-1 predicted") == 2
    assert "store at distance" in page.read_text()
