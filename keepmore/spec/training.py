"""How classifiers are trained on a job's subsets: frozen records, their checks, and their command-line form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from keepmore.errors import InvalidRequest
from keepmore.spec.distance import ORIGINAL, check
from keepmore.spec.fields import check_fields, described

PROBE, FINETUNE = "probe", "finetune"
NO_WEIGHTS = "none"  # a model that starts from random numbers
MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a classifier is fine-tuned. `batch` images make a step, `micro_batch` of them go through the model at once.

    `layer_decay`: each layer's learning rate as a part of the next one's; `crop`: the smallest part of an image that a
    random crop shows; `head`: the start of the classifier's new layer, a linear probe or random numbers.
    """

    batch: int = described(64, least=1, most=65_536, description="Images of a step.")
    micro_batch: int | None = described(
        None, description="Images that go through the model at once; null: all of a step."
    )
    learning_rate: float = described(1e-4, above=0, most=10)
    weight_decay: float = described(0.05, least=0, most=10.0)
    layer_decay: float | None = described(
        None, above=0, most=1, description="Null: 0.75 for transformers, 1 for other models."
    )
    warmup: float = described(0.1, least=0, most=1.0, description="Part of the steps in which the rate rises.")
    label_smoothing: float = described(0.1, least=0, most=0.99)
    crop: float = described(0.25, above=0, most=1)
    image_size: int | None = described(
        None, least=32, most=1024, description="Pixels of a side; null: what the weights expect."
    )
    head: str = described("probe", choices=("probe", "new"))
    precision: str | None = described(
        None,
        choices=("float32", "bfloat16", "float16"),
        description="The precision of computation; null: the fastest that the machine has.",
    )

    def __post_init__(self) -> None:
        check_fields(self, "training.tuning.")
        if self.micro_batch is not None and not 1 <= self.micro_batch <= self.batch:
            raise InvalidRequest(
                f"{self.micro_batch} is not possible; use 1 to {self.batch:,}", field="training.tuning.micro_batch"
            )


@dataclass(frozen=True, slots=True)
class Training:
    """A classifier trained on every subset with the same number of steps, or of `epochs` where they are given.

    `test_distances`: beside the evaluation images as they are, test on them as encoded at these distances.
    """

    model: str = described("mobilenet_v2", description="A classifier of torchvision, or timm: and one of timm's.")
    weights: str = described(
        "default",
        description="default, none, a name of torchvision's, or the s3:// URI of a .pth, .pt or .safetensors file.",
    )
    method: str = described(PROBE, choices=(PROBE, FINETUNE))
    steps: int = described(300, least=1, most=1_000_000)
    seeds: int = described(3, least=1, most=MOST_SEEDS)
    epochs: int | None = described(
        None, least=1, most=10_000, description="Passes over the images of each subset, instead of equal steps."
    )
    test_distances: tuple[float, ...] = described(
        (), description="Also test on the evaluation images as encoded at these distances."
    )
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        check_fields(self, "training.")
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
        """Without fields that were not set, so that the ids of trainings from earlier releases stay the same."""
        record = asdict(self)
        if self.tuning and self.tuning.precision is None:
            del record["tuning"]["precision"]
        return {name: value for name, value in record.items() if name in _ALWAYS or value not in (None, ())}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Training:
        tuning = record.get("tuning")
        fields = {**record, "test_distances": tuple(record.get("test_distances", ()))}
        return Training(**{**fields, "tuning": None if tuning is None else Tuning(**tuning)})


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A training on the subsets called `subset`, one of each variant."""

    subset: str
    training: Training

    def as_json(self) -> dict[str, Any]:
        return {"subset": self.subset, "training": self.training.as_json()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> TrainingRequest:
        return TrainingRequest(record["subset"], Training.from_json(record["training"]))


_ALWAYS = ("model", "weights", "method", "steps", "seeds")


TUNING_FIELDS = tuple(field.name for field in fields(Tuning))
INTEGER_FIELDS = ("batch", "micro_batch", "image_size")
WORD_FIELDS = ("head", "precision")


def parse_tuning(words: Iterable[str]) -> Tuning | None:
    """The tuning that words such as "batch=32" describe; None without any. Raises InvalidRequest naming the field."""
    values: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InvalidRequest(
                f"{word!r} has no value; write it as NAME=VALUE, such as batch=32", field="training.tuning"
            )
        if name not in TUNING_FIELDS:
            raise InvalidRequest(
                f"{name!r} is not a field; use one of {', '.join(TUNING_FIELDS)}", field="training.tuning"
            )
        if name in values:
            raise InvalidRequest("named more than once; name it once", field=f"training.tuning.{name}")
        values[name] = _tuning_value(name, value)
    return Tuning(**values) if values else None


def _tuning_value(name: str, word: str) -> int | float | str:
    if name in WORD_FIELDS:
        return word
    number: Callable[[str], int | float] = int if name in INTEGER_FIELDS else float
    try:
        return number(word)
    except ValueError:
        kind = "whole number" if name in INTEGER_FIELDS else "number"
        raise InvalidRequest(f"{word!r} is not a {kind}", field=f"training.tuning.{name}") from None


def tuning_words(tuning: Tuning) -> list[str]:
    """The words from which `parse_tuning` makes this tuning: only fields that differ from their defaults."""
    usual = Tuning()
    return [
        f"{name}={getattr(tuning, name)}" for name in TUNING_FIELDS if getattr(tuning, name) != getattr(usual, name)
    ]
