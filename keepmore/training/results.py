"""The results of trainings: features, runs, accuracies and comparisons. Records alone: no SciPy, no PyTorch."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

FORMAT = 2
COMPARISONS_FORMAT = 1
TOP = 5

Verdict = Literal["better", "worse", "cannot tell"]
Interval = tuple[float, float]


def all_classes(pool: Sequence[str], tested: Sequence[str]) -> list[str]:
    """The classes that a model is built for: those of the pool, then those that only test images have."""
    return [*pool, *sorted(set(tested) - set(pool))]


def numbers(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int32]:
    """Each label's place in `classes`, shape (labels,)."""
    places = {name: number for number, name in enumerate(classes)}
    return np.array([places[label] for label in labels], np.int32)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run in the store; without `sha256` where its bytes differ each time it is written."""

    uri: str
    bytes: int
    sha256: str | None

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Artifact:
        return Artifact(record["uri"], record["bytes"], record.get("sha256"))


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model and the weights it starts from; `versions` of the packages that made it."""

    model: str
    weights: str
    weights_sha256: str | None
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class LoadedModel(ModelInfo):
    """A model on a device, computing in a precision."""

    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class ProbeExecution(LoadedModel):
    """How a linear probe was trained."""

    steps: int


@dataclass(frozen=True, slots=True)
class FineTuneExecution(LoadedModel):
    """How a model was fine-tuned: `preparation` is its transform, `tuning` the settings, both as JSON."""

    processes: int
    preparation: dict[str, Any]
    skipped_steps: int
    steps: int
    batch: int
    tuning: dict[str, Any]


Execution = ProbeExecution | FineTuneExecution


Loaded = TypeVar("Loaded", bound=LoadedModel)


def _read(kind: type[Loaded], record: Mapping[str, Any]) -> Loaded:
    """A field that an earlier release did not write is None."""
    values: Any = {each.name: record.get(each.name) for each in fields(kind)}
    return kind(**values)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of `images` images, below `prefix` in the store, from a backbone: `model` without its head."""

    images: int
    prefix: str
    backbone: str
    model: LoadedModel

    def as_json(self) -> dict[str, Any]:
        # The keys here and below are those of the stored format.
        names = {"images": self.images, "shelf": self.prefix, "backbone": self.backbone}
        return names | asdict(self.model)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Features:
        return Features(record["images"], record["shelf"], record["backbone"], _read(LoadedModel, record))


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of a training.

    `top_classes`: for each set of test images, by its `Images.at`, the numbers of the most likely classes, best first,
    shape (images, min(5, classes)). `curve` has lists step, loss and learning_rate, `artifacts` are by kind, `notes`
    say where the trainer used a fallback.
    """

    seed: int
    top_classes: dict[str, NDArray[np.int32]]
    execution: Execution
    curve: dict[str, list[float]] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_bytes(self) -> bytes:
        buffer = io.BytesIO()
        record = {
            "seed": self.seed,
            "about": asdict(self.execution),
            "curve": self.curve,
            "kept": {kind: artifact.as_json() for kind, artifact in self.artifacts.items()},
            "notes": self.notes,
        }
        arrays = {f"named@{at}": classes for at, classes in self.top_classes.items()}
        np.savez_compressed(buffer, said=np.array(json.dumps(record)), **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Run:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            record = json.loads(str(arrays["said"]))
            top_classes = {name.removeprefix("named@"): arrays[name] for name in arrays if name != "said"}
        artifacts = {kind: Artifact.from_json(artifact) for kind, artifact in record["kept"].items()}
        kind: type[Execution] = FineTuneExecution if "processes" in record["about"] else ProbeExecution
        execution = _read(kind, record["about"])
        return Run(record["seed"], top_classes, execution, record["curve"], artifacts, record["notes"])


@dataclass(frozen=True, slots=True)
class Summary:
    """Top-1 of one variant, a share of 0..1, with its 95 % interval; `seed_std` is None for one seed."""

    test_images: int
    top1: float
    interval: Interval
    interval_kind: str
    top1_by_seed: tuple[float, ...]
    seed_std: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"interval": list(self.interval), "top1_by_seed": list(self.top1_by_seed)}


@dataclass(frozen=True, slots=True)
class Difference:
    """Top-1 of one variant less that of another, -1..1, its 95 % interval, and a two-sided p value."""

    difference: float
    interval: Interval
    p_value: float
    verdict: Verdict
    method: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"interval": list(self.interval)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`variant` less `against`, one of the family of all variants against the `reference`, or against the `best`
    variant.

    `adjusted_p` allows for the size of the family, and the verdict follows from it; the interval is that of this pair
    alone.
    """

    variant: str
    against: str
    family: Literal["reference", "best"]
    difference: Difference
    adjusted_p: float
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        names = {"arm": self.variant, "against": self.against, "family": self.family}
        return names | self.difference.as_json() | {"adjusted_p": self.adjusted_p, "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Every variant against the first one and against the best: which differ by more than noise."""

    pairs: list[Comparison]

    def as_json(self) -> dict[str, Any]:
        return {"format": COMPARISONS_FORMAT, "comparisons": [pair.as_json() for pair in self.pairs]}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy on one set of test images; `top5` counts an image right if its class is among the five most likely."""

    summary: Summary
    top5: float

    def as_json(self) -> dict[str, Any]:
        return self.summary.as_json() | {f"top{TOP}": self.top5}


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """Test images of one class, their top-1 and its 95 % interval."""

    images: int
    top1: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each class was predicted for each: `counts` are rows by true class, columns by predicted class."""

    classes: list[str]
    counts: list[list[int]]


@dataclass(frozen=True, slots=True)
class VariantResult:
    """The accuracy of models trained on one variant: `tests` by the `Images.at` of other encodings of the test images.

    `untrained_classes` have test images and none to train on, `untested_classes` the other way round.
    """

    method: str
    runs: Sequence[Run]
    train_images: int
    untrained_classes: list[str]
    untested_classes: list[str]
    accuracy: Accuracy
    per_class: dict[str, ClassAccuracy]
    confusion: Confusion | None
    tests: dict[str, Accuracy]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **asdict(self.runs[0].execution),
            "method": self.method,
            "seeds": [run.seed for run in self.runs],
            "train_images": self.train_images,
            "untrained_classes": self.untrained_classes,
            "untested_classes": self.untested_classes,
            **self.accuracy.as_json(),
            "per_class": {name: asdict(accuracy) for name, accuracy in self.per_class.items()},
            "confusion": self.confusion and asdict(self.confusion),
            "curves": [{"seed": run.seed, **run.curve} for run in self.runs],
            "kept": [
                {"seed": run.seed, **{kind: artifact.as_json() for kind, artifact in run.artifacts.items()}}
                for run in self.runs
            ],
            "notes": sorted({note for run in self.runs for note in run.notes}),
            "tests": {at: accuracy.as_json() for at, accuracy in self.tests.items()},
        }
