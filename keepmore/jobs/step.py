"""A step, the smallest unit of work, and the table of all kinds of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from keepmore.storage import layout
from keepmore.storage.layout import RequestKind


class Lane(StrEnum):
    """Which workers do a step: training needs torch, and what a caller waits for must not queue behind compression."""

    CONTROL = "control"
    COMPRESS = "compress"
    TRAINING = "training"


class Kind(StrEnum):
    LIST = "list"  # dataset -> chunks
    CHECK = "check"  # a few images at every distance: warn of a distance that makes no sense
    COMPRESS = "compress"  # a chunk -> objects and a part
    INDEX = "index"  # parts -> index
    FIT = "fit"  # index -> the distance at which a given number of images fit
    SELECT = "select"  # index -> manifests
    FEATURES = "features"  # a manifest, or the evaluation images -> features
    TUNE = "tune"  # a manifest -> one run of a fine-tuning
    TRAIN = "train"  # features, or runs -> the accuracy of a variant
    COMPARE = "compare"  # a training's results -> which variants differ by more than noise
    PILOT = "pilot"  # index -> some of its images at distances of their own
    ADVISE = "advise"  # these -> the distance to store at, for any budget
    REPORT = "report"  # everything -> the report
    ESTIMATE = "estimate"  # a sample of a dataset -> what all of it would take
    NOTIFY = "notify"  # a job's end -> its webhook

    @property
    def spec(self) -> StepSpec:
        return SPECS[self]

    @property
    def lane(self) -> Lane:
        return SPECS[self].lane


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job. The fields named by `StepSpec.fields` say which one of its kind it is; the others mean
    nothing.

    `request`: id of the subset, training or advice that it belongs to; `variant`: one of the job's, or for features of
    test images "evaluation", or "evaluation@" and a distance.
    """

    job: str
    kind: Kind
    request: str = ""
    variant: str = ""
    seed: int = 0
    chunk: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.part}"

    @property
    def part(self) -> str:
        """Which step of its kind this is, as text: how messages and the step tracker name it."""
        return "/".join(str(getattr(self, field)) for field in self.kind.spec.fields)

    @staticmethod
    def of(job: str, kind: Kind, part: str) -> Step:
        """The step whose `part` this is. Raises ValueError if `part` is invalid."""
        texts = part.split("/") if part else []
        values = {
            field: int(text) if field in ("seed", "chunk") else text
            for field, text in zip(kind.spec.fields, texts, strict=True)
        }
        return Step(job, kind, **values)  # type: ignore[arg-type]

    @staticmethod
    def parse(job: str, text: str) -> Step:
        """The step of `job` that `str` wrote."""
        kind, _, part = text.partition(":")
        return Step.of(job, Kind(kind), part)

    @property
    def output(self) -> str:
        """The key that the step writes last."""
        return self.kind.spec.output(self)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """The properties of a kind of step.

    `stage`: what a job's status says while it is done; `output`: the key written last; `run`: the module that does it
    (None for a kind that is not a step of a job). `inputs`: kinds all of whose steps come before; `fields`: those of a
    Step that distinguish steps of the kind; `superseded_by`: once that kind is done, this one is not needed any more;
    `request_kind`: what it may belong to beside the job's own request; `resumable`: a worker may stop in the middle,
    and the next one continues from there.
    """

    lane: Lane
    stage: str | None
    output: Callable[[Step], str]
    run: str | None = None
    inputs: tuple[Kind, ...] = ()
    fields: tuple[str, ...] = ()
    superseded_by: Kind | None = None
    request_kind: RequestKind | None = None
    resumable: bool = False


# In the order of their inputs.
SPECS: dict[Kind, StepSpec] = {
    Kind.LIST: StepSpec(Lane.CONTROL, "list", lambda step: layout.listing(step.job), "keepmore.pipeline.listing"),
    Kind.CHECK: StepSpec(
        Lane.CONTROL,
        "compress",
        lambda step: layout.codec_check(step.job),
        "keepmore.pipeline.check",
        inputs=(Kind.LIST,),
    ),
    Kind.COMPRESS: StepSpec(
        Lane.COMPRESS,
        "compress",
        lambda step: layout.part(step.job, step.chunk),
        "keepmore.pipeline.compress",
        inputs=(Kind.LIST,),
        fields=("chunk",),
        superseded_by=Kind.INDEX,
        resumable=True,
    ),
    Kind.INDEX: StepSpec(
        Lane.CONTROL,
        "compress",
        lambda step: layout.index_summary(step.job),
        "keepmore.pipeline.index",
        inputs=(Kind.COMPRESS,),
    ),
    Kind.FIT: StepSpec(
        Lane.COMPRESS,
        "select",
        lambda step: layout.fitted(step.job, step.request, step.variant),
        "keepmore.pipeline.fit",
        inputs=(Kind.INDEX,),
        fields=("request", "variant"),
        request_kind=RequestKind.SUBSET,
        resumable=True,
    ),
    Kind.SELECT: StepSpec(
        Lane.CONTROL,
        "select",
        lambda step: layout.subset(step.job, step.request),
        "keepmore.pipeline.select",
        inputs=(Kind.FIT,),
        fields=("request",),
        request_kind=RequestKind.SUBSET,
    ),
    Kind.FEATURES: StepSpec(
        Lane.TRAINING,
        "train",
        lambda step: layout.features(step.job, step.request, step.variant),
        "keepmore.pipeline.features",
        inputs=(Kind.SELECT,),
        fields=("request", "variant"),
        superseded_by=Kind.TRAIN,
        request_kind=RequestKind.TRAINING,
    ),
    Kind.TUNE: StepSpec(
        Lane.TRAINING,
        "train",
        lambda step: layout.run(step.job, step.request, step.variant, step.seed),
        "keepmore.pipeline.tune",
        inputs=(Kind.SELECT,),
        fields=("request", "variant", "seed"),
        superseded_by=Kind.TRAIN,
        request_kind=RequestKind.TRAINING,
        resumable=True,
    ),
    Kind.TRAIN: StepSpec(
        Lane.TRAINING,
        "train",
        lambda step: layout.training(step.job, step.request, step.variant),
        "keepmore.pipeline.train",
        inputs=(Kind.FEATURES, Kind.TUNE),
        fields=("request", "variant"),
        request_kind=RequestKind.TRAINING,
    ),
    Kind.COMPARE: StepSpec(
        Lane.TRAINING,
        "train",
        lambda step: layout.comparison(step.job, step.request),
        "keepmore.pipeline.compare",
        inputs=(Kind.TRAIN,),
        fields=("request",),
        request_kind=RequestKind.TRAINING,
    ),
    Kind.PILOT: StepSpec(
        Lane.COMPRESS,
        None,
        lambda step: layout.pilots(step.job, step.request),
        "keepmore.pipeline.pilot",
        inputs=(Kind.INDEX,),
        fields=("request",),
        request_kind=RequestKind.ADVICE,
        resumable=True,
    ),
    Kind.ADVISE: StepSpec(
        Lane.TRAINING,
        None,
        lambda step: layout.advice(step.job, step.request),
        "keepmore.pipeline.advise",
        inputs=(Kind.PILOT,),
        fields=("request",),
        request_kind=RequestKind.ADVICE,
    ),
    Kind.REPORT: StepSpec(
        Lane.CONTROL,
        "report",
        lambda step: layout.report(step.job),
        "keepmore.pipeline.report",
        inputs=(Kind.CHECK, Kind.SELECT, Kind.COMPARE),
    ),
    Kind.ESTIMATE: StepSpec(
        Lane.CONTROL, None, lambda step: layout.estimate(step.job), request_kind=RequestKind.ESTIMATE
    ),
    Kind.NOTIFY: StepSpec(Lane.CONTROL, None, lambda step: layout.webhook(step.job)),
}


def kinds_of(request_kind: RequestKind) -> tuple[Kind, ...]:
    """The kinds of steps that answer a subset, a training or advice, in the order of their inputs."""
    return tuple(kind for kind, spec in SPECS.items() if spec.request_kind is request_kind)


# The kinds that make up a job itself; advice, estimates and webhook calls are separate.
JOB_KINDS = tuple(kind for kind, spec in SPECS.items() if spec.stage)
