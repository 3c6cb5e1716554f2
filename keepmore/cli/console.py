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

from keepmore.errors import KeepmoreError
from keepmore.reporting import verdicts
from keepmore.spec import variants as variant_specs

if TYPE_CHECKING:
    from keepmore.selection.manifest import Metadata, Problem

TRAINED = ("top-1", "95 %", "verdict")
FILE_WIDTH = 120  # of tables in a file or a pipe, where no window says how wide they may be


class Console:
    """Progress and complaints go to stderr, results to stdout."""

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

    def fail(self, error: KeepmoreError, again: str | None) -> None:
        """A job that failed; `again` is the command that goes on, where that can help."""
        if self.as_json:
            print(json.dumps({"error": error.as_dict(), "resume": again}))
        self.error(error.message)
        if again:
            self.error(f"what is done is kept. After mending the cause, go on with: {again}")
        else:
            self.error("trying again will not help: start a new job; it finds the encoded images of this one again")

    def result(self, made: dict[str, Any]) -> None:
        """A finished job: its table, its warnings and where the report lies."""
        if self.as_json:
            print(json.dumps(made, ensure_ascii=False))
            return
        self._table(made["distances"], made["budget_bytes"], verdicts.by_variant(made.get("comparison")))
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
        judged = verdicts.by_variant(found.get("comparison"))
        for row in rows:
            table.add_row(row["distance"], f"{row['train_images']:,}", *_accuracy(row), judged.get(row["distance"], ""))
        self.out.print(table)
        for note in verdicts.notes(rows) if rows else ():
            self.out.print(f"warning: {note}", markup=False)
        self._kept(rows)

    def _kept(self, rows: Sequence[dict[str, Any]]) -> None:
        """Where the files of a training are."""
        places = verdicts.folders(rows)
        if "weights" in places:
            self.out.print(f"weights: {places['weights']} ({len(verdicts.weights(rows))} files)", markup=False)
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
            distances = variant_specs.written(*variant_specs.from_json(asked["distances"])) if asked else ""
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

    def verified(self, file: str, about: Metadata, problems: Sequence[Problem]) -> None:
        if self.as_json:
            found = [{"path": p.path, "code": p.code, "message": p.message} for p in problems]
            print(json.dumps({"manifest": file, "digest": about.totals.digest, "problems": found}, ensure_ascii=False))
            return
        for problem in problems:
            self.out.print(f"{problem.path or 'manifest'}: {problem.code}: {problem.message}", markup=False)
        bad = len({problem.path for problem in problems if problem.path})
        self.out.print(
            f"{about.totals.images:,} images, {about.totals.bytes:,} bytes, digest {about.totals.digest}: "
            + (
                f"{len(problems)} found wrong, {bad:,} images cannot be relied on"
                if problems
                else "all there and unchanged"
            )
        )

    @contextmanager
    def counting(self, name: str, total: int | None) -> Iterator[Callable[..., None]]:
        """A bar; what it gives is called with images and bytes as they are done, and the total where it comes late."""
        with new_bar(self) as bar:
            task = bar.add_task(name, total=total, rate="")
            size = 0

            def add(images: int, bytes_: int, new_total: int | None = None) -> None:
                nonlocal size
                size += bytes_
                bar.update(task, advance=images, total=new_total or total, rate=rate_text(bar, task, size, 0))

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
                self.out.print(f"{row['distance']}: {variant_specs.told(row)}", markup=False)


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
    shown = next(found for found in bar.tasks if found.id == task)
    rate = shown.completed / shown.elapsed if shown.elapsed else 0.0
    said = f"{rate:,.1f}/s" + (f", {bytes_in / 1e6:,.1f} MB in" if bytes_in else "")
    return said + (f", {bytes_out / 1e6:,.1f} MB out" if bytes_out else "")
