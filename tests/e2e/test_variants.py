"""A whole run whose distances vary, by the installed command over real images."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest

from keepmore.cli.main import cli
from keepmore.jobs.job import JobRepository
from keepmore.reporting.command import command
from keepmore.selection import manifest
from keepmore.spec.variants import Spread
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from tests.browser import open_page
from tests.conftest import Command, digests, installed_command

Ran = Callable[..., dict[str, Any]]

VARIANTS = ["0", "8", "spread-0.5-15", "fit-20"]
BUDGET = 300_000


@pytest.fixture(scope="module")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One finished job with two distances, a spread and a fit: every test reads it, none changes its own subset."""
    root = tmp_path_factory.mktemp("finished")
    run = installed_command(root / "store")
    done = run(
        "run", str(sample / "train"), "--distances", "0,8,spread:0.5-15,fit:20", "--budget", str(BUDGET),
        "--evaluate", str(sample / "test"), "--train", "mobilenet_v2", "--seeds", "2", "--steps", "30", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), root / "store"


def _rows(report: dict[str, Any], store: Path, variant: str) -> list[dict[str, Any]]:
    return list(manifest.rows(store / layout.manifest(report["job"], report["subset"], variant)))


def test_the_report_compares_rules_with_fixed_distances(finished: tuple[dict[str, Any], Path]) -> None:
    """Else the question that a user asks is answered in two reports, or by none."""
    report, store = finished
    rows = {row["distance"]: row for row in report["distances"]}
    assert list(rows) == VARIANTS
    for variant, row in rows.items():
        images = _rows(report, store, variant)
        assert (row["images"], row["bytes"]) == (len(images), sum(one["bytes"] for one in images))
        assert row["bytes"] <= BUDGET
        assert row["factor"] == row["images"] / rows["0"]["images"]
        assert row["interval"][0] <= row["top1"] <= row["interval"][1]
        assert (row["pool_bytes"] is None) is ("levels" in row) is (variant in VARIANTS[2:])
    assert rows["spread-0.5-15"]["images"] == 48
    assert rows["spread-0.5-15"]["bytes"] > 0.999 * BUDGET
    assert rows["fit-20"]["images"] == 20
    assert rows["fit-20"]["levels"]["distance"] > 0


def test_each_image_of_a_spread_says_its_distance(finished: tuple[dict[str, Any], Path]) -> None:
    """Else nobody can tell how an image was encoded, or finds its object."""
    report, store = finished
    rows = _rows(report, store, "spread-0.5-15")
    ladder = Spread(0.5, 15).ladder
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert {row["distance"] for row in rows} <= set(ladder)
    assert len({row["distance"] for row in rows}) > 4
    for row in rows:
        if row["encoding"] == "lossy":
            assert row["encoder_distance"] == pytest.approx(row["distance"], rel=1e-6)
            assert f"/lossy-{row['distance']:g}-e3-" in row["object_uri"]
    (levels,) = (row["levels"] for row in report["distances"] if row["distance"] == "spread-0.5-15")
    assert sum(levels["distances"].values()) == len(rows)
    assert levels["scale"] > 0


def test_a_fit_keeps_the_first_images_of_the_order(finished: tuple[dict[str, Any], Path], ran: Ran) -> None:
    """Else it is compared with other images than the fixed distances keep."""
    report, store = finished
    twenty = {row["path"] for row in _rows(report, store, "fit-20")}
    at_eight = {row["path"] for row in _rows(report, store, "8")}
    at_zero = {row["path"] for row in _rows(report, store, "0")}
    assert at_zero < twenty < at_eight
    (distance,) = {row["distance"] for row in _rows(report, store, "fit-20")}
    assert distance == next(r["levels"]["distance"] for r in report["distances"] if r["distance"] == "fit-20")


@pytest.mark.parametrize("variant", ["spread-0.5-15", "fit-20"])
def test_rules_verify_and_export_by_name(
    finished: tuple[dict[str, Any], Path], keepmore: Command, ran: Ran, tmp_path: Path, variant: str
) -> None:
    """Else a retention system deletes originals whose copies are not there, or cannot read what is kept."""
    report, store = finished
    for reference in (f"{report['job']}/{variant}", f"{report['job']}/{report['subset']}/{variant}"):
        result = ran("verify", reference, store=store)
        assert not result["problems"]
        assert result["digest"] == digests(report)[variant]
    for name in ("m.csv", "m.ndjson", "m.parquet"):
        assert keepmore("export", f"{report['job']}/{variant}", str(tmp_path / name), store=store).returncode == 0
    lines = (tmp_path / "m.ndjson").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(manifest.rows(tmp_path / "m.parquet"))
    assert len((tmp_path / "m.csv").read_text().splitlines()) == len(lines) + 1


def test_another_budget_fits_again(finished: tuple[dict[str, Any], Path], ran: Ran, keepmore: Command) -> None:
    """Else a second budget costs a second job, or is answered with the distance of the first."""
    report, store = finished
    rows = ran("select", report["job"], "--budget", "as:15", store=store)["distances"]
    assert (rows["fit-20"]["images"], rows["spread-0.5-15"]["images"]) == (20, 48)
    first = next(row for row in report["distances"] if row["distance"] == "fit-20")
    assert rows["fit-20"]["levels"]["distance"] > first["levels"]["distance"]
    small = keepmore("select", report["job"], "--budget", "20kB", store=store)
    assert small.returncode == 2
    assert "budget: fit-20: 20,000 bytes do not hold 20 images at any distance" in small.stderr
    output = keepmore("show", report["job"], store=store).stdout
    assert "spread-0.5-15: distances" in output
    assert f"fit-20: distance {first['levels']['distance']:g}" in output


def test_the_report_names_a_command_that_asks_for_the_same(finished: tuple[dict[str, Any], Path]) -> None:
    """Else a run cannot be repeated from its report."""
    report, store = finished
    request = JobRepository(FolderStore(store)).get(report["job"]).request
    words = shlex.split(command(request))
    assert words[words.index("--distances") + 1] == "0,8,spread:0.5-15,fit:20"
    cli.commands["run"].make_context("run", words[2:])


def test_the_page_shows_rules(finished: tuple[dict[str, Any], Path], chromium: str) -> None:
    """Else the page that decides what is deleted leaves a variant out, or breaks off."""
    report, _ = finished
    with open_page(report["report"], chromium) as page:
        for name in ("images", "accuracy", "bytes", "classes"):
            assert page.locator(f"#plot-{name} svg").count() == 1
        rows = page.locator("#distances tr")
        assert rows.count() == 5
        assert "scaled by" in rows.nth(3).inner_text()
        assert "at equal storage, distance 8 keeps" in page.locator(".headline").inner_text().lower()


def test_rules_alone(sample: Path, ran: Ran, tmp_path: Path) -> None:
    """Else a user has to compress at a distance that nobody wants."""
    dataset = str(sample / "test")
    spread = ran("run", dataset, "--distances", "spread:1-6")
    assert [row["images"] for row in spread["distances"]] == [24]
    fitted = ran("run", dataset, "--distances", "fit:10", "--budget", "100kB")
    assert [row["images"] for row in fitted["distances"]] == [10]
    for report in (spread, fitted):
        page = Path(report["report"].removeprefix("file://")).read_text()
        assert page.rstrip().endswith("</html>")


def test_a_job_that_is_killed_while_it_fits_ends_with_the_same_digests(sample: Path, ran: Ran, tmp_path: Path) -> None:
    """Else a crash makes another subset, or a search has to start again for ever."""
    words = ["run", str(sample / "test"), "--distances", "fit:20,spread:2-8", "--budget", "150kB"]
    undisturbed = digests(ran(*words, store=tmp_path / "undisturbed"))
    store = tmp_path / "killed"
    command = [str(Path(sys.executable).with_name("keepmore")), *words, "--store", str(store)]
    process = subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
    while not list(store.glob("work/*/index.json")):
        time.sleep(0.01)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (job,) = (file.stem for file in store.glob("jobs/*.json"))
    assert ran("show", job, store=store)["stage"] == "select", "killed too late: nothing was interrupted"
    assert digests(ran("resume", job, store=store)) == undisturbed


def test_a_fit_that_the_pool_cannot_give_fails_the_job_with_its_reason(sample: Path, keepmore: Command) -> None:
    """Else the job ends with fewer images than were asked for."""
    done = keepmore("run", str(sample / "test"), "--distances", "fit:25", "--budget", "100kB")
    assert done.returncode == 2
    assert "fit:25 is not possible: the pool has 24 images" in done.stderr


def test_estimates_take_numbers_alone(sample: Path, keepmore: Command) -> None:
    """Else a sample's answer is taken for one about all images."""
    done = keepmore("estimate", str(sample / "test"), "--distances", "0,spread:1-6")
    assert done.returncode == 2
    assert "spread:1-6 cannot be estimated" in done.stderr
