"""The `keepmore` command."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from keepmore import __version__
from keepmore.cli.backend import Backend
from keepmore.cli.console import Console
from keepmore.cli.options import (
    DEFAULT_STORE,
    budget_option,
    distances_option,
    effort_option,
    json_option,
    place_options,
    processes_option,
    selection_options,
    training_options,
    writable,
)
from keepmore.cli.remote import RemoteBackend
from keepmore.cli.tools import sample, try_service, upload
from keepmore.client import Client
from keepmore.config import RuntimeConfig, local_packages
from keepmore.datasets.listing import absolute_uri
from keepmore.errors import DatasetError, InvalidRequest, JobNotFound, KeepmoreError, SubsetNotFound, TrainingNotFound
from keepmore.net.access import Access
from keepmore.selection import manifest
from keepmore.spec import advice as advice_spec
from keepmore.spec import budget as budgets
from keepmore.spec import distance, training
from keepmore.spec import variants as variant_specs
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.estimate import SAMPLE_IMAGES, EstimateRequest
from keepmore.spec.job import Evaluation, Limits, Request, Selection
from keepmore.spec.training import Training
from keepmore.storage.scratch import Scratch

EXIT_FAILED, EXIT_USAGE, EXIT_PROBLEMS, EXIT_INTERRUPTED = 1, 2, 3, 130

WRONG_REQUESTS = (InvalidRequest, DatasetError, JobNotFound, SubsetNotFound, TrainingNotFound)


class _Commands(click.Group):
    """The commands of this module, and those that installed services add."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *(point.name for point in _added())})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        if own:
            return own
        for point in _added():
            if point.name == name:
                try:
                    found: click.Command = point.load()
                except ImportError as error:
                    return _not_installed(name, error)
                return found
        return None


def _not_installed(name: str, error: ImportError) -> click.Command:
    def refuse() -> None:
        raise InvalidRequest(f"{name} needs more ({error}): pip install 'keepmore[api]'")

    return click.Command(name, callback=refuse, help="Needs: pip install 'keepmore[api]'.")


def _added() -> Any:
    return entry_points(group="keepmore.commands")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keepmore")
def cli() -> None:
    """Keep more training images in the same storage.

    Exit codes: 0 done; 1 failed (the message says why, and whether `keepmore resume` helps); 2 the request is wrong;
    3 `verify` found problems; 130 interrupted.
    """


@cli.command()
@click.argument("dataset")
@distances_option
@effort_option
@budget_option
@selection_options
@click.option("--evaluate", metavar="DATASET", help="Images to test on; never compressed, never kept.")
@click.option("--holdout", type=float, help="Hold this fraction of each class out for testing instead.")
@training_options
@click.option("--max-pixels", type=int, default=64_000_000, show_default=True, help="Cap on one image.")
@click.option("--max-bytes", type=int, default=100_000_000, show_default=True, help="Cap on one image's file.")
@processes_option
@place_options
@json_option
def run(dataset: str, written: str, as_json: bool, **asked: Any) -> None:
    """Compress DATASET at every distance, fit the budget, train, and report.

    DATASET is a folder (one folder a class), a .tar, or a .csv, .jsonl or .parquet table; or s3://bucket/prefix, or
    such a file under s3:// or https://.
    """
    here = asked["server"] is None
    fixed, rules = variant_specs.parse(written)
    request = Request(
        dataset=_dataset(dataset, here),
        distances=fixed,
        rules=rules,
        effort=asked["effort"],
        budget=None if asked["budget"] is None else budgets.parse(asked["budget"]),
        selection=Selection(asked["order"], asked["balance"], asked["seed"]),
        evaluation=_evaluation(asked["evaluate"], asked["holdout"], here),
        training=_training(asked, here) if asked["train"] else None,
        limits=Limits(asked["max_pixels"], asked["max_bytes"]),
    )
    backend = _backend(asked)
    _work(backend, backend.start(request), as_json)


def _dataset(written: str, here: bool) -> str:
    if not here and "://" not in written:
        raise InvalidRequest(f"{written} is a path of this machine; give the server a URI, such as s3://bucket/prefix")
    return absolute_uri(written)


def _backend(asked: dict[str, Any]) -> Backend:
    if asked["server"] is not None:
        return RemoteBackend(Client(asked["server"], asked["api_key"]))
    config = RuntimeConfig(
        asked["store"], Access.from_environment(os.environ), scratch=Scratch.from_environment(os.environ)
    )
    with local_packages():
        from keepmore.cli.local import LocalBackend
    return LocalBackend(config, DEFAULT_STORE, asked.get("processes") or os.cpu_count() or 1)


def _evaluation(dataset: str | None, holdout: float | None, here: bool) -> Evaluation | None:
    if dataset is None and holdout is None:
        return None
    return Evaluation(dataset=dataset and _dataset(dataset, here), holdout=holdout)


def _training(asked: dict[str, Any], here: bool) -> Training:
    tested = asked["test_distances"]
    return Training(
        model=asked["train"] or Training().model,
        weights=_weights(asked["weights"], here),
        method=asked["method"],
        steps=asked["steps"],
        seeds=asked["seeds"],
        epochs=asked["epochs"],
        test_distances=() if tested is None else distance.parse(tested, "training.test_distances"),
        tuning=training.parse_tuning(asked["tune"]),
    )


def _weights(written: str, here: bool) -> str:
    """The name, URI or absolute path that `--weights` gives. A file that is not there is found out now, not after hours
    of compressing."""
    if not here or written.isidentifier() or "://" in written:
        return written
    if not Path(written).is_file():
        raise InvalidRequest(f"training.weights: there is no file {written}; check the path")
    return str(Path(written).resolve())


@cli.command()
@click.argument("job")
@processes_option
@place_options
@json_option
def resume(job: str, as_json: bool, **asked: Any) -> None:
    """Do what is missing of JOB, after a crash, a full disk or Ctrl-C; nothing that is done is done again."""
    _work(_backend(asked), job, as_json)


def _work(backend: Backend, job: str, as_json: bool) -> None:
    console = Console(as_json)
    again = shlex.join(backend.resume_words(job))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        console.say(f"job {job}; to go on after an interruption: {again}")
        made = backend.work(job, console)
    except KeyboardInterrupt:
        console.error(f"{backend.when_left} with: {again}")
        sys.exit(EXIT_INTERRUPTED)
    except JobNotFound:
        raise
    except KeepmoreError as error:
        console.fail(error, again if error.retryable else None)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED)
    console.result(made)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@cli.command()
@click.argument("job")
@click.option("--budget", required=True, help="As for `run`.")
@selection_options
@place_options
@json_option
def select(job: str, budget: str, order: str, balance: bool | None, seed: int, as_json: bool, **asked: Any) -> None:
    """Another budget or order over the index of JOB: nothing is compressed again."""
    made = _backend(asked).select(job, budgets.parse(budget), Selection(order, balance, seed))
    Console(as_json).subsets(made)


@cli.command()
@click.argument("job")
@click.option("--subset", metavar="ID", help="Which subset to train on; default the job's own.")
@training_options
@processes_option
@place_options
@json_option
def train(job: str, subset: str | None, as_json: bool, **asked: Any) -> None:
    """Train another model on the subsets of JOB; nothing is compressed or selected again."""
    console = Console(as_json)
    training = _training(asked, asked["server"] is None)
    console.training(_backend(asked).train(job, subset, training, console))


@cli.command()
@click.argument("job")
@click.option(
    "--budgets", "asked_budgets", required=True, help="Comma-separated, each as for `run`: 5MB,10MB,as:10*0.5."
)
@click.option("--accuracy", type=float, help="Tell the smallest budget that reaches this top-1, 0 to 1.")
@click.option("--price", help="Money for a GB (10^9 bytes) a month: tell costs too.")
@click.option("--images", type=int, help="Images to train pilots on; default a third, at most 2,000 or 8 a class.")
@click.option("--distances", "written", help="Distances to compare; default 0,2,4,6,8,10,15,20,25.")
@click.option("--model", default=Training().model, show_default=True, help="Classifier whose features are probed.")
@click.option("--weights", default="default", show_default=True, help="As for `train`.")
@click.option("--steps", type=int, default=300, show_default=True, help="Training steps of a pilot.")
@click.option(
    "--seeds", type=int, default=advice_spec.SEEDS, show_default=True, help="Draws of images for every pilot."
)
@click.option("--page", type=click.Path(path_type=Path), help="Write the page with the plots to this file.")
@processes_option
@place_options
@json_option
def advise(job: str, asked_budgets: str, page: Path | None, as_json: bool, **asked: Any) -> None:
    """Which distance to store JOB's images at, for any budget: small trainings on a part of the pool foretell it."""
    console = Console(as_json)
    made, shown = _backend(asked).advise(job, _advice_request(asked_budgets, asked), console)
    if page:
        with writable(page):
            page.write_bytes(shown)
    console.advice(made, page)


def _advice_request(written: str, asked: dict[str, Any]) -> AdviceRequest:
    named = {"weights": _weights(asked["weights"], asked["server"] is None), "model": asked["model"]}
    found = [budgets.parse(one.strip()) for one in written.split(",") if one.strip()]
    return AdviceRequest(
        budgets=tuple(budget for budget in found if budget),
        accuracy=asked["accuracy"],
        price_per_gb_month=advice_spec.price(asked["price"]),
        images=asked["images"],
        distances=distance.parse(asked["written"]) if asked["written"] else advice_spec.DISTANCES,
        training=Training(steps=asked["steps"], seeds=asked["seeds"], **named),
    )


@cli.command()
@click.argument("dataset")
@distances_option
@effort_option
@budget_option
@selection_options
@click.option("--images", type=int, default=SAMPLE_IMAGES, show_default=True, help="How many images to sample.")
@place_options
@json_option
def estimate(dataset: str, written: str, effort: int, budget: str | None, as_json: bool, **asked: Any) -> None:
    """What DATASET would take at every distance, and how many images would fit, judged by a sample of it."""
    question = EstimateRequest(
        dataset=_dataset(dataset, asked["server"] is None),
        distances=variant_specs.fixed_only(*variant_specs.parse(written)),
        effort=effort,
        budget=None if budget is None else budgets.parse(budget),
        selection=Selection(asked["order"], asked["balance"], asked["seed"]),
        images=asked["images"],
    )
    console = Console(as_json)
    console.estimate(_backend(asked).estimate(question, console))


@cli.command()
@click.argument("job", required=False)
@place_options
@json_option
def show(job: str | None, as_json: bool, **asked: Any) -> None:
    """How JOB stands; without JOB, all jobs."""
    backend, console = _backend(asked), Console(as_json)
    if job is None:
        console.jobs(backend.jobs())
    else:
        console.status({**backend.status(job), "subsets": backend.subsets(job)})


@cli.command()
@click.argument("job")
@place_options
def cancel(job: str, **asked: Any) -> None:
    """Stop JOB within seconds; what is done is kept, and `resume` goes on with it."""
    _backend(asked).cancel(job)


@cli.command()
@click.argument("reference", metavar="MANIFEST")
@click.option("--max-pixels", type=int, default=64_000_000, show_default=True, help="Cap on one image.")
@click.option("--max-bytes", type=int, default=100_000_000, show_default=True, help="Cap on one image's file.")
@place_options
@json_option
def verify(reference: str, max_pixels: int, max_bytes: int, as_json: bool, **asked: Any) -> None:
    """Read every object of MANIFEST again: sizes, checksums, decodability, totals and digest. Exit 3 on a problem.

    MANIFEST is a file, or JOB/DISTANCE, or JOB/SUBSET/DISTANCE; for levels by name: JOB/spread-0.5-15.
    """
    with local_packages():
        from keepmore.selection.verify import verify as problems_of
    console = Console(as_json)
    with _backend(asked).manifest(reference) as file:
        with manifest.opened(file) as parquet:
            about = manifest.metadata(parquet)
        with console.counting("verify", about.totals.images) as on_row:
            # What callers of a service may read does not bind whoever checks its manifests.
            access = replace(Access.from_environment(os.environ), allowed=None)
            limits = Limits(max_pixels, max_bytes)
            problems = list(problems_of(file, limits, on_row, access))
    console.verified(reference, about, problems)
    sys.exit(EXIT_PROBLEMS if problems else 0)


@cli.command()
@click.argument("reference", metavar="MANIFEST")
@click.argument("out", type=click.Path(path_type=Path))
@place_options
def export(reference: str, out: Path, **asked: Any) -> None:
    """Write MANIFEST (a file, JOB/DISTANCE or JOB/SUBSET/DISTANCE) to OUT as .ndjson, .csv or .parquet."""
    if out.suffix not in manifest.EXPORTS:
        raise InvalidRequest(f"{out}: name the file {', '.join(manifest.EXPORTS)}")
    temporary = out.with_name(out.name + ".part")
    with _backend(asked).manifest(reference) as file, writable(out):
        try:
            with temporary.open("wb") as target:
                target.writelines(manifest.EXPORTS[out.suffix](file))
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


@cli.command()
@click.argument("job")
@place_options
def errors(job: str, **asked: Any) -> None:
    """Every image of JOB that failed and why, as NDJSON: one JSON object a line."""
    for row in _backend(asked).errors(job):
        click.echo(json.dumps(row, ensure_ascii=False))


for command in (sample, upload, try_service):
    cli.add_command(command)


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
