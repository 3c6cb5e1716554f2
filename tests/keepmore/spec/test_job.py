"""Requests and jobs: checked, named, and written down."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.errors import InvalidRequest, JobNotFound, StoreFull
from keepmore.jobs.job import JobRepository, State
from keepmore.spec.budget import BytesBudget, DistanceBudget, MoneyBudget
from keepmore.spec.job import Evaluation, Limits, Request, Selection, training_id
from keepmore.spec.training import Training, Tuning
from keepmore.storage.folder import FolderStore

job_requests = st.builds(
    Request,
    dataset=st.sampled_from(["file:///a%20b", "file:///x.tar"]),
    distances=st.lists(st.sampled_from([0.0, 0.5, 4.0, 10.0, 25.0]), min_size=1, unique=True).map(
        lambda d: tuple({*d, 10.0})
    ),
    effort=st.integers(1, 10),
    budget=st.sampled_from(
        [None, BytesBudget(7), DistanceBudget(10.0, Decimal("0.5")), MoneyBudget(Decimal(5), Decimal("0.02"))]
    ),
    selection=st.builds(
        Selection, st.sampled_from(["random", "smallest"]), st.sampled_from([None, True, False]), st.integers(0, 99)
    ),
    evaluation=st.sampled_from([Evaluation(holdout=0.2), Evaluation(dataset="file:///t")]),
    training=st.none()
    | st.builds(Training, weights=st.sampled_from(["default", "none"]), seeds=st.integers(1, 9))
    | st.builds(
        Training,
        method=st.just("finetune"),
        epochs=st.none() | st.integers(1, 99),
        test_distances=st.sampled_from([(), (4.0,), (0.5, 8.0)]),
        tuning=st.none() | st.builds(Tuning, batch=st.integers(4, 64), micro_batch=st.none() | st.integers(1, 4)),
    ),
    limits=st.builds(Limits, st.integers(1, 10**8), st.integers(1, 10**9)),
)


@given(job_requests)
def test_json_keeps_a_request(request: Request) -> None:
    """Else a resumed job is another job than the one that was asked for."""
    assert Request.from_json(json.loads(json.dumps(request.as_json()))) == request


@given(job_requests, job_requests)
def test_subsets_and_trainings_have_the_names_of_their_questions(one: Request, other: Request) -> None:
    """Else one budget's manifests pass for another's, or a training is done twice."""
    same = (one.budget, one.selection) == (other.budget, other.selection)
    assert (one.subset_id == other.subset_id) == same
    same_training = same and (one.training, one.evaluation) == (other.training, other.evaluation)
    assert (one.training_id == other.training_id) == same_training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Request("file:///d", (0, 30)), "distances: 30 is not possible; use 0"),
        (lambda: Request("file:///d", (2,), effort=11), "effort: 11 is not possible; use 1 to 10"),
        (lambda: Request("file:///d", (2,), budget=DistanceBudget(10.0)), "use one of the job's distances: 2"),
        (lambda: Request("file:///d", (2,), training=Training()), "training: there is nothing to test on"),
        (lambda: Selection(order="best"), "selection.order: 'best' is unknown; use random or smallest"),
        (lambda: Evaluation(), "give one of `dataset`"),
        (lambda: Evaluation(holdout=1.5), "evaluation.holdout: 1.5 is not a part"),
        (lambda: Training(steps=0), "training.steps: 0 is not possible"),
        (lambda: Training(method="magic"), "training.method: 'magic' is unknown; use probe or finetune"),
        (lambda: Training(seeds=1001), "training.seeds: 1001 is not possible; use 1 to 1,000"),
        (lambda: Training(epochs=0), "training.epochs: 0 is not possible; use 1 to 10,000"),
        (lambda: Training(tuning=Tuning()), "training.tuning: there is nothing to tune in a probe"),
        (lambda: Training(test_distances=(4, 4)), "training.test_distances: 4 is named more than once"),
        (lambda: Training(test_distances=(26,)), "training.test_distances: 26 is not possible"),
        (lambda: Tuning(batch=0), "training.tuning.batch: 0 is not possible; use 1 to 65,536"),
        (lambda: Tuning(micro_batch=65), "training.tuning.micro_batch: 65 is not possible; use 1 to 64"),
        (lambda: Tuning(image_size=2000), "training.tuning.image_size: 2000 is not possible; use 32 to 1,024"),
        (lambda: Tuning(learning_rate=math.nan), "training.tuning.learning_rate: nan is not possible"),
        (lambda: Tuning(learning_rate=10.5), "training.tuning.learning_rate: 10.5 is not possible; use above 0 to 10"),
        (lambda: Tuning(crop=0), "training.tuning.crop: 0 is not possible; use above 0 to 1"),
        (lambda: Tuning(layer_decay=1.5), "training.tuning.layer_decay: 1.5 is not possible; use above 0 to 1"),
        (lambda: Tuning(weight_decay=-1), "training.tuning.weight_decay: -1 is not possible; use 0 to 10"),
        (lambda: Tuning(warmup=math.nan), "training.tuning.warmup: nan is not possible; use 0 to 1"),
        (lambda: Tuning(label_smoothing=1), "training.tuning.label_smoothing: 1 is not possible; use 0 to 0.99"),
        (lambda: Tuning(head="best"), "training.tuning.head: 'best' is unknown; use probe or new"),
        (lambda: Limits(max_pixels=10**9), "limits.max_pixels"),
    ],
)
def test_impossible_requests_name_field_value_and_remedy(make: Callable[[], Any], message: str) -> None:
    """Else a job of hours ends with a request that could not be carried out."""
    with pytest.raises(InvalidRequest) as excinfo:
        make()
    assert message in str(excinfo.value)


def test_trainings_of_earlier_releases_keep_their_ids() -> None:
    """Else an upgrade trains everything again that was trained before, and links to results lead nowhere."""
    budget, holdout = DistanceBudget(10.0), Evaluation(holdout=0.2)
    request = Request("file:///d", (0, 10), budget=budget, evaluation=holdout, training=Training())
    assert request.training_id == "568cdc637324"
    training = Training("resnet18", "none", "probe", steps=60, seeds=2)
    assert training_id("abc", training, Evaluation(dataset="file:///t")) == "11beee8498f0"
    assert training_id("abc", Training(method="finetune"), Evaluation(dataset="file:///t")) == "59e992160234"
    half = Training(method="finetune", tuning=Tuning(precision="float16"))
    assert Training.from_json(half.as_json()) == half
    plain = {"model": "mobilenet_v2", "weights": "default", "method": "probe", "steps": 300, "seeds": 3}
    assert Training().as_json() == plain
    assert Training.from_json(plain) == Training()


def test_a_fine_tuning_says_all_that_it_is_tuned_by() -> None:
    """Else a later release, whose defaults are others, gives another result under the same id."""
    training = Training(method="finetune")
    assert training.tuning == Tuning()
    assert training.as_json()["tuning"]["learning_rate"] == 1e-4
    assert Training(test_distances=(8, 0, 4)).test_distances == (4, 8), "the originals are always tested"


def test_the_repository_keeps_jobs_in_order(store: FolderStore) -> None:
    """Else `keepmore show` loses jobs, or mixes up which came first."""
    repository = JobRepository(store)
    jobs = [repository.create(Request("file:///d", (n,))) for n in (1, 2, 3)]
    assert list(repository.ids()) == [job.id for job in jobs]
    assert [repository.get(job.id) for job in jobs] == jobs
    failed_job = jobs[0].ended(State.FAILED, StoreFull("no room"))
    repository.save(failed_job)
    assert repository.get(jobs[0].id) == failed_job
    assert failed_job.error == {"code": "store_full", "message": "no room", "retryable": True}
    with pytest.raises(JobNotFound, match="no such job"):
        repository.get("20200101-000000")
