"""Which steps are ready: the makefile."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.compression.index import Summary
from keepmore.compression.listing import Listing
from keepmore.errors import JobNotReady, NotTrainable, SubsetNotFound, TrainerMissing, TrainingNotFound
from keepmore.jobs.graph import is_beside, ready_steps
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.requests import RequestRef, request_subset, request_training, subset_request, training_request
from keepmore.jobs.snapshot import chunk_count, take_snapshot
from keepmore.jobs.step import SPECS, Kind, Lane, Step, kinds_of
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import Evaluation, Request, Selection, SubsetRequest
from keepmore.spec.training import Training, TrainingRequest
from keepmore.spec.variants import FitCount, Spread
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import RequestKind
from keepmore.training.trainer import load_trainer

WITH_TRAINING = Request(
    "file:///d",
    (0, 2, 10),
    budget=BytesBudget(1000),
    evaluation=Evaluation(holdout=0.2),
    training=Training(),
)
PLAIN = Request("file:///d", (4,))
WITH_RULES = replace(WITH_TRAINING, distances=(0.0,), rules=(Spread(0.5, 15), FitCount(7), FitCount(9)))
FINETUNING = Training(method="finetune", seeds=2, test_distances=(4, 8))
WITH_FINETUNING = replace(WITH_RULES, training=FINETUNING)
WITH_TESTS = replace(WITH_TRAINING, training=Training(test_distances=(4, 8)))
BESIDE = (Kind.ESTIMATE, Kind.NOTIFY, Kind.PILOT, Kind.ADVISE)
JOB_KINDS: list[Kind] = [kind for kind in Kind if kind not in BESIDE]  # what a job is made of
requests = st.sampled_from([WITH_TRAINING, PLAIN, WITH_RULES, WITH_FINETUNING, WITH_TESTS])


def _job(request: Request) -> Job:
    return Job("job", request, "2026-01-01T00:00:00Z")


def _run(request: Request, chunks: int, seed: int) -> Iterator[Step]:
    """Steps as any number of workers would finish them: each time a ready one at random."""
    draw = random.Random(seed)
    job, done = _job(request), set[str]()
    while ready := list(ready_steps(job, done, chunks if layout.listing(job.id) in done else None)):
        step = draw.choice(ready)
        assert step.output not in done, "a step that is done was ready again"
        done.add(step.output)
        yield step


@given(requests, st.integers(1, 12), st.integers(0, 10**6))
def test_any_order_of_finishing_ends_with_every_step_done_once(request: Request, chunks: int, seed: int) -> None:
    """Else a job hangs, or does a step twice, depending on which worker was quicker."""
    steps = list(_run(request, chunks, seed))
    assert len(steps) == len(set(steps))
    kinds = [step.kind for step in steps]
    assert kinds.count(Kind.COMPRESS) == chunks
    assert kinds.count(Kind.FIT) == len(request.fits)
    training = request.training
    tuned = training is not None and training.method == "finetune"
    assert kinds.count(Kind.TRAIN) == (len(request.variants) if training else 0)
    assert kinds.count(Kind.COMPARE) == (1 if training else 0)
    assert kinds.count(Kind.TUNE) == (len(request.variants) * training.seeds if training and tuned else 0)
    test_sets = 1 + len(training.test_distances) if training else 0
    assert kinds.count(Kind.FEATURES) == (len(request.variants) + test_sets if training and not tuned else 0)
    assert kinds[0] is Kind.LIST
    assert kinds[-1] is Kind.REPORT


@given(st.sampled_from([WITH_RULES, WITH_FINETUNING]), st.integers(1, 12), st.integers(0, 10**6))
def test_no_step_runs_before_its_inputs(request: Request, chunks: int, seed: int) -> None:
    """Else the index is merged before its last part, or a model is trained on half a subset."""
    place = {step: number for number, step in enumerate(_run(request, chunks, seed))}
    kinds = [kind for kind in JOB_KINDS if kind is not (Kind.FEATURES if request is WITH_FINETUNING else Kind.TUNE)]
    last = {kind: max(n for step, n in place.items() if step.kind is kind) for kind in kinds}
    first = {kind: min(n for step, n in place.items() if step.kind is kind) for kind in kinds}
    for before, after in pairwise(kind for kind in kinds if kind is not Kind.CHECK):
        assert last[before] < first[after]
    assert first[Kind.CHECK] > last[Kind.LIST]


def test_the_report_waits_for_the_check() -> None:
    """Else its warnings are missing from the report now and then."""
    job = _job(PLAIN)
    done = {step.output for step in _run(PLAIN, 2, 0) if step.kind not in (Kind.CHECK, Kind.REPORT)}
    assert [step.kind for step in ready_steps(job, done, 2)] == [Kind.CHECK]


def test_nobody_asks_for_parts_once_there_is_an_index() -> None:
    """Else every step behind the index looks for each of a million parts, which it does not read."""
    job = _job(PLAIN)
    kinds = (Kind.LIST, Kind.CHECK, Kind.INDEX)
    done = {step.output for step in _run(PLAIN, 5, 0) if step.kind in kinds}
    assert [step.kind for step in ready_steps(job, done, 5)] == [Kind.SELECT]


def test_steps_of_one_job_have_outputs_of_their_own() -> None:
    """Else one step passes for another that is done."""
    job = _job(WITH_RULES)
    for request in (WITH_RULES, WITH_FINETUNING, WITH_TESTS):
        outputs = [step.output for step in _run(request, 5, 1)]
        outputs += [Step(job.id, kind, "abc").output for kind in kinds_of(RequestKind.ADVICE)]
        assert len(outputs) == len(set(outputs))
        assert all(key.startswith(layout.work(job.id)) for key in outputs)


def test_a_question_before_there_is_an_index_says_so(store: FolderStore) -> None:
    """Else asking too early looks like a job that does not exist."""
    with pytest.raises(JobNotReady, match="keepmore resume job"):
        request_subset(_job(PLAIN), store, SubsetRequest(BytesBudget(1), Selection()))
    assert chunk_count(store, "job") is None


def _outputs(request: Request) -> set[str]:
    return {step.output for step in _run(request, 2, 0)}


def test_steps_survive_being_written_down() -> None:
    """Else a message, or the tracker, names another step than was meant."""
    advice = [Step("job", kind, "abc") for kind in kinds_of(RequestKind.ADVICE)]
    for step in [*_run(WITH_RULES, 5, 1), *_run(WITH_FINETUNING, 2, 1), *_run(WITH_TESTS, 2, 1), *advice]:
        assert Step.parse(step.job, str(step)) == step


def test_another_subset_and_training_are_ready_once_they_are_asked_for() -> None:
    """Else a second budget waits for ever, or a failed question is tried for ever."""
    job, done = _job(WITH_TRAINING).ended(State.SUCCEEDED), _outputs(WITH_TRAINING)
    trainings = {"def": Training()}
    assert not list(ready_steps(job, done, 2))
    done.add(layout.request(RequestKind.SUBSET, job.id, "abc"))
    ready = list(ready_steps(job, done, 2, trainings))
    assert [str(step) for step in ready[:2]] == ["select:abc", "features:def/evaluation"]
    for kinds in ({Kind.SELECT, Kind.FEATURES}, {Kind.TRAIN}, {Kind.COMPARE}):
        ready = list(ready_steps(job, done, 2, trainings))
        assert {step.kind for step in ready} == kinds
        assert all(is_beside(job, step) for step in ready)
        error_keys = {ref.error_key for step in ready if (ref := RequestRef.of_step(step))}
        assert not list(ready_steps(job, done | error_keys, 2, trainings))
        done |= {step.output for step in ready}
    assert not list(ready_steps(job, done, 2, trainings))


def test_a_fine_tuning_that_is_asked_for_begins_with_its_runs() -> None:
    """Else it waits for features that a fine-tuning never makes, or reports a variant before its last seed."""
    job, done = _job(WITH_TRAINING).ended(State.SUCCEEDED), _outputs(WITH_TRAINING)
    runs = list(ready_steps(job, done, 2, {"def": FINETUNING}))
    assert [str(step) for step in runs] == [
        f"tune:def/{variant}/{seed}" for seed in (0, 1) for variant in ("0", "2", "10")
    ]
    done |= {step.output for step in runs[:-1]}
    assert list(ready_steps(job, done, 2, {"def": FINETUNING})) == runs[-1:]
    assert {step.kind for step in ready_steps(job, done | {runs[-1].output}, 2, {"def": FINETUNING})} == {Kind.TRAIN}


def test_a_training_that_has_its_results_makes_nothing_they_came_from_again() -> None:
    """Else a training of an earlier release, which kept its features elsewhere, costs its hours again."""
    job, done = _job(WITH_TRAINING).ended(State.SUCCEEDED), _outputs(WITH_TRAINING)
    done |= {layout.training(job.id, "def", variant) for variant in WITH_TRAINING.variants}
    for training in (Training(), FINETUNING):
        assert [str(step) for step in ready_steps(job, done, 2, {"def": training})] == ["compare:def"]


@pytest.mark.parametrize("state", [State.ACCEPTED, State.SUCCEEDED, State.FAILED])
def test_advice_needs_the_index_and_nothing_else(state: State) -> None:
    """Else advice waits for trainings that it is meant to save, or fails for ever."""
    job = _job(WITH_TRAINING) if state is State.ACCEPTED else _job(WITH_TRAINING).ended(state)
    done = {step.output for step in _run(WITH_TRAINING, 2, 0) if step.kind in (Kind.LIST, Kind.COMPRESS)}
    done.add(layout.request(RequestKind.ADVICE, job.id, "abc"))

    def ready() -> list[Step]:
        return [step for step in ready_steps(job, done, 2) if step.kind in kinds_of(RequestKind.ADVICE)]

    assert not ready()
    done.add(layout.index_summary(job.id))
    (pilot,) = ready()
    assert (str(pilot), pilot.kind.lane) == ("pilot:abc", Lane.COMPRESS)
    assert is_beside(job, pilot)
    assert RequestRef.of_step(pilot) == RequestRef(RequestKind.ADVICE, job.id, "abc")
    done.add(pilot.output)
    (advise,) = ready()
    assert (str(advise), advise.kind.lane) == ("advise:abc", Lane.TRAINING)
    assert RequestRef.of_step(advise) == RequestRef(RequestKind.ADVICE, job.id, "abc")
    done.add(layout.request_error(RequestKind.ADVICE, job.id, "abc"))
    assert not ready()


def test_another_subset_of_a_job_with_rules_is_fitted_first() -> None:
    """Else a second budget is answered with what fits the first, or never."""
    job, done = _job(WITH_RULES).ended(State.SUCCEEDED), _outputs(WITH_RULES)
    done.add(layout.request(RequestKind.SUBSET, job.id, "abc"))
    ready = list(ready_steps(job, done, 2))
    assert [str(step) for step in ready] == ["fit:abc/fit-7", "fit:abc/fit-9"]
    assert all(
        is_beside(job, step) and RequestRef.of_step(step) == RequestRef(RequestKind.SUBSET, job.id, "abc")
        for step in ready
    )
    assert [str(step) for step in ready_steps(job, done | {step.output for step in ready}, 2)] == ["select:abc"]
    assert not list(ready_steps(job, done | {layout.request_error(RequestKind.SUBSET, job.id, "abc")}, 2))


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_stopped_job_gets_no_further_but_answers_questions(state: State) -> None:
    """Else cancelling frees no worker; or an index that cost days cannot be asked any more."""
    job = _job(WITH_TRAINING).ended(state)
    half = {step.output for step in _run(WITH_TRAINING, 2, 0) if step.kind in (Kind.LIST, Kind.COMPRESS, Kind.INDEX)}
    assert not list(ready_steps(job, half, 2))
    keys = half | {layout.request(RequestKind.SUBSET, job.id, "abc")}
    assert [step.kind for step in ready_steps(job, keys, 2)] == [Kind.SELECT]


def test_unknown_subsets_and_trainings_are_named(store: FolderStore) -> None:
    """Else a mistyped id fails as a missing file."""
    with pytest.raises(SubsetNotFound, match="no subset 'abc'"):
        subset_request(_job(PLAIN), "abc", store)
    with pytest.raises(TrainingNotFound, match="no training 'abc'"):
        training_request(_job(PLAIN), "abc", store)


@pytest.mark.parametrize(("classes", "evaluation", "why"), [({}, 3, "has a label"), ({"cat": 9}, 0, "to test on")])
def test_a_training_without_labels_or_test_images_is_refused(
    store: FolderStore, classes: dict[str, int], evaluation: int, why: str
) -> None:
    """Else it fails an hour later, or tests on what it was trained on."""
    job = _job(PLAIN)
    summary = Summary(pool=9, classes=classes, evaluation=evaluation)
    store.put(layout.index_summary(job.id), json.dumps(summary.as_json()).encode())
    store.put(layout.subset(job.id, PLAIN.subset_id), b"{}")
    with pytest.raises(NotTrainable, match=why):
        request_training(job, store, TrainingRequest(PLAIN.subset_id, Training()))


def test_an_unknown_trainer_says_how_to_get_one() -> None:
    """Else an installation without PyTorch fails with an ImportError after an hour of compressing."""
    with pytest.raises(TrainerMissing, match=r"pip install 'keepmore\[trainer\]'"):
        load_trainer("telepathy")


@pytest.mark.parametrize("kind", [kind for kind, spec in SPECS.items() if kind.spec.run or spec.stage])
def test_what_a_step_wrote_counts_as_done(kind: Kind, store: FolderStore) -> None:
    """Else a step of a kind that somebody adds is ready again as soon as it is done, and its job never ends."""
    job = JobRepository(store).create(PLAIN)
    store.put(layout.listing(job.id), json.dumps(Listing("a", 1, 4, {"pool": 4}, {}, "any").as_json()).encode())
    output = Step(job.id, kind, "request", "variant").output
    if kind is not Kind.LIST:
        assert output not in take_snapshot(job, store).done
        store.put(output, b"")
    assert output in take_snapshot(job, store).done
