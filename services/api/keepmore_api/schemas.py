"""What comes in and goes out over HTTP. Types are checked here, ranges by `keepmore.spec.job`, which names remedies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from keepmore.datasets.listing import absolute_uri
from keepmore.errors import InvalidRequest, InvalidUri, UnsupportedDataset
from keepmore.net import uri as uris
from keepmore.spec import advice as advice_spec
from keepmore.spec import budget as budgets
from keepmore.spec import distance as distances
from keepmore.spec import job as requests
from keepmore.spec import training
from keepmore.spec import variants as variant_specs
from keepmore.spec.advice import AdviceRequest
from keepmore.spec.estimate import EstimateRequest
from keepmore.spec.job import Evaluation, Limits, Request, Selection, SubsetRequest
from keepmore.spec.pilot_grid import FEWEST_IMAGES
from keepmore.spec.training import Training, Tuning
from keepmore.spec.variants import VariantSpec

LARGEST = budgets.LARGEST_BYTES
MOST_DISTANCES = 100
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")

Distance = Annotated[
    float,
    Field(json_schema_extra={"anyOf": [{"const": 0}, {"minimum": distances.SMALLEST, "maximum": distances.LARGEST}]}),
]
Uri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4096,
        description="s3://bucket/prefix, or a .tar, .csv, .jsonl or .parquet under s3://, https:// or file://.",
        examples=["s3://photos/food101/train"],
    ),
]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Money = Annotated[float | str, Field(examples=[11.68])]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class SpreadIn(Strict):
    """Every image has a distance of its own between two, scaled so that the subset fills the budget."""

    spread: Annotated[
        list[Annotated[float, Field(ge=distances.SMALLEST, le=distances.LARGEST)]],
        Field(min_length=2, max_length=2, examples=[[0.5, 15]]),
    ]


class FitIn(Strict):
    """The distance at which the budget holds exactly so many images."""

    fit: Annotated[int, Field(ge=1, le=variant_specs.MOST_IMAGES, examples=[2000])]


def _variants(value: Any) -> tuple[tuple[float, ...], tuple[VariantSpec, ...]]:
    if isinstance(value, list) and len(value) > MOST_DISTANCES:
        raise InvalidRequest(f"{len(value)} are too many; name {MOST_DISTANCES} at most", field="distances")
    return variant_specs.from_json(value)


def _fixed(value: Any) -> list[float]:
    return list(variant_specs.fixed_only(*_variants(value)))


_LIST = {"minItems": 1, "maxItems": MOST_DISTANCES, "uniqueItems": True}
# Read by the library, whose messages name what is wrong; these types alone would name all that it might have been.
Variants = Annotated[
    Any,
    PlainValidator(
        _variants,
        json_schema_input_type=Annotated[list[Distance | SpreadIn | FitIn], Field(json_schema_extra=_LIST)]
        | SpreadIn
        | FitIn,
    ),
    Field(
        description="Butteraugli distances; 0 is the original file, untouched. And levels: a spread, a fit.",
        examples=[[0, 2, 4, 6, 8, 10], [0, 8, {"spread": [0.5, 15]}, {"fit": 2000}]],
    ),
]
Distances = Annotated[
    list[float],
    PlainValidator(_fixed, json_schema_input_type=Annotated[list[Distance], Field(json_schema_extra=_LIST)]),
    Field(description="Butteraugli distances; 0 is the original file, untouched.", examples=[[0, 2, 4, 6, 8, 10]]),
]


class AsDistance(Strict):
    """What the pool, or a part of it, takes at a distance."""

    as_distance: Distance
    fraction: Annotated[float | str, Field(json_schema_extra={"examples": [1.0]})] = 1.0


class Cost(Strict):
    """What money buys: a monthly cost at a price for a gigabyte (10^9 bytes) a month."""

    monthly_cost: Money
    price_per_gb_month: Money


# Read by the library, whose messages name what is wrong; these types alone would name all that it might have been.
BudgetIn = Annotated[
    Any,
    PlainValidator(budgets.from_json, json_schema_input_type=int | str | AsDistance | Cost | None),
    Field(description="Bytes, a size such as 508MB or 485MiB, or an object; without it every image is kept."),
]


class SelectionIn(Strict):
    order: Literal["random", "smallest"] = "random"
    balance: bool | None = Field(None, description="Fill the classes in turn; null: where there are labels.")
    seed: Seed = 0

    def record(self) -> Selection:
        return Selection(self.order, self.balance, self.seed)


class EvaluationIn(Strict):
    """Images to test on: a dataset of their own, or a part of every class held out."""

    dataset: Uri | None = None
    holdout: float | None = Field(None, json_schema_extra={"examples": [0.2]})
    seed: Seed = 0

    def record(self) -> Evaluation:
        return Evaluation(self.dataset and remote_uri("evaluation.dataset", self.dataset), self.holdout, self.seed)


def _range(least: float, most: float) -> dict[str, Any]:
    return {"minimum": least, "maximum": most}


class TuningIn(Strict):
    """How a classifier is fine-tuned; docs/training.md says what each field does."""

    batch: int = Field(64, json_schema_extra=_range(1, training.MOST_BATCH), description="Images of a step.")
    micro_batch: int | None = Field(None, description="Images that go through the model at once; null: all of a step.")
    learning_rate: float = Field(1e-4, json_schema_extra={"exclusiveMinimum": 0, "maximum": 10})
    weight_decay: float = Field(0.05, json_schema_extra=_range(0, 10))
    layer_decay: float | None = Field(None, description="Null: 0.75 for transformers, 1 for other models.")
    warmup: float = Field(0.1, json_schema_extra=_range(0, 1), description="Part of the steps in which the rate rises.")
    label_smoothing: float = Field(0.1, json_schema_extra=_range(0, 0.99))
    crop: float = Field(0.25, json_schema_extra={"exclusiveMinimum": 0, "maximum": 1})
    image_size: int | None = Field(None, description="Pixels of a side; null: what the weights expect.")
    head: Literal["probe", "new"] = "probe"
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="What is computed in; null: the fastest that the machine has."
    )

    def record(self) -> Tuning:
        return Tuning(**self.model_dump())


class TrainingIn(Strict):
    """`epochs` takes the place of `steps`; `tuning` is for the method finetune alone."""

    model_config = _example(model="mobilenet_v2", method="finetune", steps=500, tuning={"learning_rate": 0.0001})

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
    method: Literal["probe", "finetune"] = "probe"
    steps: int = Field(300, json_schema_extra=_range(1, training.MOST_STEPS))
    epochs: int | None = Field(None, description="Passes over the images of each subset, instead of equal steps.")
    seeds: int = Field(3, json_schema_extra=_range(1, training.MOST_SEEDS))
    test_distances: list[Distance] = Field(
        [],
        max_length=MOST_DISTANCES,
        description="Also test on the evaluation images as they look at these distances.",
        examples=[[4, 10]],
    )
    tuning: TuningIn | None = None

    def record(self) -> Training:
        _check_weights(self.weights)
        return Training(
            model=self.model,
            weights=self.weights,
            method=self.method,
            steps=self.steps,
            seeds=self.seeds,
            epochs=self.epochs,
            test_distances=tuple(self.test_distances),
            tuning=self.tuning.record() if self.tuning else None,
        )


def _check_weights(weights: str) -> None:
    """A path would be one of the trainer's machine, and only what may hold weights is fetched."""
    if weights.isidentifier():
        return
    if "://" not in weights:
        raise InvalidRequest(
            f"{weights!r} is a path, which would be one of the trainer's machine; "
            "use default, none, the name of torchvision's weights, or a file in s3://",
            field="training.weights",
        )
    try:
        scheme = uris.parse(weights).scheme
    except InvalidUri as error:
        raise InvalidUri(error.reason, field="training.weights") from error
    if scheme != "s3" or not weights.endswith(WEIGHTS_SUFFIXES):
        raise InvalidRequest(
            f"{weights} is not read; give an s3:// URI that ends in {' or '.join(WEIGHTS_SUFFIXES)}",
            field="training.weights",
        )


class LimitsIn(Strict):
    """Caps on one image; a larger one is a row in the errors list."""

    max_pixels: int = Field(64_000_000, json_schema_extra={"minimum": 1, "maximum": requests.LARGEST_PIXELS})
    max_bytes: int = Field(100_000_000, json_schema_extra={"minimum": 1, "maximum": LARGEST})

    def record(self) -> Limits:
        return Limits(self.max_pixels, self.max_bytes)


class JobIn(Strict):
    model_config = _example(
        dataset="s3://photos/food101/train",
        distances=[0, 2, 4, 6, 8, 10],
        budget={"as_distance": 10},
        evaluation={"holdout": 0.2},
        training={"model": "mobilenet_v2"},
    )

    dataset: Uri
    distances: Variants
    effort: int = Field(3, json_schema_extra={"minimum": 1, "maximum": 10})
    budget: BudgetIn = None
    selection: SelectionIn = SelectionIn()
    evaluation: EvaluationIn | None = None
    training: TrainingIn | None = None
    limits: LimitsIn = LimitsIn()
    webhook: str | None = Field(None, max_length=4096, description="An https:// URL that is told of the job's end.")

    def record(self) -> Request:
        return Request(
            dataset=remote_uri("dataset", self.dataset),
            distances=self.distances[0],
            rules=self.distances[1],
            effort=self.effort,
            budget=self.budget,
            selection=self.selection.record(),
            evaluation=self.evaluation.record() if self.evaluation else None,
            training=self.training.record() if self.training else None,
            limits=self.limits.record(),
            webhook=self.webhook,
        )


class SubsetIn(Strict):
    model_config = _example(budget="250MB", selection={"order": "random", "balance": True, "seed": 1})

    budget: BudgetIn = None
    selection: SelectionIn = SelectionIn()

    def record(self) -> SubsetRequest:
        return SubsetRequest(self.budget, self.selection.record())


class TrainingAskedIn(TrainingIn):
    model_config = _example(
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

    seeds: int = Field(advice_spec.SEEDS, json_schema_extra=_range(1, advice_spec.MOST_SEEDS))


class AdviceIn(Strict):
    model_config = _example(budgets=["5MB", "10MB", "20MB"], accuracy=0.85, price_per_gb_month="0.023")

    budgets: Annotated[
        list[BudgetIn],
        Field(min_length=1, max_length=advice_spec.MOST_BUDGETS, description="Each as a job's budget."),
    ]
    accuracy: float | None = Field(None, description="Top-1 that is wished for, 0 to 1: the budget it takes is told.")
    price_per_gb_month: Money | None = None
    images: int | None = Field(
        None,
        json_schema_extra={"minimum": FEWEST_IMAGES},
        description="How many images of the pool to train pilots on; null: a third, at most 2,000 or 8 a class.",
    )
    distances: Distances = list(advice_spec.DISTANCES)
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


class AdviceOut(BaseModel):
    """Advice; without `state` succeeded, only what was asked for. docs/advice.md tells every field."""

    model_config = ConfigDict(extra="allow")

    advice: str
    job: str
    state: Literal["running", "succeeded"]
    request: dict[str, Any]


class EstimateIn(Strict):
    model_config = _example(
        dataset="s3://photos/food101/train", distances=[0, 2, 4, 6, 8, 10], budget={"as_distance": 10}, images=128
    )

    dataset: Uri
    distances: Distances
    effort: int = Field(3, json_schema_extra={"minimum": 1, "maximum": 10})
    budget: BudgetIn = None
    selection: SelectionIn = SelectionIn()
    limits: LimitsIn = LimitsIn()
    images: int = Field(128, json_schema_extra={"minimum": 2, "maximum": 10_000}, description="How many to sample.")
    seed: Seed = 0

    def record(self) -> EstimateRequest:
        return EstimateRequest(
            dataset=remote_uri("dataset", self.dataset),
            distances=tuple(self.distances),
            effort=self.effort,
            budget=self.budget,
            selection=self.selection.record(),
            limits=self.limits.record(),
            images=self.images,
            seed=self.seed,
        )


class Problem(BaseModel):
    """RFC 9457. `code` is stable; docs/errors.md lists them all."""

    model_config = ConfigDict(extra="allow") | _example(
        type="urn:keepmore:problem:job_not_found",
        title="Job not found",
        status=404,
        code="job_not_found",
        detail="job 20261125-091500-1f0c2a9b37: no such job in this store; `keepmore show` lists the jobs",
    )

    type: str = Field(examples=["urn:keepmore:problem:job_not_found"])
    title: str
    status: int
    code: str = Field(examples=["job_not_found"])
    detail: str


class Images(BaseModel):
    listed: int
    done: int
    failed: int


class Bytes(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    in_: int = Field(alias="in", description="Bytes of the sources read so far.")
    out: int = Field(description="Bytes of their encodings at all distances.")


class JobOut(BaseModel):
    """How a job stands."""

    job: str
    state: Literal["accepted", "succeeded", "failed", "cancelled"]
    stage: Literal["list", "compress", "select", "train", "report"] | None
    created_at: str
    ended_at: str | None
    error: dict[str, Any] | None
    request: dict[str, Any]
    images: Images | None
    bytes: Bytes | None
    rate: float | None = Field(description="Images a second.")
    eta_s: int | None = Field(description="Seconds until all images are compressed.")
    warnings: list[str]
    subset: dict[str, Any] | None
    report: str | None
    links: dict[str, Any]
    index: dict[str, Any] | None = None


class JobsOut(BaseModel):
    jobs: list[dict[str, Any]]
    next: str | None = Field(description="Give it as `after` for the next page; null: there is none.")


class SubsetOut(BaseModel):
    """A subset: `running` until its manifests are written."""

    model_config = ConfigDict(extra="allow")

    subset: str
    state: Literal["running", "succeeded"]
    links: dict[str, Any]


class SubsetsOut(BaseModel):
    subsets: list[SubsetOut]


class TrainingOut(BaseModel):
    """A training: its results by distance as they come in."""

    training: str
    subset: str
    state: Literal["running", "succeeded", "failed"]
    error: dict[str, Any] | None
    request: dict[str, Any]
    distances: dict[str, Any]
    comparison: dict[str, Any] | None = Field(description="Which distances differ by more than noise; null: not yet.")


class EstimateOut(BaseModel):
    """Expected bytes and counts by distance, each with an interval."""

    model_config = ConfigDict(extra="allow")

    estimate: str
    state: Literal["running", "succeeded"]


class Health(BaseModel):
    status: Literal["ok"]


def described(*kinds: str) -> dict[str, Any]:
    """An answer in OpenAPI that is one of these media types."""
    return {"content": {kind: {"schema": {} if kind.endswith("json") else {"type": "string"}} for kind in kinds}}


def remote_uri(field: str, written: str) -> str:
    """A dataset URI as a service takes it: never a path, because that would be one of the service's machine."""
    if "://" not in written:
        raise InvalidRequest(
            f"{written!r} is no URI; write s3://bucket/prefix, https://... or file:///...", field=field
        )
    try:
        return absolute_uri(written)
    except UnsupportedDataset as error:
        scheme = written.partition("://")[0][:20]
        raise UnsupportedDataset(
            f"{scheme}:// cannot be read; give s3://, https:// or file:///", field=field
        ) from error
    except InvalidUri as error:
        raise InvalidUri(error.reason, field=field) from error
