"""What comes in over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator

from keepmore.datasets.address import absolute_uri
from keepmore.errors import InvalidRequest, InvalidUri, UnsupportedDataset
from keepmore.net import uri as uris
from keepmore.spec import advice as advice_spec
from keepmore.spec import budget as budgets
from keepmore.spec import distance as distances
from keepmore.spec import variants as variant_specs
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import Evaluation, Limits, Request, Selection, SubsetRequest
from keepmore.spec.pilot_grid import FEWEST_IMAGES
from keepmore.spec.training import Training, Tuning
from keepmore.spec.variants import VariantSpec
from keepmore_api.schemas.derived import RecordModel, Strict, example

MOST_DISTANCES = 100
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")


def remote_uri(field: str, name: str) -> str:
    """A dataset URI as a service accepts it: never a path, because that would be one of the service's machine."""
    if "://" not in name:
        raise InvalidRequest(
            f"{name!r} is not a URI; write s3://bucket/prefix, https://... or file:///...", field=field
        )
    try:
        return absolute_uri(name)
    except UnsupportedDataset as error:
        scheme = name.partition("://")[0][:20]
        raise UnsupportedDataset(
            f"{scheme}:// cannot be read; give s3://, https:// or file:///", field=field
        ) from error
    except InvalidUri as error:
        raise InvalidUri(error.reason, field=field) from error


def _weights(weights: str) -> str:
    """A path would be one of the trainer's machine, and only files that may hold weights are fetched."""
    if weights.isidentifier():
        return weights
    field = "training.weights"
    if "://" not in weights:
        raise InvalidRequest(
            f"{weights!r} is a path, which would be one of the trainer's machine; use default, none, the name of "
            "torchvision's weights, or a file in s3://",
            field=field,
        )
    try:
        scheme = uris.parse(weights).scheme
    except InvalidUri as error:
        raise InvalidUri(error.reason, field=field) from error
    if scheme != "s3" or not weights.endswith(WEIGHTS_SUFFIXES):
        raise InvalidRequest(
            f"{weights} is not read; give an s3:// URI that ends in {' or '.join(WEIGHTS_SUFFIXES)}", field=field
        )
    return weights


def _variants(value: Any) -> tuple[tuple[float, ...], tuple[VariantSpec, ...]]:
    if isinstance(value, list) and len(value) > MOST_DISTANCES:
        raise InvalidRequest(f"{len(value)} are too many; name {MOST_DISTANCES} at most", field="distances")
    return variant_specs.from_json(value)


_URI = Field(
    min_length=1,
    max_length=4096,
    description="s3://bucket/prefix, or a .tar, .csv, .jsonl or .parquet under s3://, https:// or file://.",
    examples=["s3://photos/food101/train"],
)
DatasetUri = Annotated[str, _URI]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class SpreadIn(Strict):
    """Every image has a distance of its own between two, scaled so that the subset fills the budget."""

    spread: Annotated[
        list[Annotated[float, Field(ge=distances.SMALLEST, le=distances.LARGEST)]],
        Field(min_length=2, max_length=2, examples=[[0.5, 15]]),
    ]


class FitIn(Strict):
    """The distance at which the budget holds exactly that many images."""

    fit: Annotated[int, Field(ge=1, le=variant_specs.MOST_IMAGES, examples=[2000])]


Distance = Annotated[
    float,
    Field(json_schema_extra={"anyOf": [{"const": 0}, {"minimum": distances.SMALLEST, "maximum": distances.LARGEST}]}),
]
_LIST = {"minItems": 1, "maxItems": MOST_DISTANCES, "uniqueItems": True}
# Read by the library, whose messages name the error; these types alone would name every possible type.
Variants = Annotated[
    Any,
    PlainValidator(
        _variants,
        json_schema_input_type=Annotated[list[Distance | SpreadIn | FitIn], Field(json_schema_extra=_LIST)]
        | SpreadIn
        | FitIn,
    ),
    Field(
        description="Butteraugli distances; 0 is the original file, untouched. And rules: a spread, a fit.",
        examples=[[0, 2, 4, 6, 8, 10], [0, 8, {"spread": [0.5, 15]}, {"fit": 2000}]],
    ),
]
Distances = Annotated[
    Any,
    PlainValidator(
        lambda value: variant_specs.fixed_only(*_variants(value)),
        json_schema_input_type=Annotated[list[Distance], Field(json_schema_extra=_LIST)],
    ),
    Field(description="Butteraugli distances; 0 is the original file, untouched.", examples=[[0, 2, 4, 6, 8, 10]]),
]
Money = Annotated[float | str, Field(examples=[11.68])]


class AsDistance(Strict):
    """The size of the pool, or of a part of it, at a distance."""

    as_distance: Distance
    fraction: Annotated[float | str, Field(json_schema_extra={"examples": [1.0]})] = 1.0


class Cost(Strict):
    """A monthly cost, at a price per gigabyte (10^9 bytes) and month."""

    monthly_cost: Money
    price_per_gb_month: Money


# Read by the library, for the same reason.
BudgetIn = Annotated[
    Any,
    PlainValidator(budgets.from_json, json_schema_input_type=int | str | AsDistance | Cost | None),
    Field(description="Bytes, a size such as 508MB or 485MiB, or an object; without it every image is kept."),
]


class SelectionIn(RecordModel, record=Selection):
    seed: Seed = 0


class EvaluationIn(RecordModel, record=Evaluation):
    """Images to test on: a dataset of their own, or a part of every class held out."""

    dataset: DatasetUri | None = None
    holdout: float | None = Field(None, json_schema_extra={"examples": [0.2]})
    seed: Seed = 0

    _readers: ClassVar[dict[str, Callable[[Any], Any]]] = {"dataset": partial(remote_uri, "evaluation.dataset")}


class TuningIn(RecordModel, record=Tuning):
    """How a classifier is fine-tuned; docs/training.md says what each field does."""


class TrainingIn(RecordModel, record=Training):
    """`epochs` takes the place of `steps`; `tuning` is for the method finetune alone."""

    model_config = example(model="mobilenet_v2", method="finetune", steps=500, tuning={"learning_rate": 0.0001})

    model: str = Field(
        "mobilenet_v2",
        max_length=200,
        description="A classifier of torchvision, or timm: and one of timm's.",
        examples=["mobilenet_v2", "timm:vit_base_patch16_224.augreg_in21k"],
    )
    weights: str = Field(
        "default",
        max_length=4096,
        description="default, none, a name of torchvision's, or the s3:// URI of a .pth, .pt or .safetensors file.",
    )
    test_distances: list[Distance] = Field(
        [],
        max_length=MOST_DISTANCES,
        description="Also test on the evaluation images as they look at these distances.",
        examples=[[4, 10]],
    )

    _readers: ClassVar[dict[str, Callable[[Any], Any]]] = {"weights": _weights}


class LimitsIn(RecordModel, record=Limits):
    """Caps on one image; a larger one is a row in the errors list."""


class JobIn(RecordModel, record=Request, without=("rules",)):
    model_config = example(
        dataset="s3://photos/food101/train",
        distances=[0, 2, 4, 6, 8, 10],
        budget={"as_distance": 10},
        evaluation={"holdout": 0.2},
        training={"model": "mobilenet_v2"},
    )

    dataset: DatasetUri
    distances: Variants
    budget: BudgetIn = None
    webhook: str | None = Field(None, max_length=4096, description="An https:// URL that is called when the job ends.")

    _readers: ClassVar[dict[str, Callable[[Any], Any]]] = {"dataset": partial(remote_uri, "dataset")}

    def values(self) -> dict[str, Any]:
        fixed, rules = self.distances
        return super().values() | {"distances": fixed, "rules": rules}


class SubsetIn(RecordModel, record=SubsetRequest):
    model_config = example(budget="250MB", selection={"order": "random", "balance": True, "seed": 1})

    budget: BudgetIn = None


class TrainingAskedIn(TrainingIn):
    model_config = example(
        model="timm:vit_base_patch16_224.augreg_in21k",
        method="finetune",
        epochs=5,
        seeds=3,
        test_distances=[10],
        tuning={"batch": 128, "micro_batch": 32, "learning_rate": 0.0001},
        subset=None,
    )

    subset: str | None = Field(None, max_length=64, description="Id of the subset to train on; null: the job's own.")


class PilotsIn(TrainingIn):
    """The probe of every pilot: each seed is a draw of images."""

    seeds: int = Field(advice_spec.SEEDS, json_schema_extra={"minimum": 1, "maximum": advice_spec.MOST_SEEDS})


class AdviceIn(RecordModel, record=AdviceRequest):
    model_config = example(budgets=["5MB", "10MB", "20MB"], accuracy=0.85, price_per_gb_month="0.023")

    budgets: Annotated[
        list[BudgetIn],
        Field(min_length=1, max_length=advice_spec.MOST_BUDGETS, description="Each as a job's budget."),
    ]
    accuracy: float | None = Field(
        None, description="The target top-1 accuracy, 0 to 1: the answer says which budget it takes."
    )
    price_per_gb_month: Money | None = None
    images: int | None = Field(
        None,
        json_schema_extra={"minimum": FEWEST_IMAGES},
        description="How many images of the pool to train pilots on; null: a third, at most 2,000 or 8 per class.",
    )
    distances: Distances = advice_spec.DISTANCES
    training: PilotsIn = PilotsIn()

    def record(self) -> AdviceRequest:
        if None in self.budgets:
            raise InvalidRequest("null is none; give bytes, a size such as 508MB, or an object", field="budgets")
        return AdviceRequest(
            budgets=tuple(self.budgets),
            accuracy=self.accuracy,
            price_per_gb_month=advice_spec.price(self.price_per_gb_month),
            images=self.images,
            distances=tuple(self.distances),
            training=self.training.record(),
        )


class EstimateIn(RecordModel, record=EstimateRequest):
    model_config = example(
        dataset="s3://photos/food101/train", distances=[0, 2, 4, 6, 8, 10], budget={"as_distance": 10}, images=128
    )

    dataset: DatasetUri
    distances: Distances
    budget: BudgetIn = None
    seed: Seed = 0

    _readers: ClassVar[dict[str, Callable[[Any], Any]]] = {"dataset": partial(remote_uri, "dataset")}
