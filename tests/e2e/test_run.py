"""Whole runs of the installed command over real images."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keepmore.compression import index
from keepmore.reporting.command import command
from keepmore.selection import manifest
from keepmore.spec.job import Request
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from tests.browser import check_plots, open_page
from tests.conftest import Command, digests, installed_command

Ran = Callable[..., dict[str, Any]]

SMALL = ["--distances", "0,4,10"]


@pytest.fixture(scope="module")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One finished job with everything in it, and its store: every test reads it, none changes it."""
    root = tmp_path_factory.mktemp("finished")
    run = installed_command(root / "store")
    done = run(
        "run", str(sample / "train"), *SMALL, "--budget", "as:10*0.5", "--evaluate", str(sample / "test"),
        "--train", "mobilenet_v2", "--seeds", "2", "--steps", "60", "--test-distances", "10", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), root / "store"


def _manifest(report: dict[str, Any], distance: str) -> Path:
    row = next(row for row in report["distances"] if row["distance"] == distance)
    return Path(row["manifest"].removeprefix("file://"))


def test_the_main_job_keeps_more_images_at_equal_storage(finished: tuple[dict[str, Any], Path]) -> None:
    """Else the product does not do what it is for."""
    report, _ = finished
    first, middle, last = report["distances"]
    assert first["images"] < middle["images"] < last["images"]
    assert last["factor"] == last["images"] / first["images"] > 2
    for row in report["distances"]:
        assert row["bytes"] <= report["budget_bytes"]
        assert row["test_images"] == 24
        assert row["interval"][0] <= row["top1"] <= row["interval"][1]
        rows = list(manifest.rows(_manifest(report, row["distance"])))
        assert (len(rows), sum(r["bytes"] for r in rows)) == (row["images"], row["bytes"])
        assert [r["path"] for r in rows] == sorted(r["path"] for r in rows)
    assert report["budget_bytes"] == int(last["pool_bytes"] * 0.5)
    assert report["index"]["listed"] == report["index"]["compressed"] + report["index"]["failed"] == 72


def test_subsets_nest_over_distances(finished: tuple[dict[str, Any], Path]) -> None:
    """Else comparing two distances compares two different draws of images."""
    report, _ = finished
    paths = [{r["path"] for r in manifest.rows(_manifest(report, d))} for d in ("0", "4", "10")]
    assert paths[0] < paths[1] < paths[2]


def test_every_manifest_verifies(finished: tuple[dict[str, Any], Path], keepmore: Command) -> None:
    """Else a retention system deletes originals whose copies are not there."""
    report, _ = finished
    for row in report["distances"]:
        done = keepmore("verify", str(_manifest(report, row["distance"])))
        assert done.returncode == 0, done.stdout
        assert "all there and unchanged" in done.stdout


def test_verify_exits_with_three_on_a_problem(
    finished: tuple[dict[str, Any], Path], keepmore: Command, tmp_path: Path
) -> None:
    """Else a pipeline goes on to delete after a failed check."""
    report, store = finished
    shutil.copytree(store, tmp_path / "moved")
    file = tmp_path / "moved" / _manifest(report, "10").relative_to(store)
    target = next(r for r in manifest.rows(file))["object_uri"].removeprefix("file://")
    data = Path(target).read_bytes()
    Path(target).unlink()
    try:
        done = keepmore("verify", str(file), "--json")
    finally:
        Path(target).write_bytes(data)
    assert done.returncode == 3
    assert [p["code"] for p in json.loads(done.stdout)["problems"]] == ["source_not_found"]


def test_another_budget_compresses_nothing_again(
    finished: tuple[dict[str, Any], Path], ran: Ran, keepmore: Command
) -> None:
    """Else trying a second budget costs the hours of the first."""
    report, store = finished
    before = {path: path.stat().st_mtime_ns for path in (store / "objects").rglob("*") if path.is_file()}
    subset = ran("select", report["job"], "--budget", "200kB", "--order", "smallest", "--no-balance", store=store)
    after = {path: path.stat().st_mtime_ns for path in (store / "objects").rglob("*") if path.is_file()}
    assert before == after
    assert subset["budget_bytes"] == 200_000
    assert all(row["bytes"] <= 200_000 for row in subset["distances"].values())
    again = ran("select", report["job"], "--budget", "as:10*0.5", store=store)
    assert digests(again) == digests(report)
    small = keepmore("select", report["job"], "--budget", "10B", store=store)
    assert small.returncode == 2
    assert re.search(r"budget: distance 0: 10 bytes do not hold the first image .* takes [\d,]+ bytes", small.stderr)


def test_show_tells_how_jobs_stand(finished: tuple[dict[str, Any], Path], ran: Ran, keepmore: Command) -> None:
    """Else a user cannot find a job, its manifests or its report again."""
    report, store = finished
    job = ran("show", report["job"], store=store)
    assert (job["state"], job["stage"]) == ("succeeded", None)
    assert job["images"] == {"listed": 72, "done": 72, "failed": 0}
    assert digests(job["subsets"][0]) == digests(report)
    assert report["job"] in keepmore("show", store=store).stdout
    assert keepmore("show", "20200101-000000", store=store).returncode == 2


def test_exports(finished: tuple[dict[str, Any], Path], keepmore: Command, tmp_path: Path) -> None:
    """Else a system that reads no Parquet cannot use a manifest."""
    report, _ = finished
    (tmp_path / "m.csv.part").write_text("another file")
    for name in ("m.csv", "m.ndjson"):
        assert keepmore("export", str(_manifest(report, "10")), str(tmp_path / name)).returncode == 0
        lines = (tmp_path / name).read_text().splitlines()
        assert len(lines) == report["distances"][2]["images"] + (name == "m.csv")
    done = keepmore("export", str(_manifest(report, "10")), str(tmp_path / "m.xls"))
    assert done.returncode == 2
    assert "name the file .parquet, .ndjson, .csv" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.csv", "m.csv.part", "m.ndjson"]
    for name in ("m.csv", "m.parquet", "m.parquet"):  # the same again changes nothing
        assert keepmore("export", str(_manifest(report, "10")), str(tmp_path / name)).returncode == 0
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "m.ndjson").write_text("edited\n")
    (tmp_path / "labels.parquet").write_bytes(_manifest(report, "0").read_bytes())
    for name in ("folder.csv", "m.ndjson", "labels.parquet"):
        done = keepmore("export", str(_manifest(report, "10")), str(tmp_path / name))
        assert (done.returncode, "is there already, with other content" in done.stderr) == (2, True)
    assert (tmp_path / "m.ndjson").read_text() == "edited\n"
    words = ("export", str(_manifest(report, "10")), str(tmp_path / "m.ndjson"), "--overwrite")
    assert keepmore(*words).returncode == 0
    assert (tmp_path / "m.ndjson").read_text() != "edited\n"


def test_an_export_leaves_the_store_alone(finished: tuple[dict[str, Any], Path], keepmore: Command) -> None:
    """Else the manifest of one distance takes the place of another's, and verify vouches for it."""
    report, store = finished
    before = _manifest(report, "0").read_bytes()
    done = keepmore("export", f"{report['job']}/10", str(_manifest(report, "0")), "--overwrite", store=store)
    assert (done.returncode, "lies in the store" in done.stderr) == (2, True)
    assert _manifest(report, "0").read_bytes() == before
    index = next(store.glob("work/*/index.parquet"))
    done = keepmore("verify", str(index))
    assert (done.returncode, "no manifest" in done.stderr) == (2, True)


def test_the_report_opens_with_all_its_plots(finished: tuple[dict[str, Any], Path], chromium: str) -> None:
    """Else the page that decides what is deleted is blank, or needs the internet."""
    report, _ = finished
    with open_page(report["report"], chromium) as page:
        check_plots(page, ["images", "accuracy", "bytes", "loss", "domain", "confusion", "classes"])
        sizes = page.eval_on_selector_all("figure img", "images => images.map(image => image.naturalWidth)")
        captions = page.locator("figcaption").all_inner_texts()
        rows = page.locator("#distances tr").count()
        verdict_rows = page.locator("#verdicts tr").all_inner_texts()
        domain_rows = page.locator("#domain tr").all_inner_texts()
        text = page.inner_text("body")
    assert len(sizes) == len(captions) == 6
    assert min(sizes) > 200
    assert all(re.search(r"distance \d+: [\d,]+ bytes", caption) for caption in captions)
    assert rows == 4
    assert report["command"] in text
    for row in report["distances"]:
        assert row["digest"] in text
    verdicts = [one["verdict"] for one in report["comparison"]["comparisons"] if one["family"] == "reference"]
    assert [line.rpartition("\t")[2] for line in verdict_rows[1:3]] == verdicts
    assert [len(line.split("%")) for line in domain_rows[1:]] == [5, 5, 5], "two shares and two intervals per distance"


def test_a_fine_tuning_on_the_command_line(finished: tuple[dict[str, Any], Path], keepmore: Command) -> None:
    """Else users see numbers without what they are worth, and neither how far it is nor what it left."""
    report, store = finished
    done = keepmore(
        "train", report["job"], "--train", "mobilenet_v3_small", "--weights", "none", "--method", "finetune",
        "--epochs", "1", "--seeds", "2", "--tune", "batch=8", "--tune", "image_size=32", store=store,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"(\d+)/\1 ", done.stderr), "the bar ends where it should"
    assert len(re.findall("(better than|worse than|cannot tell from) 0", done.stdout)) == 2
    folder = re.search(r"weights: (\S+) \(6 files\)", done.stdout)
    events = re.search(r"tensorboard --logdir (\S+)", done.stdout)
    assert folder
    assert events
    assert len(list(Path(folder[1]).glob("*.safetensors"))) == 6
    assert len(list(Path(events[1]).glob("*/events.out.tfevents.*"))) == 6


def test_a_fine_tuning_with_little_disk_ends_and_says_so(
    finished: tuple[dict[str, Any], Path], keepmore: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the second set of images pushes the first one out, or a user wonders why it takes so long."""
    report, store = finished
    monkeypatch.setenv("KEEPMORE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("KEEPMORE_SCRATCH_BYTES", "1MB")
    done = keepmore(
        "train", report["job"], "--train", "mobilenet_v3_small", "--weights", "none", "--method", "finetune",
        "--steps", "1", "--seeds", "1", "--tune", "batch=4", "--tune", "image_size=64", store=store,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"warning: distance \d+: \d+ of \d+ images are decoded again every time", done.stdout)


def test_the_command_in_the_report_asks_for_the_same(finished: tuple[dict[str, Any], Path], keepmore: Command) -> None:
    """Else a result cannot be run again from its report."""
    report, store = finished
    request = Request.from_json(report["request"])
    words = shlex.split(command(request))
    assert words[:2] == ["keepmore", "run"]
    done = keepmore(*words[1:], "--json", store=store)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["request"] == report["request"]
    assert digests(again) == digests(report)
    assert [row["top1"] for row in again["distances"]] == [row["top1"] for row in report["distances"]]


def test_digests_do_not_depend_on_place_packing_or_processes(
    finished: tuple[dict[str, Any], Path], ran: Ran, sample: Path, tmp_path: Path
) -> None:
    """Else a folder and its copy elsewhere, or in a tar, cannot be recognised as the same images."""
    report, _ = finished
    words = [*SMALL, "--budget", "as:10*0.5"]
    shutil.copytree(sample / "train", tmp_path / "copy")
    from_copy = ran("run", str(tmp_path / "copy"), *words, "--processes", "1")
    assert digests(from_copy) == digests(report)
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        for file in sorted((sample / "train").rglob("*.jpg"), reverse=True):
            archive.add(file, file.relative_to(sample / "train"))
    from_tar = ran("run", str(tmp_path / "packed.tar"), *words, "--processes", "3", store=tmp_path / "second store")
    assert digests(from_tar) == digests(report)


def test_a_flat_folder_without_labels_works(ran: Ran, sample: Path, tmp_path: Path) -> None:
    """Else users without labels cannot compress and select."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, file in enumerate(sorted((sample / "test").rglob("*.jpg"))[:6]):
        shutil.copy(file, flat / f"{number}.jpg")
    report = ran("run", str(flat), "--distances", "4", "--budget", "as:4*0.5")
    assert 0 < report["distances"][0]["images"] < 6
    assert report["index"]["unlabelled"] == 6


def test_a_hold_out_is_never_kept(ran: Ran, sample: Path) -> None:
    """Else the accuracy is measured on images that were trained on."""
    report = ran("run", str(sample / "train"), "--distances", "10", "--holdout", "0.34")
    assert report["index"]["evaluation"] == 16
    assert report["distances"][0]["images"] == report["index"]["pool"] == 32
    work = Path(report["report"].removeprefix("file://")).parent
    subset = {row["path"] for row in manifest.rows(_manifest(report, "10"))}
    store = FolderStore(work.parents[1])
    holdout = {
        row["path"] for batch in index.rows(store, layout.evaluation(report["job"])) for row in batch.to_pylist()
    }
    assert len(holdout) == 16
    assert not holdout & subset


def test_a_distance_beyond_the_cliff_is_warned_of(ran: Ran, sample: Path) -> None:
    """Else a user pays more bytes for worse pictures and is not told."""
    report = ran("run", str(sample / "test" / "mug"), "--distances", "10,10.5")
    assert any("distance 10.5 takes" in warning and "use 10 instead" in warning for warning in report["warnings"])
    assert "takes" in Path(report["report"].removeprefix("file://")).read_text()


def test_class_names_are_shown_as_they_are(ran: Ran, sample: Path, tmp_path: Path, chromium: str) -> None:
    """Else a class called "$x$" or in another script ends a finished job, or runs as code in the report."""
    names = ["$\\frac$", "<b>bold</b>", "\u732b"]
    for name, source in zip(names, sorted((sample / "test").iterdir()), strict=False):
        shutil.copytree(source, tmp_path / "d" / name.replace("/", "\u2215"))
    report = ran("run", str(tmp_path / "d"), "--distances", "0,10")
    with open_page(report["report"], chromium) as page:
        text = page.locator("#plot-classes").text_content() or ""
        bold = page.locator("b").count()
    assert bold == 0
    assert all(name.replace("/", "\u2215") in text for name in names)


def test_errors_can_be_listed_where_there_is_no_report(keepmore: Command, tmp_path: Path) -> None:
    """Else a user whose images all failed is told to look at a list that nothing shows."""
    (tmp_path / "d").mkdir()
    for name in ("1.jpg", "2.png"):
        (tmp_path / "d" / name).write_bytes(b"no image")
    done = keepmore("run", str(tmp_path / "d"), "--distances", "4", "--budget", "as:4")
    assert done.returncode == 2
    assert "every image of the pool failed" in done.stderr
    assert "Fix what the message names, then continue with: keepmore resume" in done.stderr
    job = next((tmp_path / "store" / "jobs").iterdir()).stem
    errors = keepmore("errors", job)
    assert [json.loads(line)["path"] for line in errors.stdout.splitlines()] == ["1.jpg", "2.png"]
    assert keepmore("run", str(tmp_path / "d"), "--distances", "0,4").returncode == 0, "without a budget, a report"
