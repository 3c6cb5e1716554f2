"""Advice over HTTP: asked for, waited for, shown in two forms, and refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keepmore.synthetic.dataset import write_sample
from tests.service import Service
from tests.services.api.conftest import Ask

BODY = {"budgets": ["1MB", {"as_distance": 8}], "distances": [0, 8, 25], "training": {"steps": 60, "seeds": 2}}


@pytest.fixture(scope="module")
def pool(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job over 192 drawn images, with 96 to test on."""
    root: Path = tmp_path_factory.mktemp("pool") / "images"
    write_sample(root, train_per_class=24, test_per_class=12)
    body = {"dataset": (root / "train").as_uri(), "distances": [0, 8]}
    job_id = service.client.start({**body, "evaluation": {"dataset": (root / "test").as_uri()}})["job"]
    service.client.wait(job_id, timeout_s=120)
    return job_id


def test_advice_is_asked_for_and_waited_for(ask: Ask, pool: str) -> None:
    """Else a pipeline cannot ask where to store, or polls an address that says nothing."""
    reply = ask("POST", f"/v1/jobs/{pool}/advice", BODY)
    assert reply.status == 202
    assert reply.json["state"] == "running"
    assert reply.json["request"]["budgets"] == [1_000_000, {"as_distance": 8.0, "fraction": "1"}]
    where = reply.headers["location"]
    assert where == f"/v1/jobs/{pool}/advice/{reply.json['advice']}"
    assert ask("GET", where).status == 202
    assert ask("GET", where, Accept="text/html").status == 202, "no page before there is advice"
    while (advice := ask("GET", f"{where}?wait=30")).status == 202:
        pass
    assert advice.status == 200
    assert advice.json["state"] == "succeeded"
    assert [len(budget["distances"]) for budget in advice.json["budgets"]] == [3, 3]
    page = ask("GET", where, Accept="text/html")
    assert (page.status, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert b"store at distance" in page.body
    assert (advice.headers["vary"], page.headers["vary"]) == ("Accept", "Accept")
    assert ask("GET", where, Accept="image/png").status == 406
    again = ask("POST", f"/v1/jobs/{pool}/advice", BODY)
    assert (again.status, again.json) == (200, advice.json)


def test_advice_that_nobody_asked_for_is_not_found(ask: Ask, job: str) -> None:
    """Else a mistyped id looks like advice that is on its way."""
    for name in ("0" * 12, "..", "a" * 500):
        reply = ask("GET", f"/v1/jobs/{job}/advice/{name}")
        assert reply.status == 404
    assert ask("GET", f"/v1/jobs/{job}/advice/{'0' * 12}").json["code"] == "advice_not_found"
    assert ask("POST", "/v1/jobs/20200101-000000/advice", BODY).json["code"] == "job_not_found"


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"budgets": []}, "invalid_request", "budgets: "),
        ({"budgets": None}, "wrong_type", "budgets: "),
        ({"budgets": [None]}, "invalid_request", "budgets: null is none; give bytes"),
        ({"budgets": ["1MB"] * 101}, "invalid_request", "budgets: "),
        ({"budgets": [0]}, "budget_out_of_range", "give at least 1"),
        ({"budgets": [10**30]}, "budget_out_of_range", "at most"),
        ({"budgets": [{"monthly_cost": "NaN", "price_per_gb_month": 1}]}, "budget_out_of_range", "monthly_cost"),
        ({"budgets": [{"monthly_cost": 1e300, "price_per_gb_month": 1}]}, "budget_out_of_range", "below 10^18"),
        ({"budgets": [{"as_distance": 7}]}, "invalid_request", "use one of the job's distances: 0, 4, 10"),
        ({"accuracy": 2}, "invalid_request", "accuracy: 2.0 is not possible; give a share such as 0.8"),
        ({"accuracy": True}, "wrong_type", "accuracy: "),
        ({"images": 3}, "invalid_request", "images: 3 are too few for pilots; use 60 or more"),
        ({"images": 1.5}, "wrong_type", "images: "),
        ({"price_per_gb_month": "free"}, "invalid_request", "price_per_gb_month: 'free' is not a number"),
        ({"price_per_gb_month": "NaN"}, "invalid_request", "price_per_gb_month: NaN is not possible"),
        ({"price_per_gb_month": "9" * 5000}, "invalid_request", "price_per_gb_month: 9"),
        ({"distances": [4, 4, 8]}, "duplicate_distance", "distances: 4 is named more than once; name it once"),
        ({"distances": [4]}, "invalid_request", "distances: 2 with 0 are too few; name 3 or more"),
        ({"distances": [0, 1, 1e300]}, "distance_out_of_range", "distances: "),
        ({"training": {"method": "finetune"}}, "invalid_request", "training.method: "),
        ({"training": {"seeds": 101}}, "invalid_request", "training.seeds: 101 are too many for pilots"),
        ({"training": {"test_distances": [4]}}, "invalid_request", "training.test_distances: "),
        ({"training": {"seeds": 10**9}}, "invalid_request", "training.seeds: 1000000000 is not possible"),
        ({"colour": "red"}, "unknown_field", "colour: there is no such field"),
    ],
)
def test_bad_questions_are_refused_with_field_and_remedy(
    ask: Ask, job: str, change: dict[str, Any], code: str, says: str
) -> None:
    """Else a caller reads our code to find out what was wrong, or waits minutes to be told."""
    reply = ask("POST", f"/v1/jobs/{job}/advice", {**BODY, "budgets": ["1MB"], **change})
    assert reply.status == 422, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["code"] == code
    assert says in reply.json["detail"]


@pytest.mark.parametrize("body", [b'{"budgets": [NaN]}', b'{"budgets": ["1MB"], "accuracy": NaN}', b"[]", b"{"])
def test_what_is_no_question_at_all_is_refused(ask: Ask, job: str, body: bytes) -> None:
    """Else a client's defect is a defect of the service."""
    assert 400 <= ask("POST", f"/v1/jobs/{job}/advice", body).status < 500


def test_pilots_that_are_too_few_are_a_conflict_with_the_reason(ask: Ask, job: str) -> None:
    """Else a caller waits for ever, or gets advice that stands on 8 test images."""
    reply = ask("POST", f"/v1/jobs/{job}/advice", BODY | {"budgets": ["1MB"]})
    assert reply.status == 409, "before an image is encoded"
    assert reply.json["code"] == "pilots_insufficient"
    assert "test on 50 or more" in reply.json["detail"]


def test_advice_needs_an_index(ask: Ask, waiting: str) -> None:
    """Else a question that comes too early fails in a worker, where nobody sees why."""
    reply = ask("POST", f"/v1/jobs/{waiting}/advice", BODY)
    assert (reply.status, reply.json["code"]) == (409, "job_not_ready")
