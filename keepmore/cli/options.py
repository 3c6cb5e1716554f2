"""Options that commands share, each group as one record, and the names of their failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce, wraps
from pathlib import Path
from typing import Any, cast

import click

from keepmore.errors import InvalidRequest, StoreUnwritable
from keepmore.spec import distance
from keepmore.spec.job import Selection
from keepmore.spec.training import PROBE, TUNING_FIELDS, Training, parse_tuning

EXIT_FAILED, EXIT_USAGE, EXIT_PROBLEMS = 1, 2, 3
DEFAULT_STORE = "~/.local/share/keepmore"

Command = Callable[..., Any]
Option = Callable[[Command], Command]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works: on this machine, with a store; or at the service `server`."""

    store: str
    server: str | None
    api_key: str | None

    @property
    def is_local(self) -> bool:
        return self.server is None


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train, as on the command line."""

    train: str | None
    weights: str
    method: str
    steps: int
    epochs: int | None
    seeds: int
    test_distances: str | None
    tune: tuple[str, ...]

    def record(self, place: Place) -> Training:
        """Raises InvalidRequest."""
        return Training(
            model=self.train or Training().model,
            weights=weights_at(self.weights, place),
            method=self.method,
            steps=self.steps,
            seeds=self.seeds,
            epochs=self.epochs,
            test_distances=distance.parse(self.test_distances, "training.test_distances")
            if self.test_distances is not None
            else (),
            tuning=parse_tuning(self.tune),
        )


def weights_at(weights: str, place: Place) -> str:
    """The name, URI or absolute path that `--weights` gives. A missing file is found now, not after hours of
    compressing. Raises InvalidRequest."""
    if not place.is_local or weights.isidentifier() or "://" in weights:
        return weights
    if not Path(weights).is_file():
        raise InvalidRequest(f"there is no file {weights}; check the path", field="training.weights")
    return str(Path(weights).resolve())


def _grouped(name: str, record: Callable[..., Any], fields: tuple[str, ...], options: tuple[Option, ...]) -> Option:
    """A decorator that adds `options` to a command, and gives it their values as one `record` called `name`."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(**values: Any) -> Any:
            group = {field: values.pop(field) for field in fields}
            return command(**values, **{name: record(**group)})

        return reduce(lambda decorated, option: option(decorated), options, cast(Command, call))

    return decorate


place_options = _grouped(
    "place",
    Place,
    ("store", "server", "api_key"),
    (
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
    ),
)

training_options = _grouped(
    "training",
    TrainingOptions,
    ("train", "weights", "method", "steps", "epochs", "seeds", "test_distances", "tune"),
    (
        click.option(
            "--tune",
            multiple=True,
            metavar="NAME=VALUE",
            help=f"How to fine-tune; again for each field: {', '.join(TUNING_FIELDS)}.",
        ),
        click.option(
            "--test-distances",
            metavar="LIST",
            help="Also test on the evaluation images as encoded at these distances, such as 4,10.",
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
    ),
)

selection_options = _grouped(
    "selection",
    Selection,
    ("order", "balance", "seed"),
    (
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random order."),
        click.option(
            "--balance/--no-balance", default=None, help="Fill the classes in turn; default where labels exist."
        ),
        click.option("--order", default="random", show_default=True, help="random or smallest (smallest first)."),
    ),
)

DISTANCES = "0,2,4,6,8,10"
distances_option = click.option(
    "--distances",
    default=DISTANCES,
    show_default=True,
    help="0 is the original file. Also spread:0.5-15 (each image its own), fit:2000 (this number of images).",
)
effort_option = click.option("--effort", type=int, default=3, show_default=True, help="Encoder effort, 1 to 10.")
budget_option = click.option(
    "--budget", help="508MB, 485MiB, as:10, as:10*0.5 or cost:11.68@0.023; without it every image is kept."
)
processes_option = click.option("--processes", type=click.IntRange(1), help="Worker processes; default one per core.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for machines.")


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """An error of the operating system in writing to `path` becomes StoreUnwritable."""
    try:
        yield
    except OSError as error:
        raise StoreUnwritable(f"{path} cannot be written ({error.strerror}); name another place") from error
