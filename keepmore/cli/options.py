"""Options that commands share, and what their failures are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from keepmore.errors import StoreUnwritable
from keepmore.spec import training
from keepmore.spec.training import PROBE

DEFAULT_STORE = "~/.local/share/keepmore"

Command = Callable[..., Any]


def place_options(command: Command) -> Command:
    """Where the command takes its question: a store, or a service."""
    for option in (
        click.option(
            "--api-key", envvar="KEEPMORE_API_KEY", metavar="KEY", help="For --server. Also KEEPMORE_API_KEY."
        ),
        click.option(
            "--server", envvar="KEEPMORE_SERVER", metavar="URL", help="Ask this service. Also KEEPMORE_SERVER."
        ),
        click.option(
            "--store",
            envvar="KEEPMORE_STORE",
            default=DEFAULT_STORE,
            show_default=True,
            metavar="PLACE",
            help="Folder, or s3://bucket/prefix, that holds jobs and objects. Also KEEPMORE_STORE.",
        ),
    ):
        command = option(command)
    return command


def training_options(command: Command) -> Command:
    for option in (
        click.option(
            "--tune",
            multiple=True,
            metavar="NAME=VALUE",
            help=f"How to fine-tune; again for each field: {', '.join(training.TUNING_FIELDS)}.",
        ),
        click.option(
            "--test-distances",
            metavar="LIST",
            help="Also test on the evaluation images as they look at these distances, such as 4,10.",
        ),
        click.option("--seeds", type=int, default=3, show_default=True, help="Trainings per distance."),
        click.option("--epochs", type=int, help="Passes over the images of each subset, instead of --steps."),
        click.option(
            "--steps", type=int, default=300, show_default=True, help="Training steps, the same at every distance."
        ),
        click.option(
            "--method",
            default=PROBE,
            show_default=True,
            help="probe (a linear layer on fixed features) or finetune (the whole model).",
        ),
        click.option(
            "--weights",
            default="default",
            show_default=True,
            help="default, none, torchvision's name, or a .pth, .pt or .safetensors file, here or in s3://.",
        ),
        click.option(
            "--train",
            "--model",
            "train",
            metavar="MODEL",
            help="Train this classifier at every distance: torchvision's name, or timm: and timm's.",
        ),
    ):
        command = option(command)
    return command


distances_option = click.option(
    "--distances",
    "written",
    default="0,2,4,6,8,10",
    show_default=True,
    help="0 is the original file. Also spread:0.5-15 (each image its own), fit:2000 (so many images).",
)
effort_option = click.option("--effort", type=int, default=3, show_default=True, help="Encoder effort, 1 to 10.")
budget_option = click.option(
    "--budget", help="508MB, 485MiB, as:10, as:10*0.5 or cost:11.68@0.023; without it every image is kept."
)
processes_option = click.option("--processes", type=click.IntRange(1), help="Worker processes; default one a core.")
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


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """What the operating system says against writing to `path` becomes StoreUnwritable."""
    try:
        yield
    except OSError as error:
        raise StoreUnwritable(f"{path} cannot be written ({error.strerror}); name another place") from error
