"""What a job is asked to do: frozen records, their checks, and their JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from keepmore.errors import InvalidRequest
from keepmore.spec import budget as budgets
from keepmore.spec import variants as levels_
from keepmore.spec.budget import LARGEST_BYTES, Budget
from keepmore.spec.distance import ORIGINAL, check, text
from keepmore.spec.variants import Fit, Level, Spread

ORDERS = ("random", "smallest")
PROBE, FINETUNE = "probe", "finetune"
METHODS = (PROBE, FINETUNE)
HEADS = ("probe", "new")
PRECISIONS = ("float32", "bfloat16", "float16")
CHOICES = {"head": HEADS, "precision": PRECISIONS}  # fields of a tuning that are one of some words
NO_WEIGHTS = "none"  # a model that starts from random numbers
EFFORTS = range(1, 11)
# Pillow refuses more than this on its own, so a higher limit would promise what cannot be kept.
LARGEST_PIXELS = 178_956_970
MOST_STEPS, MOST_SEEDS, MOST_EPOCHS, MOST_BATCH = 1_000_000, 1000, 10_000, 65_536
IMAGE_SIDES = range(32, 1025)
ID_DIGITS = 12
LARGEST_SEED = 2**63 - 1
OWN = "own"  # instead of its id: the subset that a job itself asked for


@dataclass(frozen=True, slots=True)
class Selection:
    """How images are ordered before the longest prefix that fits is taken; `balance` None: where there are labels."""

    order: str = "random"
    balance: bool | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InvalidRequest(f"selection.order: {self.order!r} is unknown; use {' or '.join(ORDERS)}")
        _check_seed("selection.seed", self.seed)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Images for testing only: a dataset of their own, or a fraction of every class held out of the pool."""

    dataset: str | None = None
    holdout: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (not self.dataset) == (self.holdout is None):
            raise InvalidRequest("evaluation: give either a dataset or a hold-out, not both and not neither")
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise InvalidRequest(f"evaluation.holdout: {self.holdout} is not a part of the images; use such as 0.2")
        _check_seed("evaluation.seed", self.seed)


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
                raise InvalidRequest(f"training.tuning.{name}: {value} is not possible; use above 0 to {most}")
        for name, largest in (("weight_decay", 10.0), ("warmup", 1.0), ("label_smoothing", 0.99)):
            _check_range(f"tuning.{name}", getattr(self, name), 0, largest)
        for name, words in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in words:
                raise InvalidRequest(f"training.tuning.{name}: {value!r} is unknown; use {' or '.join(words)}")


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
            raise InvalidRequest(f"training.method: {self.method!r} is unknown; use {' or '.join(METHODS)}")
        _check_range("steps", self.steps, 1, MOST_STEPS)
        _check_range("seeds", self.seeds, 1, MOST_SEEDS)
        if self.epochs is not None:
            _check_range("epochs", self.epochs, 1, MOST_EPOCHS)
        if self.method == FINETUNE and self.tuning is None:
            object.__setattr__(self, "tuning", Tuning())
        if self.method != FINETUNE and self.tuning is not None:
            raise InvalidRequest("training.tuning: there is nothing to tune in a probe; set method to finetune")
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


_ALWAYS = ("model", "weights", "method", "steps", "seeds")


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"training.{name}: {value} is not possible; use {least} to {most:,}")


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on one image, checked before it is decoded."""

    max_pixels: int = 64_000_000
    max_bytes: int = 100_000_000

    def __post_init__(self) -> None:
        if not 0 < self.max_pixels <= LARGEST_PIXELS:
            raise InvalidRequest(f"limits.max_pixels: {self.max_pixels} is not possible; use 1 to {LARGEST_PIXELS}")
        if not 0 < self.max_bytes <= LARGEST_BYTES:
            raise InvalidRequest(f"limits.max_bytes: {self.max_bytes} is not possible; use 1 to {LARGEST_BYTES}")


def _check_seed(field: str, seed: int) -> None:
    if not 0 <= seed <= LARGEST_SEED:
        raise InvalidRequest(f"{field}: {seed} is not possible; use 0 to {LARGEST_SEED}")


@dataclass(frozen=True, slots=True)
class Request:
    """A job's request, whole and checked. `dataset` and `evaluation.dataset` are absolute URIs.

    `distances` are the fixed ones; `levels` stand beside them, or alone. Without a budget every image of the pool is
    kept. `webhook`: an http(s) URL that is told of the job's end.
    """

    dataset: str
    distances: tuple[float, ...]
    effort: int = 3
    budget: Budget | None = None
    selection: Selection = field(default_factory=Selection)
    evaluation: Evaluation | None = None
    training: Training | None = None
    limits: Limits = field(default_factory=Limits)
    webhook: str | None = None
    levels: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        fixed, levels = levels_.checked(self.distances, self.levels)
        object.__setattr__(self, "distances", fixed)
        object.__setattr__(self, "levels", levels)
        if self.effort not in EFFORTS:
            raise InvalidRequest(f"effort: {self.effort} is not possible; use {EFFORTS[0]} to {EFFORTS[-1]}")
        if isinstance(self.budget, budgets.DistanceBudget):
            self.budget.bytes(dict.fromkeys(self.compressed, 0))
        self.check_budget(self.budget)
        if self.training and not self.evaluation:
            raise InvalidRequest("training: there is nothing to test on; give an evaluation dataset or a hold-out")

    def datasets(self) -> list[tuple[str, str]]:
        """The fields that name a dataset, and what they name."""
        found = [("dataset", self.dataset)]
        if self.evaluation and self.evaluation.dataset:
            found.append(("evaluation.dataset", self.evaluation.dataset))
        return found

    def check_budget(self, budget: Budget | None) -> None:
        """Raises InvalidRequest where the levels cannot do without a budget and there is none."""
        if budget is None and self.fits:
            raise InvalidRequest(f"distances: {self.fits[0].written} needs a budget that so many images fill; give one")

    @property
    def fits(self) -> tuple[Fit, ...]:
        return tuple(level for level in self.levels if isinstance(level, Fit))

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of what is compared: the fixed distances, then the levels. Each has a manifest and a training."""
        return (*map(text, self.distances), *(level.name for level in self.levels))

    @property
    def compressed(self) -> tuple[float, ...]:
        """The distances at which every image of the pool is compressed, ascending."""
        ladders = (level.ladder for level in self.levels if isinstance(level, Spread))
        return tuple(sorted({*self.distances, *(d for ladder in ladders for d in ladder)})) or (ORIGINAL,)

    @property
    def subset_id(self) -> str:
        """Names the subsets that this request asks for; the same question has the same name."""
        return subset_id(self.budget, self.selection)

    @property
    def training_id(self) -> str:
        return training_id(self.subset_id, self.training, self.evaluation)

    def as_json(self) -> dict[str, Any]:
        written = asdict(self)
        written["budget"] = budgets.as_json(self.budget)
        del written["levels"]
        written["distances"] = levels_.as_json(self.distances, self.levels)
        written["training"] = self.training and self.training.as_json()
        return written

    @staticmethod
    def from_json(written: dict[str, Any]) -> Request:
        """The request that `as_json` wrote."""
        evaluation, training = written["evaluation"], written["training"]
        distances, levels = levels_.from_json(written["distances"])
        return Request(
            dataset=written["dataset"],
            distances=distances,
            levels=levels,
            effort=written["effort"],
            budget=budgets.from_json(written["budget"]),
            selection=Selection(**written["selection"]),
            evaluation=None if evaluation is None else Evaluation(**evaluation),
            training=None if training is None else Training.from_json(training),
            limits=Limits(**written["limits"]),
            webhook=written.get("webhook"),
        )


def subset_id(budget: Budget | None, selection: Selection) -> str:
    return _digest([budgets.as_json(budget), asdict(selection)])


def training_id(subset_id: str, training: Training | None, evaluation: Evaluation | None) -> str:
    return _digest([subset_id, training and training.as_json(), evaluation and asdict(evaluation)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]
