"""What the `keepmore` command prints: progress, tables and errors for people, JSON for machines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from keepmore.errors import KeepmoreError
from keepmore.jobs.graph import Kind, Step
from keepmore.jobs.job import Job
from keepmore.progress import Progress as Done
from keepmore.reporting import verdicts
from keepmore.scheduling.status import parts_progress, training_images
from keepmore.selection.manifest import Problem
from keepmore.spec import variants
from keepmore.spec.job import PROBE
from keepmore.storage import layout
from keepmore.storage.folder import Store

TRAINED = ("top-1", "95 %", "verdict")
FILE_WIDTH = 120  # of tables in a file or a pipe, where no window says how wide they may be


class Screen:
    """Progress and complaints go to stderr, results to stdout."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.err = Console(stderr=True, quiet=False, soft_wrap=True, highlight=False)
        self.out = Console(soft_wrap=True, highlight=False)
        if not self.out.is_terminal:
            self.out.width = FILE_WIDTH

    def say(self, message: str) -> None:
        if not self.as_json:
            self.err.print(message, markup=False)

    def complain(self, message: str) -> None:
        self.err.print(f"keepmore: {message}", markup=False)

    def fail(self, error: KeepmoreError, again: str | None) -> None:
        """A job that failed; `again` is the command that goes on, where that can help."""
        if self.as_json:
            print(json.dumps({"error": error.as_dict(), "resume": again}))
        self.complain(error.message)
        if again:
            self.complain(f"what is done is kept. After mending the cause, go on with: {again}")
        else:
            self.complain("trying again will not help: start a new job; it finds the encoded images of this one again")

    def result(self, made: dict[str, Any]) -> None:
        """A finished job: its table, its warnings and where the report lies."""
        if self.as_json:
            print(json.dumps(made, ensure_ascii=False))
            return
        self._table(made["distances"], made["budget_bytes"], verdicts.by_arm(made.get("comparison")))
        counts = made["index"]
        self.out.print(
            f"{counts['listed']:,} images listed: {counts['compressed']:,} good, {counts['failed']:,} failed"
            + (f" ({_by_count(counts['errors'])})" if counts["errors"] else "")
            + (f"; skipped {_by_count(made['skipped'])}" if made["skipped"] else "")
        )
        for warning in made["warnings"]:
            self.out.print(f"warning: {warning}", markup=False)
        self._kept(made["distances"])
        self.out.print(f"report: {made['report']}", markup=False)

    def subsets(self, made: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(made, ensure_ascii=False))
            return
        rows = [{"distance": distance, **found} for distance, found in made["distances"].items()]
        first = made["distances"].get("0", {}).get("images")
        self._table([row | {"factor": first and row["images"] / first} for row in rows], made["budget_bytes"])
        for row in rows:
            self.out.print(f"distance {row['distance']}: {row['manifest']}", markup=False)

    def training(self, found: dict[str, Any]) -> None:
        """Accuracy by distance of a training on subsets that were there already, and what of it is no chance."""
        if self.as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        asked = found["request"]
        table = Table(title=f"{asked['model']} ({asked['method']}) on subset {found['subset']}", title_justify="left")
        for name in ("distance", "images", *TRAINED):
            table.add_column(name, justify="right", overflow="fold")
        rows = [{"distance": distance, **result} for distance, result in found["distances"].items()]
        judged = verdicts.by_arm(found.get("comparison"))
        for row in rows:
            table.add_row(row["distance"], f"{row['train_images']:,}", *_accuracy(row), judged.get(row["distance"], ""))
        self.out.print(table)
        for note in verdicts.notes(rows) if rows else ():
            self.out.print(f"warning: {note}", markup=False)
        self._kept(rows)

    def _kept(self, rows: Sequence[dict[str, Any]]) -> None:
        """Where the files of a training are."""
        places = verdicts.places(rows)
        if "weights" in places:
            self.out.print(f"weights: {places['weights']} ({len(verdicts.kept(rows))} files)", markup=False)
        if "events" in places:
            self.out.print(f"loss of every step: tensorboard --logdir {shlex.quote(places['events'])}", markup=False)

    def advice(self, found: dict[str, Any], page: Path | None) -> None:
        """For every budget, what each distance is foretold to give; the recommended one first in words."""
        if self.as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        for budget in found["budgets"]:
            best, plain = budget["recommended"], budget["plain"]
            self.out.print(f"{budget['bytes']:,} bytes: store {best['images']:,} images at distance {best['distance']}")
            table = Table()
            for name in ("distance", "images", "top-1 foretold", "95 %"):
                table.add_column(name, justify="right")
            for row in budget["distances"]:
                marks = "*" if row["extrapolated"] else ""
                table.add_row(row["distance"], f"{row['images']:,}{marks}", *_foretold(row))
            self.out.print(table)
            if alike := [name for name in best["alike"] if name != best["distance"]]:
                self.out.print(f"not to be told from it: distance {', '.join(alike)}")
            if plain and plain["ahead"]["verdict"] != "same":
                ahead = plain["ahead"]
                low, high = (100 * end for end in ahead["interval"])
                self.out.print(
                    f"against distance 8: {100 * ahead['difference']:+.1f} points ({low:+.1f} to {high:+.1f}), "
                    + ("better" if ahead["verdict"] == "better" else "which is within the noise")
                )
        fit = found["fit"]
        constants = ", ".join(f"{name} {value['value']:.3g}" for name, value in fit["constants"].items())
        self.out.print(
            f"law: {constants}; R² {fit['r2']:.3f}; off by {fit['left_out_points']:.1f} points on sizes left out"
        )
        if found["wished"]:
            self.out.print(_wish(found["wished"]))
        if page:
            self.out.print(f"page: {page}", markup=False)

    def estimate(self, found: dict[str, Any]) -> None:
        """Bytes and counts by distance, each with its interval."""
        if self.as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        title = f"{found['sampled']:,} of {found['images']:,} images; intervals at {100 * found['rate']:g} %"
        table = Table(title=title, title_justify="left")
        for name in ("distance", "bytes", "interval", "images that fit", "interval"):
            table.add_column(name, justify="right")
        for distance, row in found["distances"].items():
            cells = [cell for name in ("bytes", "images") if row[name] for cell in _interval(row[name])]
            table.add_row(distance, *cells)
        self.out.print(table)

    def jobs(self, jobs: Sequence[dict[str, Any]]) -> None:
        if self.as_json:
            print(json.dumps(jobs, ensure_ascii=False))
            return
        table = Table(Column("job", no_wrap=True), "state", "distances", Column("dataset", overflow="fold"))
        for job in jobs:
            asked = job.get("request")
            distances = variants.written(*variants.from_json(asked["distances"])) if asked else ""
            dataset = asked["dataset"] if asked else job["error"]["message"]
            table.add_row(job["id"], job["state"], distances, dataset)
        self.out.print(table if jobs else "no jobs in this store yet")

    def status(self, found: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(found, ensure_ascii=False))
            return
        self.out.print(
            f"job {found['job']}: {found['state']}" + (f", next: {found['stage']}" if found["stage"] else "")
        )
        if found["error"]:
            self.out.print(f"error: {found['error']['message']}", markup=False)
        for warning in found.get("warnings", []):
            self.out.print(f"warning: {warning}", markup=False)
        if found["images"]:
            counts = found["images"]
            failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
            self.out.print(f"images compressed: {counts['done']:,} of {counts['listed']:,}{failed}")
        for made in found["subsets"]:
            self.out.print(f"subset {made['subset']}:")
            self.subsets(made)
        if found["report"]:
            self.out.print(f"report: {found['report']}", markup=False)

    def verified(self, file: str, about: dict[str, Any], problems: Sequence[Problem]) -> None:
        if self.as_json:
            found = [{"path": p.path, "code": p.code, "message": p.message} for p in problems]
            print(json.dumps({"manifest": file, "digest": about["digest"], "problems": found}, ensure_ascii=False))
            return
        for problem in problems:
            self.out.print(f"{problem.path or 'manifest'}: {problem.code}: {problem.message}", markup=False)
        bad = len({problem.path for problem in problems if problem.path})
        self.out.print(
            f"{about['images']:,} images, {about['bytes']:,} bytes, digest {about['digest']}: "
            + (
                f"{len(problems)} found wrong, {bad:,} images cannot be relied on"
                if problems
                else "all there and unchanged"
            )
        )

    @contextmanager
    def counting(self, name: str, total: int | None) -> Iterator[Callable[..., None]]:
        """A bar; what it gives is called with images and bytes as they are done, and the total where it comes late."""
        with _bar(self) as bar:
            task = bar.add_task(name, total=total, rate="")
            size = 0

            def add(images: int, bytes_: int, new_total: int | None = None) -> None:
                nonlocal size
                size += bytes_
                bar.update(task, advance=images, total=new_total or total, rate=_rate(bar, task, size, 0))

            yield add

    def _table(
        self, rows: Sequence[dict[str, Any]], budget_bytes: int | None, judged: Mapping[str, str] | None = None
    ) -> None:
        trained = "top1" in rows[0]
        title = f"budget {budget_bytes:,} bytes" if budget_bytes else "no budget: every image is kept"
        table = Table(title=title, title_justify="left")
        for name in ("distance", "images", "factor", "bytes", "of budget", *(TRAINED if trained else ())):
            table.add_column(name, justify="right", overflow="fold")
        for row in rows:
            cells = [row["distance"], f"{row['images']:,}", f"{row['factor']:.2f}x" if row["factor"] else ""]
            cells += [f"{row['bytes']:,}", f"{100 * row['bytes'] / budget_bytes:.2f} %" if budget_bytes else ""]
            if trained:
                cells += [*_accuracy(row), (judged or {}).get(row["distance"], "")]
            table.add_row(*cells)
        self.out.print(table)
        for row in rows:
            if "levels" in row:
                self.out.print(f"{row['distance']}: {variants.told(row)}", markup=False)


def _accuracy(result: dict[str, Any]) -> tuple[str, str]:
    low, high = result["interval"]
    return f"{100 * result['top1']:.1f} %", f"{100 * low:.1f}-{100 * high:.1f} %"


def _foretold(row: dict[str, Any]) -> tuple[str, str]:
    return _accuracy({"top1": row["accuracy"], "interval": row["interval"]})


def _wish(wished: dict[str, Any]) -> str:
    share = f"top-1 of {100 * wished['accuracy_wished']:g} %"
    if not wished["reached"]:
        return f"{share} is out of reach of this pool, whose best is {100 * wished['most']['accuracy']:.1f} %"
    return f"{share} takes {wished['bytes']:,} bytes: {wished['images']:,} images at distance {wished['distance']}"


def _interval(found: dict[str, float]) -> tuple[str, str]:
    return f"{found['expected']:,.0f}", f"{found['low']:,.0f} to {found['high']:,.0f}"


def _by_count(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _bar(screen: Screen) -> Progress:
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=screen.err,
        disable=screen.as_json,
    )


def _rate(bar: Progress, task: TaskID, bytes_in: int, bytes_out: int) -> str:
    shown = next(found for found in bar.tasks if found.id == task)
    rate = shown.completed / shown.elapsed if shown.elapsed else 0.0
    said = f"{rate:,.1f}/s" + (f", {bytes_in / 1e6:,.1f} MB in" if bytes_in else "")
    return said + (f", {bytes_out / 1e6:,.1f} MB out" if bytes_out else "")


class JobProgress:
    """One bar a stage that takes images. Use as a context manager."""

    def __init__(self, screen: Screen, job: Job, store: Store) -> None:
        self._screen = screen
        self._job = job
        self._store = store
        self._bar = _bar(screen)
        self._tasks: dict[Kind, TaskID] = {}
        self._bytes = dict.fromkeys((Kind.COMPRESS, Kind.FIT, Kind.FEATURES, Kind.TUNE), (0, 0))
        self._training = job.request.training and (Kind.FEATURES if job.request.training.method == PROBE else Kind.TUNE)

    def __enter__(self) -> JobProgress:
        self._bar.start()
        if self._store.exists(layout.listing(self._job.id)):
            self._start(Kind.COMPRESS)
        if self._job.request.fits and self._store.exists(layout.index_summary(self._job.id)):
            self._start(Kind.FIT)
        if self._training and self._store.exists(self._subset_key()):
            self._start(self._training)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def add(self, step: Step, done: Done) -> None:
        """Some images of a step are done; of a listing nobody knows how many there will be."""
        if step.kind not in self._tasks:
            return
        task = self._tasks[step.kind]
        read, written = self._bytes[step.kind]
        self._bytes[step.kind] = read + done.bytes_in, written + done.bytes_out
        self._bar.update(task, advance=done.images, rate=_rate(self._bar, task, *self._bytes[step.kind]))

    def done(self, step: Step) -> None:
        """A whole step is done."""
        if step.kind is Kind.LIST:
            self._start(Kind.COMPRESS)
        elif step.kind is Kind.CHECK:
            for warning in json.loads(self._store.get(layout.codec_check(self._job.id)))["warnings"]:
                self._screen.say(f"warning: {warning}")
        elif step.kind is Kind.INDEX and self._job.request.fits:
            self._start(Kind.FIT)
        elif step.kind is Kind.SELECT and self._training and step.part == self._job.request.subset_id:
            self._start(self._training)
        elif step.kind is Kind.TUNE and Kind.TUNE in self._tasks:
            # A run that went on from its checkpoint passed fewer images than it has.
            self._bar.update(self._tasks[Kind.TUNE], completed=self._counts(Kind.TUNE)[0])

    def _start(self, kind: Kind) -> None:
        done, total = self._counts(kind)
        self._tasks[kind] = self._bar.add_task(kind.value, total=total, completed=done, rate="")

    def _counts(self, kind: Kind) -> tuple[int, int | None]:
        if kind is Kind.FIT:
            return 0, None  # nobody knows how often the images will be encoded
        if kind is Kind.COMPRESS:
            listed = int(json.loads(self._store.get(layout.listing(self._job.id)))["images"])
            return sum(done.images for done in parts_progress(self._store, self._job.id).values()), listed
        images = training_images(self._job, self._job.request.training_id, self._store)
        return sum(count for step, count in images.items() if self._store.exists(step.output)), sum(images.values())

    def _subset_key(self) -> str:
        return layout.subset(self._job.id, self._job.request.subset_id)


class RemoteProgress:
    """One bar for the images that a service compresses, and a line for every other stage. Use as a context manager."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._bar = _bar(screen)
        self._task: TaskID | None = None
        self._stage: str | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> RemoteProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, found: Mapping[str, Any]) -> None:
        """The job as it stands now."""
        for warning in set(found["warnings"]) - self._warned:
            self._warned.add(warning)
            self._screen.say(f"warning: {warning}")
        counts = found["images"]
        if counts:
            if self._task is None:
                self._task = self._bar.add_task(Kind.COMPRESS.value, total=counts["listed"], rate="")
            size = found["bytes"]
            rate = _rate(self._bar, self._task, size["in"], size["out"])
            self._bar.update(self._task, completed=counts["done"], rate=rate)
        if found["stage"] and found["stage"] != self._stage and found["stage"] != Kind.COMPRESS:
            self._screen.say(f"stage: {found['stage']}")
        self._stage = found["stage"]
