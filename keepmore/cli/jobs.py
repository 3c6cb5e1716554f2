"""The commands about jobs: start, resume, ask, show, stop."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from keepmore.cli import EXIT_INTERRUPTED
from keepmore.cli.backend import Backend, open_backend
from keepmore.cli.console import Console
from keepmore.cli.options import (
    DISTANCES,
    EXIT_FAILED,
    EXIT_USAGE,
    Place,
    TrainingOptions,
    budget_option,
    distances_option,
    effort_option,
    json_option,
    place_options,
    processes_option,
    selection_options,
    training_options,
    weights_at,
    writable,
)
from keepmore.datasets.address import absolute_uri
from keepmore.errors import InvalidRequest, JobNotFound, KeepmoreError
from keepmore.spec import advice as advice_spec
from keepmore.spec import budget as budgets
from keepmore.spec import distance
from keepmore.spec import variants as variant_specs
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.estimate import SAMPLE_IMAGES, EstimateRequest
from keepmore.spec.job import Evaluation, Limits, Request, Selection
from keepmore.spec.training import Training

EVERY_BUDGET = "Comma-separated, each as for `run`: 5MB,10MB,as:10*0.5."


@click.command(short_help="Compress, select, train and report on a dataset.")
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
def run(
    dataset: str,
    distances: str,
    effort: int,
    budget: str | None,
    selection: Selection,
    evaluate: str | None,
    holdout: float | None,
    training: TrainingOptions,
    max_pixels: int,
    max_bytes: int,
    processes: int | None,
    place: Place,
    as_json: bool,
) -> None:
    """Compress DATASET at every distance, fit the budget, train, and report.

    DATASET is a folder (one folder per class), a .tar, or a .csv, .jsonl or .parquet table; or s3://bucket/prefix, or
    such a file under s3:// or https://.
    """
    fixed, rules = variant_specs.parse(distances)
    evaluation = None
    if evaluate is not None or holdout is not None:
        evaluation = Evaluation(dataset=evaluate and _dataset(evaluate, place), holdout=holdout)
    request = Request(
        dataset=_dataset(dataset, place),
        distances=fixed,
        rules=rules,
        effort=effort,
        budget=None if budget is None else budgets.parse(budget),
        selection=selection,
        evaluation=evaluation,
        training=training.record(place) if training.train else None,
        limits=Limits(max_pixels, max_bytes),
    )
    backend = open_backend(place, processes)
    _work(backend, backend.start(request), as_json)


def _dataset(name: str, place: Place) -> str:
    if not place.is_local and "://" not in name:
        raise InvalidRequest(f"{name} is a path of this machine; give the server a URI, such as s3://bucket/prefix")
    return absolute_uri(name)


@click.command(short_help="Continue a job from what is done.")
@click.argument("job")
@processes_option
@place_options
@json_option
def resume(job: str, processes: int | None, place: Place, as_json: bool) -> None:
    """Run the missing steps of JOB, after a crash, a full disk or Ctrl-C; nothing is done twice."""
    _work(open_backend(place, processes), job, as_json)


def _work(backend: Backend, job: str, as_json: bool) -> None:
    console = Console(as_json)
    again = backend.command("resume", job)
    try:
        console.say(f"job {job}; to continue after an interruption: {again}")
        report = backend.work(job, console)
    except KeyboardInterrupt:
        console.error(f"{backend.when_left} with: {again}")
        sys.exit(EXIT_INTERRUPTED)
    except JobNotFound:
        raise
    except KeepmoreError as error:
        console.fail(error, again, backend.command("select", job))
        sys.exit(EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED)
    console.result(report)


@click.command(short_help="Another budget or order over a job's index.")
@click.argument("job")
@click.option("--budget", required=True, help="As for `run`.")
@selection_options
@place_options
@json_option
def select(job: str, budget: str, selection: Selection, place: Place, as_json: bool) -> None:
    """Another budget or order over the index of JOB: nothing is compressed again."""
    Console(as_json).subsets(open_backend(place).select(job, budgets.parse(budget), selection))


@click.command(short_help="Train another model on a job's subsets.")
@click.argument("job")
@click.option("--subset", metavar="ID", help="Which subset to train on; default the job's own.")
@training_options
@processes_option
@place_options
@json_option
def train(
    job: str, subset: str | None, training: TrainingOptions, processes: int | None, place: Place, as_json: bool
) -> None:
    """Train another model on the subsets of JOB; nothing is compressed or selected again."""
    console = Console(as_json)
    record = training.record(place)
    console.training(open_backend(place, processes).train(job, subset, record, console))


@click.command(short_help="Recommend a distance for any budget.")
@click.argument("job")
@click.option("--budgets", "every_budget", required=True, help=EVERY_BUDGET)
@click.option("--accuracy", type=float, help="Also give the smallest budget that reaches this top-1, 0 to 1.")
@click.option("--price", help="Money per GB (10^9 bytes) and month: also give costs.")
@click.option(
    "--images",
    type=int,
    help="Images to train pilots on; default a third, up to 2,000 or 8 per class, whichever is more.",
)
@click.option("--distances", help="Distances to compare; default 0,2,4,6,8,10,15,20,25.")
@click.option("--model", default=Training().model, show_default=True, help="Classifier whose features are probed.")
@click.option("--weights", default="default", show_default=True, help="As for `train`.")
@click.option("--steps", type=int, default=300, show_default=True, help="Training steps of a pilot.")
@click.option(
    "--seeds", type=int, default=advice_spec.SEEDS, show_default=True, help="Random choices of images for every pilot."
)
@click.option("--page", type=click.Path(path_type=Path), help="Write the page with the plots to this file.")
@processes_option
@place_options
@json_option
def advise(
    job: str,
    every_budget: str,
    accuracy: float | None,
    price: str | None,
    images: int | None,
    distances: str | None,
    model: str,
    weights: str,
    steps: int,
    seeds: int,
    page: Path | None,
    processes: int | None,
    place: Place,
    as_json: bool,
) -> None:
    """Which distance to store JOB's images at, for any budget, predicted by small trainings on a part of the pool."""
    console = Console(as_json)
    each = [budgets.parse(one.strip()) for one in every_budget.split(",") if one.strip()]
    request = AdviceRequest(
        budgets=tuple(budget for budget in each if budget),
        accuracy=accuracy,
        price_per_gb_month=advice_spec.price(price),
        images=images,
        distances=distance.parse(distances) if distances else advice_spec.DISTANCES,
        training=Training(model=model, weights=weights_at(weights, place), steps=steps, seeds=seeds),
    )
    advice, html = open_backend(place, processes).advise(job, request, console)
    if page:
        with writable(page):
            page.write_bytes(html)
    console.advice(advice, page)


@click.command(short_help="Predict sizes and counts from a sample.")
@click.argument("dataset")
@click.option("--distances", default=DISTANCES, show_default=True, help="0 is the original file.")
@effort_option
@budget_option
@selection_options
@click.option("--images", type=int, default=SAMPLE_IMAGES, show_default=True, help="How many images to sample.")
@place_options
@json_option
def estimate(
    dataset: str,
    distances: str,
    effort: int,
    budget: str | None,
    selection: Selection,
    images: int,
    place: Place,
    as_json: bool,
) -> None:
    """What DATASET would take at every distance, and how many images would fit, estimated from a sample of it."""
    request = EstimateRequest(
        dataset=_dataset(dataset, place),
        distances=variant_specs.fixed_only(*variant_specs.parse(distances)),
        effort=effort,
        budget=None if budget is None else budgets.parse(budget),
        selection=selection,
        images=images,
    )
    console = Console(as_json)
    console.estimate(open_backend(place).estimate(request, console))


@click.command(short_help="Show the status of a job, or of all.")
@click.argument("job", required=False)
@place_options
@json_option
def show(job: str | None, place: Place, as_json: bool) -> None:
    """Show the status of JOB; without JOB, of all jobs."""
    backend, console = open_backend(place), Console(as_json)
    if job is None:
        console.jobs(backend.jobs(), backend.where)
    else:
        console.status({**backend.status(job), "subsets": backend.subsets(job)})


@click.command(short_help="Stop a job; what is done is kept.")
@click.argument("job")
@place_options
def cancel(job: str, place: Place) -> None:
    """Stop JOB within seconds; what is done is kept, and `resume` continues it."""
    open_backend(place).cancel(job)


@click.command(short_help="List the images that failed, as NDJSON.")
@click.argument("job")
@place_options
def errors(job: str, place: Place) -> None:
    """Every image of JOB that failed and why, as NDJSON: one JSON object per line."""
    for row in open_backend(place).errors(job):
        click.echo(json.dumps(row, ensure_ascii=False))


COMMANDS = (run, resume, select, train, advise, estimate, show, cancel, errors)
