"""How classifiers are trained on a job's subsets: frozen records, their checks, and their command-line form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from keepmore.errors import InvalidRequest
from keepmore.spec.distance import ORIGINAL, check

PROBE, FINETUNE = "probe", "finetune"


METHODS = (PROBE, FINETUNE)


HEADS = ("probe", "new")


PRECISIONS = ("float32", "bfloat16", "float16")


CHOICES = {"head": HEADS, "precision": PRECISIONS}  # fields of a tuning that are one of some words


NO_WEIGHTS = "none"  # a model that starts from random numbers


MOST_STEPS, MOST_SEEDS, MOST_EPOCHS, MOST_BATCH = 1_000_000, 1000, 10_000, 65_536


IMAGE_SIDES = range(32, 1025)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a classifier is fine-tuned. `batch` images make a step, `micro_batch` of them go through the model at once.

    `layer_decay`: each layer's learning rate as a part of the next one's (None: 0.75 for transformers, 1 for others);
    `warmup`: the part of the steps in which the rate rises; `crop`: the smallest part of an image that a random crop
    shows; `image_size`: pixels of a side (None: what the weights expect); `head`: where the classifier's new layer
    starts from, a linear probe or random numbers; `precision`: what is computed in (None: the fastest that the machine
    has).
    """

    batch: int = 64
    micro_batch: int | None = None
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    layer_decay: float | None = None
    warmup: float = 0.1
    label_smoothing: float = 0.1
    crop: float = 0.25
    image_size: int | None = None
    head: str = "probe"
    precision: str | None = None

    def __post_init__(self) -> None:
        _check_range("tuning.batch", self.batch, 1, MOST_BATCH)
        if self.micro_batch is not None:
            _check_range("tuning.micro_batch", self.micro_batch, 1, self.batch)
        if self.image_size is not None:
            _check_range("tuning.image_size", self.image_size, IMAGE_SIDES[0], IMAGE_SIDES[-1])
        for name, most in (("learning_rate", 10), ("crop", 1), ("layer_decay", 1)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise InvalidRequest(f"{value} is not possible; use above 0 to {most}", field=f"training.tuning.{name}")
        for name, largest in (("weight_decay", 10.0), ("warmup", 1.0), ("label_smoothing", 0.99)):
            _check_range(f"tuning.{name}", getattr(self, name), 0, largest)
        for name, words in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in words:
                raise InvalidRequest(f"{value!r} is unknown; use {' or '.join(words)}", field=f"training.tuning.{name}")


@dataclass(frozen=True, slots=True)
class Training:
    """A classifier trained on every subset with the same number of steps, or of `epochs` where they are given.

    `test_distances`: beside the evaluation images as they are, test on them as they look at these distances.
    """

    model: str = "mobilenet_v2"
    weights: str = "default"
    method: str = "probe"
    steps: int = 300
    seeds: int = 3
    epochs: int | None = None
    test_distances: tuple[float, ...] = ()
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidRequest(f"{self.method!r} is unknown; use {' or '.join(METHODS)}", field="training.method")
        _check_range("steps", self.steps, 1, MOST_STEPS)
        _check_range("seeds", self.seeds, 1, MOST_SEEDS)
        if self.epochs is not None:
            _check_range("epochs", self.epochs, 1, MOST_EPOCHS)
        if self.method == FINETUNE and self.tuning is None:
            object.__setattr__(self, "tuning", Tuning())
        if self.method != FINETUNE and self.tuning is not None:
            raise InvalidRequest("there is nothing to tune in a probe; set method to finetune", field="training.tuning")
        if self.test_distances:
            tested = check(self.test_distances, "training.test_distances")
            object.__setattr__(self, "test_distances", tuple(d for d in tested if d != ORIGINAL))

    @property
    def weights_uri(self) -> str | None:
        """Where the file with the weights is, unless it is on this machine or `weights` is a name."""
        return self.weights if "://" in self.weights else None

    def as_json(self) -> dict[str, Any]:
        """Without what was not asked for: ids of trainings that earlier releases asked for stay as they are."""
        written = asdict(self)
        if self.tuning and self.tuning.precision is None:
            del written["tuning"]["precision"]
        return {name: value for name, value in written.items() if name in _ALWAYS or value not in (None, ())}

    @staticmethod
    def from_json(written: dict[str, Any]) -> Training:
        tuning = written.get("tuning")
        fields = {**written, "test_distances": tuple(written.get("test_distances", ()))}
        return Training(**{**fields, "tuning": None if tuning is None else Tuning(**tuning)})


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A training on the subsets called `subset`, one of each variant."""

    subset: str
    training: Training

    def as_json(self) -> dict[str, Any]:
        return {"subset": self.subset, "training": self.training.as_json()}

    @staticmethod
    def from_json(record: dict[str, Any]) -> TrainingRequest:
        return TrainingRequest(record["subset"], Training.from_json(record["training"]))


_ALWAYS = ("model", "weights", "method", "steps", "seeds")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{value} is not possible; use {least} to {most:,}", field=f"training.{name}")


TUNING_FIELDS = tuple(field.name for field in fields(Tuning))


INTEGER_FIELDS = ("batch", "micro_batch", "image_size")


def parse_tuning(words: Iterable[str]) -> Tuning | None:
    """The tuning that words such as "batch=32" describe; None without any. Raises InvalidRequest naming the field."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InvalidRequest(
                f"{word!r} has no value; write it as NAME=VALUE, such as batch=32", field="training.tuning"
            )
        if name not in TUNING_FIELDS:
            raise InvalidRequest(
                f"{name!r} is no field; use one of {', '.join(TUNING_FIELDS)}", field="training.tuning"
            )
        if name in found:
            raise InvalidRequest("named more than once; name it once", field=f"training.tuning.{name}")
        found[name] = _tuning_value(name, value)
    return Tuning(**found) if found else None


def _tuning_value(name: str, written: str) -> int | float | str:
    if name in CHOICES:
        return written
    number: Callable[[str], int | float] = int if name in INTEGER_FIELDS else float
    try:
        return number(written)
    except ValueError:
        kind = "whole number" if name in INTEGER_FIELDS else "number"
        raise InvalidRequest(f"{written!r} is no {kind}", field=f"training.tuning.{name}") from None


def tuning_words(tuning: Tuning) -> list[str]:
    """What `parse_tuning` makes this tuning of: only what is not as it is without."""
    usual = Tuning()
    return [
        f"{name}={getattr(tuning, name)}" for name in TUNING_FIELDS if getattr(tuning, name) != getattr(usual, name)
    ]
