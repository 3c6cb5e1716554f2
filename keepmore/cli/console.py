"""What the `keepmore` command prints: progress, tables and errors for people, JSON for machines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from keepmore.answers import (
    AdviceAnswer,
    EstimateAnswer,
    ExpectedValue,
    JobAnswer,
    JobRecordAnswer,
    ReportAnswer,
    SubsetAnswer,
    TrainingAnswer,
)
from keepmore.errors import BudgetTooSmall, Cancelled, KeepmoreError
from keepmore.reporting import verdicts
from keepmore.selection.subset import rule_result
from keepmore.spec import variants as variant_specs

if TYPE_CHECKING:
    from keepmore.selection.manifest import Metadata, Problem

TRAINED = ("top-1", "95 %", "verdict")
FILE_WIDTH = 120  # of tables in a file or a pipe, which have no window width

Rows = Sequence[Mapping[str, Any]]


class Console:
    """Progress and errors go to stderr, results to stdout."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.err = RichConsole(stderr=True, quiet=False, soft_wrap=True, highlight=False)
        self.out = RichConsole(soft_wrap=True, highlight=False)
        if not self.out.is_terminal:
            self.out.width = FILE_WIDTH

    def say(self, message: str) -> None:
        if not self.as_json:
            self.err.print(message, markup=False)

    def error(self, message: str) -> None:
        self.err.print(f"keepmore: {message}", markup=False)

    def fail(self, error: KeepmoreError, again: str, select: str) -> None:
        """A job that failed; `again` is the command that resumes it, `select` that for another budget."""
        if self.as_json:
            print(json.dumps({"error": error.as_dict(), "resume": again if error.retryable else None}))
        self.error(error.message)
        if isinstance(error, BudgetTooSmall) and error.field:  # else there is no image to choose
            self.error(f"what is done is kept. Choose another budget with: {select} --budget BYTES")
        elif isinstance(error, Cancelled):
            self.error(f"what is done is kept. Continue with: {again}")
        elif error.retryable:
            self.error(f"what is done is kept. Fix the cause, then continue with: {again}")
        else:
            self.error(
                f"what is done is kept. Fix what the message names, then continue with: {again}; if the request itself "
                "is wrong, start a new job: it finds the encoded images of this one again"
            )

    def _printed(self, answer: object) -> bool:
        """Prints `answer` as JSON if that was requested; returns whether."""
        if self.as_json:
            print(json.dumps(answer, ensure_ascii=False))
        return self.as_json

    def _line(self, text: str) -> None:
        self.out.print(text, markup=False)

    def result(self, report: ReportAnswer) -> None:
        """A finished job: its table, its warnings and where the report is."""
        if self._printed(report):
            return
        self._table(report["distances"], report["budget_bytes"], verdicts.by_variant(report.get("comparison")))
        counts = report["index"]
        self.out.print(
            f"{counts['listed']:,} images listed: {counts['compressed']:,} good, {counts['failed']:,} failed"
            + (f" ({_by_count(counts['errors'])})" if counts["errors"] else "")
            + (f"; skipped {_by_count(report['skipped'])}" if report["skipped"] else "")
        )
        for warning in report["warnings"]:
            self._line(f"warning: {warning}")
        self._artifacts(report["distances"])
        if page := report.get("report"):
            self._line(f"report: {page}")

    def subsets(self, subset: SubsetAnswer) -> None:
        if self._printed(subset):
            return
        first = subset["distances"]["0"]["images"] if "0" in subset["distances"] else None
        rows: list[dict[str, Any]] = [
            {"distance": distance, **row, "factor": first and row["images"] / first}
            for distance, row in subset["distances"].items()
        ]
        self._table(rows, subset["budget_bytes"])
        self._line(f"subset: {subset['subset']}")
        for row in rows:
            self._line(f"distance {row['distance']}: {row['manifest']}")

    def training(self, training: TrainingAnswer) -> None:
        """Accuracy by variant of a training on existing subsets, and which differences are significant."""
        if self._printed(training):
            return
        request = training["request"]
        title = f"{request['model']} ({request['method']}) on subset {training['subset']}"
        table = Table(title=title, title_justify="left")
        for name in ("distance", "images", *TRAINED):
            table.add_column(name, justify="right", overflow="fold")
        rows = [{"distance": distance, **result} for distance, result in training["distances"].items()]
        judged = verdicts.by_variant(training["comparison"])
        for row in rows:
            accuracy = _accuracy(row["top1"], row["interval"])
            table.add_row(row["distance"], f"{row['train_images']:,}", *accuracy, judged.get(row["distance"], ""))
        self.out.print(table)
        for note in verdicts.notes(rows) if rows else ():
            self._line(f"warning: {note}")
        self._artifacts(rows)

    def _artifacts(self, rows: Rows) -> None:
        """Where the files of a training are."""
        folders = verdicts.folders(rows)
        if "weights" in folders:
            self._line(f"weights: {folders['weights']} ({len(verdicts.weights(rows))} files)")
        if "events" in folders:
            self._line(f"loss of every step: tensorboard --logdir {shlex.quote(folders['events'])}")

    def advice(self, advice: AdviceAnswer, page: Path | None) -> None:
        """The prediction for every distance at every budget, after a sentence with the recommended one."""
        if self._printed(advice):
            return
        for budget in advice["budgets"]:
            self._budget_advice(budget)
        fit = advice["fit"]
        constants = ", ".join(f"{name} {value['value']:.3g}" for name, value in fit["constants"].items())
        self.out.print(
            f"law: {constants}; R² {fit['r2']:.3f}; off by {fit['left_out_points']:.1f} points on sizes left out"
        )
        if target := advice["wished"]:
            share = f"top-1 of {100 * target['accuracy_wished']:g} %"
            if target["reached"]:
                images, distance = target["images"], target["distance"]
                self.out.print(f"{share} takes {target['bytes']:,} bytes: {images:,} images at distance {distance}")
            else:
                best = 100 * target["most"]["accuracy"]
                self.out.print(f"{share} is out of reach of this pool, whose best is {best:.1f} %")
        if page:
            self._line(f"page: {page}")

    def _budget_advice(self, budget: Mapping[str, Any]) -> None:
        best, plain = budget["recommended"], budget["plain"]
        self.out.print(f"{budget['bytes']:,} bytes: store {best['images']:,} images at distance {best['distance']}")
        table = Table()
        for name in ("distance", "images", "top-1 predicted", "95 %"):
            table.add_column(name, justify="right")
        for row in budget["distances"]:
            marks = "*" if row["extrapolated"] else ""
            accuracy = _accuracy(row["accuracy"], row["interval"])
            table.add_row(row["distance"], f"{row['images']:,}{marks}", *accuracy)
        self.out.print(table)
        if alike := [name for name in best["alike"] if name != best["distance"]]:
            self.out.print(f"indistinguishable from it: distance {', '.join(alike)}")
        if plain and plain["ahead"]["verdict"] != "same":
            ahead = plain["ahead"]
            low, high = (100 * end for end in ahead["interval"])
            self.out.print(
                f"against distance 8: {100 * ahead['difference']:+.1f} points ({low:+.1f} to {high:+.1f}), "
                + ("better" if ahead["verdict"] == "better" else "which is within the noise")
            )

    def estimate(self, estimate: EstimateAnswer) -> None:
        """Bytes and counts by distance, each with its interval."""
        if self._printed(estimate):
            return
        sampled, images = estimate["sampled"], estimate["images"]
        title = f"{sampled:,} of {images:,} images; intervals at {100 * estimate['rate']:g} %"
        table = Table(title=title, title_justify="left")
        for name in ("distance", "bytes", "interval", "images that fit", "interval"):
            table.add_column(name, justify="right")
        for distance, row in estimate["distances"].items():
            values: tuple[ExpectedValue | None, ...] = (row["bytes"], row["images"])
            cells = [
                cell
                for value in values
                if value
                for cell in (f"{value['expected']:,.0f}", f"{value['low']:,.0f} to {value['high']:,.0f}")
            ]
            table.add_row(distance, *cells)
        self.out.print(table)

    def jobs(self, jobs: Sequence[JobRecordAnswer], where: str) -> None:
        if self._printed(jobs):
            return
        table = Table(Column("job", no_wrap=True), "state", "distances", Column("dataset", overflow="fold"))
        for job in jobs:
            if request := job.get("request"):
                distances = variant_specs.unparse(*variant_specs.from_json(request["distances"]))
                table.add_row(job["id"], job["state"], distances, request["dataset"])
            else:
                table.add_row(job["id"], job["state"], "", job["error"]["message"] if job["error"] else "")
        self.out.print(table if jobs else f"no jobs yet: {where}")

    def status(self, job: JobAnswer) -> None:
        if self._printed(job):
            return
        self.out.print(f"job {job['job']}: {job['state']}" + (f", next: {job['stage']}" if job["stage"] else ""))
        if job["error"]:
            self._line(f"error: {job['error']['message']}")
        for warning in job["warnings"]:
            self._line(f"warning: {warning}")
        if counts := job["images"]:
            failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
            self.out.print(f"images done: {counts['done']:,} of {counts['listed']:,}{failed}")
        for subset in job.get("subsets", []):
            self.out.print(f"subset {subset['subset']}:")
            self.subsets(subset)
        if job["report"]:
            self._line(f"report: {job['report']}")

    def verified(self, file: str, about: Metadata, problems: Sequence[Problem]) -> None:
        totals = about.totals
        rows = [{"path": one.path, "code": one.code, "message": one.message} for one in problems]
        if self._printed({"manifest": file, "digest": totals.digest, "problems": rows}):
            return
        for problem in problems:
            self._line(f"{problem.path or 'manifest'}: {problem.code}: {problem.message}")
        bad = len({problem.path for problem in problems if problem.path})
        verdict = f"{len(problems):,} problems; do not rely on {bad:,} of the images"
        self.out.print(
            f"{totals.images:,} images, {totals.bytes:,} bytes, digest {totals.digest}: "
            + (verdict if problems else "all there and unchanged")
        )

    @contextmanager
    def counting(self, name: str, total: int | None) -> Iterator[Callable[..., None]]:
        """A bar; the function that it yields is called with the images and bytes done, and with the total where that is
        not known at first."""
        with new_bar(self) as bar:
            task = bar.add_task(name, total=total, rate="")
            size = 0

            def add(images: int, bytes_: int, new_total: int | None = None) -> None:
                nonlocal size
                size += bytes_
                bar.update(task, advance=images, total=new_total or total, rate=rate_text(bar, task, size, 0))

            yield add

    def _table(self, rows: Rows, budget_bytes: int | None, judged: Mapping[str, str] | None = None) -> None:
        trained = "top1" in rows[0]
        title = f"budget {budget_bytes:,} bytes" if budget_bytes else "no budget: every image is kept"
        table = Table(title=title, title_justify="left")
        for name in ("distance", "images", "factor", "bytes", "of budget", *(TRAINED if trained else ())):
            table.add_column(name, justify="right", overflow="fold")
        for row in rows:
            cells = [row["distance"], f"{row['images']:,}", f"{row['factor']:.2f}x" if row["factor"] else ""]
            cells += [f"{row['bytes']:,}", f"{100 * row['bytes'] / budget_bytes:.2f} %" if budget_bytes else ""]
            if trained:
                cells += [*_accuracy(row["top1"], row["interval"]), (judged or {}).get(row["distance"], "")]
            table.add_row(*cells)
        self.out.print(table)
        for row in rows:
            if "levels" in row:
                self._line(f"{row['distance']}: {rule_result(row['levels']).describe()}")


def _accuracy(top1: float, interval: Sequence[float]) -> tuple[str, str]:
    low, high = interval
    return f"{100 * top1:.1f} %", f"{100 * low:.1f}-{100 * high:.1f} %"


def _by_count(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def new_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console.err,
        disable=console.as_json,
    )


def rate_text(bar: Progress, task: TaskID, bytes_in: int, bytes_out: int) -> str:
    current = next(one for one in bar.tasks if one.id == task)
    rate = current.completed / current.elapsed if current.elapsed else 0.0
    text = f"{rate:,.1f}/s" + (f", {bytes_in / 1e6:,.1f} MB in" if bytes_in else "")
    return text + (f", {bytes_out / 1e6:,.1f} MB out" if bytes_out else "")
