"""Advice by the installed command over real images: pilots, table, page, and refusal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepmore.synthetic.dataset import write_sample
from tests.browser import check_plots, open_page
from tests.conftest import Command, installed_command

Ran = Callable[..., dict[str, Any]]

OPTIONS = ["--budgets", "1MB,as:8", "--distances", "0,8,25", "--steps", "60", "--seeds", "2", "--price", "0.023"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Command]:
    """A job over 192 drawn images, with 96 to test on, and its store."""
    root = tmp_path_factory.mktemp("advise")
    write_sample(root / "images", train_per_class=24, test_per_class=12)
    run = installed_command(root / "store")
    words = ["--distances", "0,8", "--evaluate", str(root / "images" / "test"), "--json"]
    done = run("run", str(root / "images" / "train"), *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["job"], root / "store", run


@pytest.fixture(scope="module")
def advised(pool: tuple[str, Path, Command], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command printed, and its page."""
    job, _, run = pool
    page = tmp_path_factory.mktemp("page") / "advice.html"
    done = run("advise", job, *OPTIONS, "--accuracy", "0.5", "--page", str(page))
    assert done.returncode == 0, done.stderr
    return done.stdout, page


def test_every_budget_has_a_distance_to_store_at(advised: tuple[str, Path]) -> None:
    """Else a user has paid for pilots and still does not know what to do."""
    output, page = advised
    assert output.count(": store ") == 2
    assert "1,000,000 bytes: store" in output
    assert all(name in output for name in ("top-1 predicted", "95 %", "law: a ", f"page: {page}"))


def test_the_page_opens_with_its_three_plots(advised: tuple[str, Path], chromium: str) -> None:
    """Else what a decision about storage is shown with is blank, or needs the internet."""
    _, file = advised
    with open_page(file.as_uri(), chromium) as page:
        check_plots(page, ["surface", "storage", "cost"])
        text = page.inner_text("body")
    assert "store at distance" in text
    assert "To reach 50.0 %" in text or "not to reach 50.0 %" in text


@pytest.mark.alone
def test_asking_again_answers_at_once(advised: tuple[str, Path], pool: tuple[str, Path, Command], ran: Ran) -> None:
    """Else every look at the same advice costs minutes of training; or it says something else than before."""
    job, store, _ = pool
    started_at = time.monotonic()
    advice = ran("advise", job, *OPTIONS, "--accuracy", "0.5", store=store)
    assert time.monotonic() - started_at < 8, "the first took 20 s and more"
    assert (advice["state"], advice["pilot_images"], advice["test_images"], advice["seeds"]) == ("succeeded", 64, 96, 2)
    assert {row["distance"] for row in advice["pilots"]} == {"0", "8", "25"}
    assert len(advice["pilots"]) == 3 * 5
    sizes = {row["distance"]: row["bytes_per_image"] for row in advice["pool"]["distances"]}
    assert sizes["0"] > sizes["8"] > sizes["25"]
    for budget in advice["budgets"]:
        best = budget["recommended"]
        assert best["interval"][0] <= best["accuracy"] <= best["interval"][1]
        assert best["accuracy"] == max(row["accuracy"] for row in budget["distances"])
        assert all(row["bytes"] <= budget["bytes"] for row in budget["distances"])
    assert advice["budgets"][1]["distances"][1]["images"] == 192, "as:8 is the size of the whole pool at distance 8"
    assert advice["price_per_gb_month"] == 0.023
    assert advice["wished"]["accuracy_wished"] == 0.5


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--budgets", "10B", "--distances", "8,25"], 2, "budget: 10 bytes hold no image; one takes"),
        (["--budgets", ","], 2, "budgets: 0 are not possible; name 1 to 100"),
        (["--budgets", "as:4"], 2, "use one of the job's distances: 0, 8"),
        (["--budgets", "1MB", "--price", "NaN"], 2, "price_per_gb_month: NaN is not possible"),
        (["--budgets", "1MB", "--model", "timm:../../x", "--distances", "8,25"], 1, "timm has no model '../../x'"),
        (["--budgets", "1MB", "--weights", "/nowhere/x.pt"], 2, "there is no file /nowhere/x.pt"),
    ],
)
def test_what_cannot_be_advised_on_says_why(
    pool: tuple[str, Path, Command], words: list[str], code: int, message: str
) -> None:
    """Else a typing error ends in a traceback, or after minutes of pilots."""
    job, _, run = pool
    done = run("advise", job, *words)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_pilots_that_support_no_fit_are_refused(keepmore: Command, ran: Ran, sample: Path, tmp_path: Path) -> None:
    """Else advice stands on noise, and originals are deleted on its word."""
    test = tmp_path / "test"
    write_sample(tmp_path / "more", train_per_class=1, test_per_class=7)
    (tmp_path / "more" / "test").rename(test)
    few = ran("run", str(sample / "train"), "--distances", "0,8", "--evaluate", str(sample / "test"))["job"]
    done = keepmore("advise", few, "--budgets", "1MB", "--distances", "8,25")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "pilots: they were tested on 24 images; test on 50 or more" in " ".join(done.stderr.split())
    noise = ran("run", str(sample / "train"), "--distances", "0,8", "--evaluate", str(test))["job"]
    words = ["--budgets", "1MB", "--distances", "8,25", "--steps", "1", "--seeds", "1", "--weights", "none"]
    done = keepmore("advise", noise, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "pilots: their error does not fall with the number of images beyond noise" in " ".join(done.stderr.split())


def test_a_job_without_labels_or_test_images_is_refused_at_once(keepmore: Command, ran: Ran, sample: Path) -> None:
    """Else pilots are encoded for minutes before anybody looks whether there is anything to learn."""
    plain = ran("run", str(sample / "test"), "--distances", "8")["job"]
    done = keepmore("advise", plain, "--budgets", "1MB")
    assert done.returncode == 1
    assert "has no images to test on" in done.stderr
    flat = ran("run", str(sample / "test" / "mug"), "--distances", "8", "--evaluate", str(sample / "test"))["job"]
    done = keepmore("advise", flat, "--budgets", "1MB")
    assert done.returncode == 1
    assert "no image of the pool has a label" in done.stderr
