"""Which steps are ready: the makefile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore import keys
from keepmore.budget import BytesBudget
from keepmore.errors import JobNotReady, TrainerMissing
from keepmore.jobs import Job
from keepmore.request import Evaluation, Request, Selection, Training
from keepmore.steps import Kind, Step, ask_for_subset, chunk_count, load_trainer, output, ready_steps
from keepmore.store import FolderStore

TRAINED = Request(
    "file:///d",
    (0, 2, 10),
    budget=BytesBudget(1000),
    evaluation=Evaluation(holdout=0.2),
    training=Training(),
)
PLAIN = Request("file:///d", (4,))
requests = st.sampled_from([TRAINED, PLAIN])


def _job(request: Request) -> Job:
    return Job("job", request, "2026-01-01T00:00:00Z")


def _run(request: Request, chunks: int, seed: int) -> Iterator[Step]:
    """Steps as any number of workers would finish them: each time a ready one at random."""
    draw = random.Random(seed)
    job, done = _job(request), set[str]()
    while ready := list(ready_steps(job, done, chunks if keys.listing(job.id) in done else None)):
        step = draw.choice(ready)
        assert output(job, step) not in done, "a step that is done was ready again"
        done.add(output(job, step))
        yield step


@given(requests, st.integers(1, 12), st.integers(0, 10**6))
def test_any_order_of_finishing_ends_with_every_step_done_once(request: Request, chunks: int, seed: int) -> None:
    """Else a job hangs, or does a step twice, depending on which worker was quicker."""
    steps = list(_run(request, chunks, seed))
    assert len(steps) == len(set(steps))
    kinds = [step.kind for step in steps]
    assert kinds.count(Kind.COMPRESS) == chunks
    assert kinds.count(Kind.TRAIN) == (3 if request.training else 0)
    assert kinds.count(Kind.FEATURES) == (4 if request.training else 0)
    assert kinds[0] is Kind.LIST
    assert kinds[-1] is Kind.REPORT


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_no_step_runs_before_its_inputs(chunks: int, seed: int) -> None:
    """Else the index is merged before its last part, or a model is trained on half a subset."""
    place = {step: number for number, step in enumerate(_run(TRAINED, chunks, seed))}
    last = {kind: max(n for step, n in place.items() if step.kind is kind) for kind in Kind}
    first = {kind: min(n for step, n in place.items() if step.kind is kind) for kind in Kind}
    order = [Kind.LIST, Kind.COMPRESS, Kind.INDEX, Kind.SELECT, Kind.FEATURES, Kind.TRAIN, Kind.REPORT]
    for before, after in pairwise(order):
        assert last[before] < first[after]
    assert first[Kind.CHECK] > last[Kind.LIST]


def test_the_report_waits_for_the_check() -> None:
    """Else its warnings are missing from the report now and then."""
    job = _job(PLAIN)
    done = {output(job, step) for step in _run(PLAIN, 2, 0) if step.kind not in (Kind.CHECK, Kind.REPORT)}
    assert [step.kind for step in ready_steps(job, done, 2)] == [Kind.CHECK]


def test_steps_of_one_job_have_outputs_of_their_own() -> None:
    """Else one step passes for another that is done."""
    job = _job(TRAINED)
    outputs = [output(job, step) for step in _run(TRAINED, 5, 1)]
    assert len(outputs) == len(set(outputs))
    assert all(key.startswith(keys.work(job.id)) for key in outputs)


def test_a_question_before_there_is_an_index_says_so(store: FolderStore) -> None:
    """Else asking too early looks like a job that does not exist."""
    with pytest.raises(JobNotReady, match="keepmore resume job"):
        ask_for_subset(_job(PLAIN), store, BytesBudget(1), Selection())
    assert chunk_count(store, "job") is None


def test_an_unknown_trainer_says_how_to_get_one() -> None:
    """Else an installation without PyTorch fails with an ImportError after an hour of compressing."""
    with pytest.raises(TrainerMissing, match=r"pip install 'keepmore\[trainer\]'"):
        load_trainer("telepathy")
