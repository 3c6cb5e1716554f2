"""The `keepmore` command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keepmore import __version__, index, keys, manifest
from keepmore import budget as budgets
from keepmore import distance as distances
from keepmore.datasets import absolute_uri, check_dataset
from keepmore.errors import DatasetError, InvalidRequest, JobNotFound, JobNotReady, KeepmoreError, StoreUnwritable
from keepmore.isolation import IsolatedDecoder
from keepmore.jobs import Job, JobBook
from keepmore.local import run_job
from keepmore.request import Evaluation, Limits, Request, Selection, Training
from keepmore.sample import write_sample
from keepmore.screen import JobProgress, Screen
from keepmore.status import status
from keepmore.steps import Workshop, ask_for_subset, output, run_step
from keepmore.store import FolderStore

DEFAULT_STORE = "~/.local/share/keepmore"
EXIT_FAILED, EXIT_USAGE, EXIT_PROBLEMS, EXIT_INTERRUPTED = 1, 2, 3, 130

WRONG_REQUESTS = (InvalidRequest, DatasetError, JobNotFound)

Command = Callable[..., Any]

store_option = click.option(
    "--store", default=DEFAULT_STORE, show_default=True, metavar="DIR", help="Folder that holds jobs and objects."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")


def selection_options(command: Command) -> Command:
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random order."),
        click.option(
            "--balance/--no-balance", default=None, help="Fill the classes in turn; default where labels exist."
        ),
        click.option("--order", default="random", show_default=True, help="random or smallest (smallest first)."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keepmore")
def cli() -> None:
    """Keep more training images in the same storage.

    Exit codes: 0 done; 1 failed (the message says why, and whether `keepmore resume` helps); 2 the request is wrong;
    3 `verify` found problems; 130 interrupted.
    """


@cli.command()
@click.argument("dataset")
@click.option("--distances", "written", default="0,2,4,6,8,10", show_default=True, help="0 is the original file.")
@click.option("--effort", type=int, default=3, show_default=True, help="Encoder effort, 1 to 10.")
@click.option("--budget", help="508MB, 485MiB, as:10, as:10*0.5 or cost:11.68@0.023; without it every image is kept.")
@selection_options
@click.option("--evaluate", metavar="DATASET", help="Images to test on; never compressed, never kept.")
@click.option("--holdout", type=float, help="Hold this fraction of each class out for testing instead.")
@click.option("--train", metavar="MODEL", help="Train a linear probe on this torchvision classifier, per distance.")
@click.option("--weights", default="default", show_default=True, help="default, none, torchvision's name, or a file.")
@click.option("--steps", type=int, default=300, show_default=True, help="Training steps, the same at every distance.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Trainings per distance.")
@click.option("--max-pixels", type=int, default=64_000_000, show_default=True, help="Cap on one image.")
@click.option("--max-bytes", type=int, default=100_000_000, show_default=True, help="Cap on one image's file.")
@click.option("--processes", type=click.IntRange(1), help="Worker processes; default one a core.")
@store_option
@json_option
def run(dataset: str, written: str, store: str, as_json: bool, processes: int | None, **asked: Any) -> None:
    """Compress DATASET at every distance, fit the budget, train, and report.

    DATASET is a folder (one folder a class), a .tar, or a .csv, .jsonl or .parquet table.
    """
    request = Request(
        dataset=absolute_uri(dataset),
        distances=distances.parse(written),
        effort=asked["effort"],
        budget=None if asked["budget"] is None else budgets.parse(asked["budget"]),
        selection=Selection(asked["order"], asked["balance"], asked["seed"]),
        evaluation=_evaluation(asked["evaluate"], asked["holdout"]),
        training=_training(asked),
        limits=Limits(asked["max_pixels"], asked["max_bytes"]),
    )
    _refuse_store_in_dataset(Path(store).expanduser(), request)
    folder = _opened(store)
    _work(JobBook(folder).create(request), folder, processes, as_json)


def _refuse_store_in_dataset(store: Path, request: Request) -> None:
    evaluated = request.evaluation.dataset if request.evaluation else None
    for uri in (request.dataset, *([evaluated] if evaluated else [])):
        if store.resolve().is_relative_to(check_dataset(uri).resolve()):
            raise InvalidRequest(
                f"--store {store}: lies in the dataset {uri}, whose next listing would find the encoded images; "
                "name a folder outside of it"
            )


def _evaluation(dataset: str | None, holdout: float | None) -> Evaluation | None:
    if dataset is None and holdout is None:
        return None
    return Evaluation(dataset=dataset and absolute_uri(dataset), holdout=holdout)


def _training(asked: dict[str, Any]) -> Training | None:
    if asked["train"] is None:
        return None
    weights = asked["weights"]
    if Path(weights).is_file():
        weights = str(Path(weights).resolve())
    return Training(model=asked["train"], weights=weights, steps=asked["steps"], seeds=asked["seeds"])


@cli.command()
@click.argument("job")
@click.option("--processes", type=click.IntRange(1), help="Worker processes; default one a core.")
@store_option
@json_option
def resume(job: str, store: str, processes: int | None, as_json: bool) -> None:
    """Do what is missing of JOB, after a crash, a full disk or Ctrl-C; nothing that is done is done again."""
    folder = _opened(store)
    _work(JobBook(folder).get(job), folder, processes, as_json)


def _work(job: Job, store: FolderStore, processes: int | None, as_json: bool) -> None:
    screen = Screen(as_json)
    again = _resume_command(job, store)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        screen.say(f"job {job.id}; to go on after an interruption: {again}")
        with JobProgress(screen, job, store) as progress:
            run_job(job, store, processes or os.cpu_count() or 1, progress.add, progress.done)
    except KeyboardInterrupt:
        screen.complain(f"stopped; nothing is lost. Go on with: {again}")
        sys.exit(EXIT_INTERRUPTED)
    except KeepmoreError as error:
        screen.fail(error, again if error.retryable else None)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED)
    made = json.loads(store.get(keys.report(job.id)))
    made["report"] = store.uri(keys.report_page(job.id))
    screen.result(made)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _resume_command(job: Job, store: FolderStore) -> str:
    place = "" if store.root == Path(DEFAULT_STORE).expanduser() else f" --store {shlex.quote(str(store.root))}"
    return f"keepmore resume {job.id}{place}"


@cli.command()
@click.argument("job")
@click.option("--budget", required=True, help="As for `run`.")
@selection_options
@store_option
@json_option
def select(job: str, budget: str, order: str, balance: bool | None, seed: int, store: str, as_json: bool) -> None:
    """Another budget or order over the index of JOB: nothing is compressed again."""
    folder = _opened(store)
    found = JobBook(folder).get(job)
    step = ask_for_subset(found, folder, budgets.parse(budget), Selection(order, balance, seed))
    with IsolatedDecoder() as decoder:
        run_step(found, step, folder, Workshop(decoder, lambda progress: None))
    Screen(as_json).subsets(json.loads(folder.get(output(found, step))))


@cli.command()
@click.argument("job", required=False)
@store_option
@json_option
def show(job: str | None, store: str, as_json: bool) -> None:
    """How JOB stands; without JOB, all jobs of the store."""
    folder = _opened(store)
    book = JobBook(folder)
    screen = Screen(as_json)
    if job is None:
        screen.jobs([book.get(name) for name in book.ids()])
    else:
        screen.status(status(book.get(job), folder))


@cli.command()
@click.argument("manifest_file", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.option("--max-pixels", type=int, default=64_000_000, show_default=True, help="Cap on one image.")
@click.option("--max-bytes", type=int, default=100_000_000, show_default=True, help="Cap on one image's file.")
@json_option
def verify(manifest_file: Path, max_pixels: int, max_bytes: int, as_json: bool) -> None:
    """Read every object of MANIFEST again: sizes, checksums, decodability, totals and digest. Exit 3 on a problem."""
    screen = Screen(as_json)
    with manifest.opened(manifest_file) as parquet:
        about = manifest.metadata(parquet)
    with screen.counting("verify", about["images"]) as on_row:
        problems = list(manifest.verify(manifest_file, Limits(max_pixels, max_bytes), on_row))
    screen.verified(manifest_file, about, problems)
    sys.exit(EXIT_PROBLEMS if problems else 0)


@cli.command()
@click.argument("manifest_file", metavar="MANIFEST", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def export(manifest_file: Path, out: Path) -> None:
    """Write MANIFEST to OUT as .ndjson or .csv."""
    if out.suffix not in (".csv", ".ndjson"):
        raise InvalidRequest(f"{out}: name the file .ndjson or .csv")
    temporary = out.with_name(out.name + ".part")
    with _writable(out):
        try:
            if out.suffix == ".ndjson":
                with temporary.open("w", encoding="utf-8") as text_file:
                    manifest.export_ndjson(manifest_file, text_file)
            else:
                with temporary.open("wb") as file:
                    manifest.export_csv(manifest_file, file)
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnwritable(f"{path} cannot be written ({error.strerror}); name another place") from error


@cli.command()
@click.argument("job")
@store_option
def errors(job: str, store: str) -> None:
    """Every image of JOB that failed and why, as NDJSON: one JSON object a line."""
    folder = _opened(store)
    found = JobBook(folder).get(job)
    if not folder.exists(keys.index_summary(found.id)):
        raise JobNotReady(f"job {job} has no index yet; let it finish first: {_resume_command(found, folder)}")
    for row in index.errors(folder, keys.index(found.id), keys.evaluation(found.id)):
        click.echo(json.dumps(row, ensure_ascii=False))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--train-images", type=click.IntRange(1), default=240, show_default=True, help="Images a class to keep from."
)
@click.option("--test-images", type=click.IntRange(1), default=60, show_default=True, help="Images a class to test on.")
@click.option("--seed", type=int, default=0, show_default=True)
def sample(folder: Path, train_images: int, test_images: int, seed: int) -> None:
    """Write a labelled set of photograph-like JPEGs to FOLDER/train and FOLDER/test, the same for the same seed."""
    with _writable(folder), Screen(as_json=False).counting("draw", None) as on_row:
        write_sample(
            folder,
            train_per_class=train_images,
            test_per_class=test_images,
            seed=seed,
            processes=os.cpu_count() or 1,
            on_image=lambda done, total: on_row(1, 0, total),
        )


def _opened(store: str) -> FolderStore:
    return FolderStore(Path(store).expanduser())


def main() -> None:
    """The console script: errors become a message and an exit code, never a traceback."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        click.echo("keepmore: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeepmoreError as error:
        click.echo(f"keepmore: {error}", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, WRONG_REQUESTS) else EXIT_FAILED)
