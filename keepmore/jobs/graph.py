"""The steps of a job, and which of them are ready: a small makefile over a store. Pure: no store, no clock.

A step is ready when its inputs exist and its output does not; it writes its output last. Whoever finishes a step asks
`ready_steps` what to do next, so a crash, a redelivery and a restart are the same case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial

from keepmore.jobs.job import Job, State
from keepmore.jobs.step import JOB_KINDS, SPECS, Kind, Step, kinds_of
from keepmore.spec.distance import ORIGINAL, text
from keepmore.spec.training import PROBE, Training
from keepmore.storage import layout
from keepmore.storage.layout import RequestKind

EVALUATION = "evaluation"
NO_TRAININGS: Mapping[str, Training] = {}

StepsOf = Callable[[Kind], Iterable[Step] | None]


def ready_steps(
    job: Job, done: Collection[str], chunks: int | None, trainings: Mapping[str, Training] = NO_TRAININGS
) -> Iterator[Step]:
    """The steps whose inputs are done and whose output is not.

    `done` holds the keys that exist; `chunks` is how many the listing counted, None before there is one; `trainings`
    are those that were requested beside the job's own, by id. Once there is an index, the parts that it was made from
    are not needed any more. A job that failed or was cancelled gets no further, but other requests on its index are
    still answered.
    """
    if job.state is State.ACCEPTED:
        yield from _ready(JOB_KINDS, partial(_job_steps, job, chunks), done)
    if layout.index_summary(job.id) in done:
        yield from _ready_beside(job, done, trainings)


def _ready(kinds: Collection[Kind], steps_of: StepsOf, done: Collection[str]) -> Iterator[Step]:
    """The missing steps of `kinds` whose inputs among these kinds are all done. `steps_of` a kind gives None while its
    steps are not known."""
    complete: set[Kind] = set()
    for kind in kinds:
        spec = kind.spec
        if not complete.issuperset(input_ for input_ in spec.inputs if input_ in kinds):
            continue
        later = [step.output for step in (spec.superseded_by and steps_of(spec.superseded_by)) or ()]
        steps = () if later and all(output in done for output in later) else steps_of(kind)
        if steps is None:
            continue
        missing = [step for step in steps if step.output not in done]
        yield from missing
        if not missing:
            complete.add(kind)


def _ready_beside(job: Job, done: Collection[str], trainings: Mapping[str, Training]) -> Iterator[Step]:
    """Steps of the requests beside the job's own subset and training, except those that failed."""
    requests: list[tuple[RequestKind, str, StepsOf]] = []
    for kind, steps in ((RequestKind.ADVICE, advice_steps), (RequestKind.SUBSET, subset_steps)):
        prefix = layout.requests_prefix(kind, job.id)
        names = (layout.request_id(key, prefix) for key in sorted(done))
        requests += [(kind, name, partial(steps, job, name)) for name in names if name]
    requests += [
        (RequestKind.TRAINING, name, partial(training_steps, job, name, training))
        for name, training in sorted(trainings.items())
    ]
    for kind, name, steps_of in requests:
        if layout.request_error(kind, job.id, name) not in done:
            yield from _ready(kinds_of(kind), steps_of, done)


def advice_steps(job: Job, name: str, kind: Kind) -> Iterable[Step]:
    """The step of `kind` that advice `name` takes."""
    return (Step(job.id, kind, name),)


def _job_steps(job: Job, chunks: int | None, kind: Kind) -> Iterable[Step] | None:
    """The steps of `kind` that the job itself takes."""
    match SPECS[kind].request_kind:
        case RequestKind.SUBSET:
            return subset_steps(job, job.request.subset_id, kind)
        case RequestKind.TRAINING:
            training = job.request.training
            return training_steps(job, job.request.training_id, training, kind) if training else ()
        case _ if kind is Kind.COMPRESS:
            return None if chunks is None else (Step(job.id, kind, chunk=number) for number in range(chunks))
        case _:
            return (Step(job.id, kind),)


def subset_steps(job: Job, subset_id: str, kind: Kind) -> Iterator[Step]:
    """The steps of `kind`, FIT or SELECT, that a subset takes."""
    if kind is Kind.SELECT:
        yield Step(job.id, kind, subset_id)
    else:
        yield from (Step(job.id, kind, subset_id, fit.name) for fit in job.request.fits)


def training_steps(job: Job, name: str, training: Training, kind: Kind) -> Iterator[Step]:
    """The steps of `kind`, one of a training's, that the training called `name` takes."""
    variants = job.request.variants
    match kind:
        case Kind.FEATURES if training.method == PROBE:
            tests = map(evaluation_part, (ORIGINAL, *training.test_distances))
            yield from (Step(job.id, kind, name, variant) for variant in (*tests, *variants))
        case Kind.TUNE if training.method != PROBE:
            for seed in range(training.seeds):
                yield from (Step(job.id, kind, name, variant, seed) for variant in variants)
        case Kind.TRAIN:
            yield from (Step(job.id, kind, name, variant) for variant in variants)
        case Kind.COMPARE:
            yield Step(job.id, kind, name)


def evaluation_part(distance: float) -> str:
    """The name of the evaluation images as encoded at `distance`; at 0 they are the originals."""
    return EVALUATION if distance == ORIGINAL else f"{EVALUATION}@{text(distance)}"


def is_beside(job: Job, step: Step) -> bool:
    """Whether `step` answers a request beside the job's own: its failure is not the job's."""
    match SPECS[step.kind].request_kind:
        case None:
            return False
        case RequestKind.SUBSET:
            return step.request != job.request.subset_id
        case RequestKind.TRAINING:
            return step.request != job.request.training_id
        case _:
            return True
