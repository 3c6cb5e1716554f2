"""The steps of a job, and which of them are ready: a small makefile over a store. Pure: no store, no clock.

A step is ready when its inputs exist and its output does not; it writes its output last. Whoever finishes a step asks
`ready_steps` what to do next, so a crash, a redelivery and a restart are the same case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from keepmore.jobs.job import Job, State
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.job import Request
from keepmore.spec.training import PROBE, Training
from keepmore.storage import layout

EVALUATION = "evaluation"
NONE: Mapping[str, Training] = {}


class Kind(StrEnum):
    LIST = "list"  # dataset -> chunks
    CHECK = "check"  # a few images at every distance: warn of a distance that makes no sense
    COMPRESS = "compress"  # a chunk -> objects and a part
    INDEX = "index"  # parts -> index
    FIT = "fit"  # index -> the distance at which so many images fit
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
    def lane(self) -> Lane:
        """Which workers do it: training needs torch, and what a caller waits for stands behind no compressing."""
        if self in (*TRAINING_KINDS, Kind.ADVISE):
            return Lane.TRAINING
        return Lane.COMPRESS if self in (Kind.COMPRESS, Kind.FIT, Kind.PILOT) else Lane.CONTROL


SUBSET_KINDS = (Kind.FIT, Kind.SELECT)
ADVICE_KINDS = (Kind.PILOT, Kind.ADVISE)
TRAINING_KINDS = (Kind.FEATURES, Kind.TUNE, Kind.TRAIN, Kind.COMPARE)  # in the order of their inputs


class Lane(StrEnum):
    CONTROL = "control"
    COMPRESS = "compress"
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Step:
    """The smallest unit of work. `part` names which: a chunk's number, a subset, a subset, training or variant."""

    job: str
    kind: Kind
    part: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.part}"

    @staticmethod
    def parse(job: str, written: str) -> Step:
        """The step of `job` that `str` wrote."""
        kind, _, part = written.partition(":")
        return Step(job, Kind(kind), part)

    @property
    def output(self) -> str:
        """The key that the step writes last."""
        match self.kind:
            case Kind.LIST:
                return layout.listing(self.job)
            case Kind.CHECK:
                return layout.codec_check(self.job)
            case Kind.COMPRESS:
                return layout.part(self.job, int(self.part))
            case Kind.INDEX:
                return layout.index_summary(self.job)
            case Kind.FIT:
                return layout.fitted(self.job, *self.part.split("/"))
            case Kind.SELECT:
                return layout.subset(self.job, self.part)
            case Kind.FEATURES:
                return layout.features(self.job, *self.part.split("/"))
            case Kind.TUNE:
                training, variant, seed = self.part.split("/")
                return layout.run(self.job, training, variant, int(seed))
            case Kind.TRAIN:
                return layout.training(self.job, *self.part.split("/"))
            case Kind.COMPARE:
                return layout.comparison(self.job, self.part)
            case Kind.PILOT:
                return layout.pilots(self.job, self.part)
            case Kind.ADVISE:
                return layout.advice(self.job, self.part)
            case Kind.REPORT:
                return layout.report(self.job)
            case Kind.ESTIMATE:
                return layout.estimate(self.job)
            case Kind.NOTIFY:
                return layout.webhook(self.job)


def ready_steps(
    job: Job, done: Collection[str], chunks: int | None, trainings: Mapping[str, Training] = NONE
) -> Iterator[Step]:
    """The steps whose inputs are done and whose output is not. Pure: no store, no clock.

    `done` holds the keys that exist; `chunks` is how many the listing counted, None before there is one;
    `trainings` are those that were asked for beside the job's own, by id. Once there is an index, nobody asks for
    the parts that it was made from. A job that failed or was cancelled gets no further, but other questions to an
    index that it has are still answered.
    """
    if job.state is State.ACCEPTED:
        yield from _ready_of_job(job, done, chunks)
    if layout.index_summary(job.id) in done:
        yield from _ready_of_asked(job, done, trainings)


def _ready_of_job(job: Job, done: Collection[str], chunks: int | None) -> Iterator[Step]:
    unchecked = False
    for stage in _stages(job.request, chunks, layout.index_summary(job.id) in done):
        if stage is Kind.REPORT and unchecked:
            return
        missing = [step for step in _steps(job, stage, chunks) if step.output not in done]
        yield from missing
        if stage is Kind.CHECK:
            unchecked = bool(missing)
        elif missing:
            return


def _ready_of_asked(job: Job, done: Collection[str], trainings: Mapping[str, Training]) -> Iterator[Step]:
    """Steps for what was asked for beside the job's own subset and training, unless they failed."""
    subsets, advice = layout.subsets_prefix(job.id), layout.advice_prefix(job.id)
    for key in sorted(done):
        if (name := layout.asked_id(key, advice)) and layout.advice_error(job.id, name) not in done:
            yield from _first_missing(done, ([Step(job.id, kind, name)] for kind in ADVICE_KINDS))
        if (subset := layout.asked_id(key, subsets)) and layout.subset_error(job.id, subset) not in done:
            yield from _first_missing(done, (subset_steps(job, kind, subset) for kind in SUBSET_KINDS))
    for name, training in sorted(trainings.items()):
        if layout.training_error(job.id, name) not in done:
            yield from _first_missing(done, _open_stages(job, done, name, training))


def _open_stages(job: Job, done: Collection[str], name: str, training: Training) -> Iterator[Iterable[Step]]:
    """The steps of a training by kind, without what its results came from once these are there."""
    results = list(training_steps(job, Kind.TRAIN, name, training))
    if not all(step.output in done for step in results):
        yield from (training_steps(job, kind, name, training) for kind in (Kind.FEATURES, Kind.TUNE))
    yield results
    yield training_steps(job, Kind.COMPARE, name, training)


def _first_missing(done: Collection[str], stages: Iterable[Iterable[Step]]) -> Iterator[Step]:
    """What is missing of the first stage that is not done."""
    for stage in stages:
        missing = [step for step in stage if step.output not in done]
        yield from missing
        if missing:
            return


def _stages(request: Request, chunks: int | None, indexed: bool) -> Iterator[Kind]:
    """Kinds in the order of their inputs. The check holds nobody up: only the report reads it."""
    yield Kind.LIST
    if chunks is None:
        return
    yield Kind.CHECK
    if not indexed:
        yield from (Kind.COMPRESS, Kind.INDEX)
    yield from (Kind.FIT, Kind.SELECT)
    if request.training:
        yield from TRAINING_KINDS
    yield Kind.REPORT


def _steps(job: Job, kind: Kind, chunks: int | None) -> Iterator[Step]:
    match kind:
        case Kind.COMPRESS:
            yield from (Step(job.id, kind, str(number)) for number in range(chunks or 0))
        case Kind.FIT | Kind.SELECT:
            yield from subset_steps(job, kind, job.request.subset_id)
        case _ if kind in TRAINING_KINDS and job.request.training:
            yield from training_steps(job, kind, job.request.training_id, job.request.training)
        case _:
            yield Step(job.id, kind)


def subset_steps(job: Job, kind: Kind, subset_id: str) -> Iterator[Step]:
    """The steps of `kind`, FIT or SELECT, that a subset takes."""
    if kind is Kind.SELECT:
        yield Step(job.id, kind, subset_id)
    else:
        yield from (Step(job.id, kind, f"{subset_id}/{fit.name}") for fit in job.request.fits)


def training_steps(job: Job, kind: Kind, name: str, training: Training) -> Iterator[Step]:
    """The steps of `kind`, one of TRAINING_KINDS, that the training called `name` takes."""
    variants = job.request.variants
    if kind is Kind.FEATURES and training.method == PROBE:
        for part in (*map(evaluation_part, (ORIGINAL, *training.test_distances)), *variants):
            yield Step(job.id, kind, f"{name}/{part}")
    elif kind is Kind.TUNE and training.method != PROBE:
        yield from (
            Step(job.id, kind, f"{name}/{variant}/{seed}") for seed in range(training.seeds) for variant in variants
        )
    elif kind is Kind.TRAIN:
        yield from (Step(job.id, kind, f"{name}/{variant}") for variant in variants)
    elif kind is Kind.COMPARE:
        yield Step(job.id, kind, name)


def evaluation_part(distance: float) -> str:
    """Names the evaluation images as they look at `distance`; at 0 they are as they are."""
    return EVALUATION if distance == ORIGINAL else f"{EVALUATION}@{text(distance)}"


def is_asked(job: Job, step: Step) -> bool:
    """Whether `step` answers a question beside the job's own request: its failure is not the job's."""
    if step.kind in SUBSET_KINDS:
        return _question(step) != job.request.subset_id
    if step.kind in TRAINING_KINDS:
        return _question(step) != job.request.training_id
    return step.kind in ADVICE_KINDS


def request_key(step: Step) -> str | None:
    """Where the question is written that `step` answers, if somebody asked for it beside the job's own request; None
    for steps that answer none."""
    return _key_of(step, layout.subset_request, layout.training_request, layout.advice_request)


def error_key(step: Step) -> str | None:
    """Where the failure of a question beside the job's own request is written; None for steps that answer none."""
    return _key_of(step, layout.subset_error, layout.training_error, layout.advice_error)


def _key_of(step: Step, *of_kinds: Callable[[str, str], str]) -> str | None:
    for kinds, key in zip((SUBSET_KINDS, TRAINING_KINDS, ADVICE_KINDS), of_kinds, strict=True):
        if step.kind in kinds:
            return key(step.job, _question(step))
    return None


def _question(step: Step) -> str:
    """The subset, training or advice that a step belongs to."""
    return step.part.split("/")[0]
