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

from keepmore import keys
from keepmore.budget import BytesBudget
from keepmore.errors import JobNotReady, NotTrainable, SubsetNotFound, TrainerMissing, TrainingNotFound
from keepmore.index import Summary
from keepmore.jobs import Job, State
from keepmore.levels import Fit, Spread
from keepmore.questions import ask_for_subset, ask_for_training, chunk_count, subset_request, training_request
from keepmore.request import Evaluation, Request, Selection, Training
from keepmore.steps import Kind, Step, error_key, is_asked, ready_steps
from keepmore.store import FolderStore
from keepmore.trainers import load_trainer

TRAINED = Request(
    "file:///d",
    (0, 2, 10),
    budget=BytesBudget(1000),
    evaluation=Evaluation(holdout=0.2),
    training=Training(),
)
PLAIN = Request("file:///d", (4,))
LEVELLED = replace(TRAINED, distances=(0.0,), levels=(Spread(0.5, 15), Fit(7), Fit(9)))
TUNED = replace(LEVELLED, training=Training(method="finetune", seeds=2, test_distances=(8.0,)))
requests = st.sampled_from([TRAINED, PLAIN, LEVELLED, TUNED])
ORDER = (
    Kind.LIST, Kind.COMPRESS, Kind.INDEX, Kind.FIT, Kind.SELECT, Kind.FEATURES, Kind.TUNE, Kind.TRAIN, Kind.COMPARE,
    Kind.REPORT,
)  # fmt: skip


def _job(request: Request) -> Job:
    return Job("job", request, "2026-01-01T00:00:00Z")


def _run(request: Request, chunks: int, seed: int) -> Iterator[Step]:
    """Steps as any number of workers would finish them: each time a ready one at random."""
    draw = random.Random(seed)
    job, done = _job(request), set[str]()
    while ready := list(ready_steps(job, done, chunks if keys.listing(job.id) in done else None)):
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
    arms = len(request.arms) if request.training else 0
    tuned = request is TUNED
    assert kinds.count(Kind.FEATURES) == (0 if tuned or not arms else arms + 1)
    assert kinds.count(Kind.TUNE) == (2 * arms if tuned else 0)
    assert (kinds.count(Kind.TRAIN), kinds.count(Kind.COMPARE)) == (arms, min(1, arms))
    assert kinds[0] is Kind.LIST
    assert kinds[-1] is Kind.REPORT


@given(st.sampled_from([LEVELLED, TUNED]), st.integers(1, 12), st.integers(0, 10**6))
def test_no_step_runs_before_its_inputs(request: Request, chunks: int, seed: int) -> None:
    """Else the index is merged before its last part, or a model is trained on half a subset."""
    kinds = [step.kind for step in _run(request, chunks, seed)]
    first = {kind: kinds.index(kind) for kind in set(kinds)}
    last = {kind: number for number, kind in enumerate(kinds)}
    for before, after in pairwise(kind for kind in ORDER if kind in first):
        assert last[before] < first[after]
    assert first[Kind.CHECK] > last[Kind.LIST]


def test_test_images_at_other_distances_have_features_of_their_own() -> None:
    """Else a domain check tests on the original images again, under another name."""
    request = replace(TRAINED, training=Training(test_distances=(8.0, 2.5)))
    parts = {step.part.partition("/")[2] for step in _run(request, 1, 0) if step.kind is Kind.FEATURES}
    assert parts == {"evaluation", "evaluation@2.5", "evaluation@8", "0", "2", "10"}


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
    job = _job(LEVELLED)
    outputs = [step.output for step in _run(LEVELLED, 5, 1)]
    assert len(outputs) == len(set(outputs))
    assert all(key.startswith(keys.work(job.id)) for key in outputs)


def test_a_question_before_there_is_an_index_says_so(store: FolderStore) -> None:
    """Else asking too early looks like a job that does not exist."""
    with pytest.raises(JobNotReady, match="keepmore resume job"):
        ask_for_subset(_job(PLAIN), store, BytesBudget(1), Selection())
    assert chunk_count(store, "job") is None


def _done(request: Request) -> set[str]:
    return {step.output for step in _run(request, 2, 0)}


def test_steps_survive_being_written_down() -> None:
    """Else a message, or the board, names another step than was meant."""
    for step in (*_run(LEVELLED, 5, 1), *_run(TUNED, 1, 1)):
        assert Step.parse(step.job, str(step)) == step


def test_another_subset_and_training_are_ready_once_they_are_asked_for() -> None:
    """Else a second budget waits for ever, or a failed question is tried for ever."""
    job, done = _job(TRAINED).ended(State.SUCCEEDED), _done(TRAINED)
    assert not list(ready_steps(job, done, 2))
    done |= {keys.subset_request(job.id, "abc"), keys.training_request(job.id, "def")}
    asked = {"def": Training(model="resnet18")}
    ready = list(ready_steps(job, done, 2, asked))
    assert [str(step) for step in ready[:2]] == ["select:abc", "features:def/evaluation"]
    assert all(is_asked(job, step) for step in ready)
    done |= {step.output for step in ready}
    assert {step.kind for step in ready_steps(job, done, 2, asked)} == {Kind.TRAIN}
    done |= {key for step in ready if (key := error_key(step))}
    assert not list(ready_steps(job, done, 2, asked))


def test_another_subset_of_a_job_with_levels_is_fitted_first() -> None:
    """Else a second budget is answered with what fits the first, or never."""
    job, done = _job(LEVELLED).ended(State.SUCCEEDED), _done(LEVELLED)
    done.add(keys.subset_request(job.id, "abc"))
    ready = list(ready_steps(job, done, 2))
    assert [str(step) for step in ready] == ["fit:abc/fit-7", "fit:abc/fit-9"]
    assert all(is_asked(job, step) and error_key(step) == keys.subset_error(job.id, "abc") for step in ready)
    assert [str(step) for step in ready_steps(job, done | {step.output for step in ready}, 2)] == ["select:abc"]
    assert not list(ready_steps(job, done | {keys.subset_error(job.id, "abc")}, 2))


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_stopped_job_gets_no_further_but_answers_questions(state: State) -> None:
    """Else cancelling frees no worker; or an index that cost days cannot be asked any more."""
    job = _job(TRAINED).ended(state)
    half = {step.output for step in _run(TRAINED, 2, 0) if step.kind in (Kind.LIST, Kind.COMPRESS, Kind.INDEX)}
    assert not list(ready_steps(job, half, 2))
    asked = half | {keys.subset_request(job.id, "abc")}
    assert [step.kind for step in ready_steps(job, asked, 2)] == [Kind.SELECT]


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
    store.put(keys.index_summary(job.id), json.dumps(summary.as_json()).encode())
    store.put(keys.subset(job.id, PLAIN.subset_id), b"{}")
    with pytest.raises(NotTrainable, match=why):
        ask_for_training(job, store, PLAIN.subset_id, Training())


def test_an_unknown_trainer_says_how_to_get_one() -> None:
    """Else an installation without PyTorch fails with an ImportError after an hour of compressing."""
    with pytest.raises(TrainerMissing, match=r"pip install 'keepmore\[trainer\]'"):
        load_trainer("telepathy")
