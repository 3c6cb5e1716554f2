"""Bad input: each kind has a problem of its own that names the field, the value and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keepmore import errors
from keepmore.errors import KeepmoreError
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import Selection, SubsetRequest
from keepmore_api.problems import status_of
from tests.service import Service, embedded
from tests.services.api.conftest import Ask, asking

GOOD: dict[str, Any] = {"dataset": "file:///photos", "distances": [0, 10]}
DOCS = Path(__file__).resolve().parents[3] / "docs" / "errors.md"

BAD_BODIES = [
    ({"colour": "red"}, 422, "unknown_field", "colour"),
    ({"selection": {"sead": 1}}, 422, "unknown_field", "selection.sead"),
    ({"distances": "0,10"}, 422, "wrong_type", "distances"),
    ({"distances": ["4"]}, 422, "wrong_type", "distances[0]"),
    ({"effort": "3"}, 422, "wrong_type", "effort"),
    ({"budget": True}, 422, "wrong_type", "budget"),
    ({"distances": []}, 422, "invalid_request", "distances: the list is empty"),
    ({"distances": [0, 25.5]}, 422, "distance_out_of_range", "25.5"),
    ({"distances": [-1]}, 422, "distance_out_of_range", "-1"),
    ({"distances": [0.05]}, 422, "distance_out_of_range", "0.05"),
    ({"distances": [4, 4.0]}, 422, "duplicate_distance", "4 is named more than once"),
    ({"distances": {"spread": [0, 15]}}, 422, "distance_out_of_range", "0.11 to 25"),
    ({"distances": [{"spread": [15, 0.5]}]}, 422, "invalid_request", "smaller one first"),
    ({"distances": [{"spread": [5]}]}, 422, "wrong_type", "give [low, high]"),
    ({"distances": [{"spred": [5, 6]}]}, 422, "unknown_field", "distances.spred"),
    ({"distances": [0, {"fit": 20}]}, 422, "invalid_request", "fit:20 needs a budget"),
    ({"distances": [{"fit": 0}], "budget": 9}, 422, "invalid_request", "fit:0"),
    ({"distances": [{"fit": 2.0}], "budget": 9}, 422, "wrong_type", "whole number"),
    ({"distances": [{"fit": 2}, {"fit": 2}], "budget": 9}, 422, "duplicate_distance", "fit:2"),
    ({"distances": [10**400]}, 422, "distance_out_of_range", "not possible"),
    ({"distances": list(range(101))}, 422, "invalid_request", "100 at most"),
    ({"effort": 11}, 422, "invalid_request", "effort: 11"),
    ({"budget": 0}, 422, "budget_out_of_range", "0 bytes"),
    ({"budget": -5}, 422, "budget_out_of_range", "-5 bytes"),
    ({"budget": 2**63}, 422, "budget_out_of_range", str(2**63)),
    ({"budget": "10EB"}, 422, "invalid_request", "'10EB' is not a size"),
    ({"budget": "999999999999999PB"}, 422, "budget_out_of_range", "bytes is not possible"),
    ({"budget": {"as_distance": 7}}, 422, "invalid_request", "0, 10"),
    ({"budget": {"as_distance": 10, "fraction": 2}}, 422, "budget_out_of_range", "fraction"),
    ({"budget": {"as_distance": 10, "fractoin": 1}}, 422, "unknown_field", "budget.fractoin"),
    ({"budget": {"as_distance": "10"}}, 422, "wrong_type", "budget.as_distance"),
    ({"budget": 1.5}, 422, "wrong_type", "1.5"),
    ({"budget": "9" * 5000}, 422, "invalid_request", "too long"),
    ({"limits": {"max_bytes": 10**30}}, 422, "invalid_request", "limits.max_bytes"),
    ({"budget": {"monthly_cost": 1, "price_per_gb_month": 0}}, 422, "budget_out_of_range", "price_per_gb_month"),
    ({"dataset": "photos/train"}, 422, "invalid_request", "is not a URI"),
    ({"dataset": "gopher://x/y"}, 422, "unsupported_dataset", "gopher"),
    ({"dataset": "s3://photos/../secrets"}, 422, "invalid_uri", ".."),
    ({"dataset": "file:///photos/../secrets"}, 422, "invalid_uri", ".."),
    ({"dataset": "file:///photos/%2e%2e/secrets"}, 422, "invalid_uri", "dataset: "),
    ({"dataset": "s3://key:secret@photos/train"}, 422, "invalid_uri", "credentials"),
    ({"evaluation": {"dataset": "s3://key:secret@photos/test"}}, 422, "invalid_uri", "evaluation.dataset: "),
    ({"dataset": "https://user:hunter2@example.org/x.tar"}, 422, "invalid_uri", "credentials"),
    ({"evaluation": {}}, 422, "invalid_request", "evaluation"),
    ({"evaluation": {"holdout": 1.5}}, 422, "invalid_request", "1.5"),
    ({"training": {"model": "mobilenet_v2"}}, 422, "invalid_request", "nothing to test on"),
    ({"training": {"method": "magic"}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "training.method"),
    ({"training": {"steps": 2_000_000_000}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "training.steps"),
    ({"training": {"seeds": 0}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "training.seeds"),
    ({"training": {"weights": "/etc/passwd"}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "a path"),
    ({"training": {"weights": "w.pth"}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "training.weights"),
    ({"training": {"weights": "file:///w.pt"}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "an s3:// URI"),
    (
        {"training": {"weights": "s3://bucket/passwd"}, "evaluation": {"holdout": 0.2}},
        422,
        "invalid_request",
        ".safetensors",
    ),
    (
        {"training": {"weights": "s3://k:hunter2@bucket/w.pt"}, "evaluation": {"holdout": 0.2}},
        422,
        "invalid_uri",
        "weights",
    ),
    ({"training": {"epochs": 0}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "training.epochs"),
    ({"training": {"tuning": {}}, "evaluation": {"holdout": 0.2}}, 422, "invalid_request", "training.tuning"),
    (
        {"training": {"test_distances": [4, 26]}, "evaluation": {"holdout": 0.2}},
        422,
        "distance_out_of_range",
        "training.test_distances: 26",
    ),
    (
        {"training": {"method": "finetune", "tuning": {"crop": 2}}, "evaluation": {"holdout": 0.2}},
        422,
        "invalid_request",
        "training.tuning.crop: 2",
    ),
    (
        {
            "training": {"method": "finetune", "tuning": {"batch": 64, "micro_batch": 65}},
            "evaluation": {"holdout": 0.2},
        },
        422,
        "invalid_request",
        "training.tuning.micro_batch: 65 is not possible; use 1 to 64",
    ),
    (
        {"training": {"method": "finetune", "tuning": {"learnign_rate": 1}}, "evaluation": {"holdout": 0.2}},
        422,
        "unknown_field",
        "training.tuning.learnign_rate",
    ),
    (
        {"training": {"method": "finetune", "tuning": {"batch": "64"}}, "evaluation": {"holdout": 0.2}},
        422,
        "wrong_type",
        "training.tuning.batch",
    ),
    ({"webhook": "https://example.org/hook"}, 422, "invalid_request", "KEEPMORE_WEBHOOK_SECRET"),
]


@pytest.mark.parametrize(
    ("body", "code", "fields"),
    [
        ({"selection": {"order": "x", "seed": -1}}, "invalid_request", ["selection.order", "selection.seed"]),
        ({"selection": {"order": None}, "colour": 1}, "invalid_request", ["selection.order", "colour"]),
        (
            {"training": {"steps": "a", "method": "x"}, "limits": 5},
            "invalid_request",
            ["training.method", "training.steps", "limits"],
        ),
        ({"dataset": "x", "distances": [99]}, "distance_out_of_range", ["distances"]),
        ({"dataset": "x", "effort": 99}, "invalid_request", ["dataset"]),
    ],
)
def test_several_faults_are_listed_in_the_order_and_with_the_code_of_the_first_release(
    ask: Ask, body: dict[str, Any], code: str, fields: list[str]
) -> None:
    """Else a pipeline that sorts refusals by their code sorts the same request elsewhere after an upgrade."""
    reply = ask("POST", "/v1/jobs", GOOD | body)
    assert (reply.status, reply.json["code"]) == (422, code)
    assert [one["field"] for one in reply.json["errors"]] == fields


@pytest.mark.parametrize(("change", "status", "code", "detail"), BAD_BODIES)
def test_a_wrong_request_is_named(ask: Ask, change: dict[str, Any], status: int, code: str, detail: str) -> None:
    """Else a pipeline's author guesses; or a typing error starts a job that nobody wanted."""
    before = ask("GET", "/v1/jobs?limit=1000").json["jobs"]
    reply = ask("POST", "/v1/jobs", GOOD | change)
    assert (reply.status, reply.json["code"]) == (status, code), reply.json
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["type"] == f"urn:keepmore:problem:{code}"
    assert detail in reply.json["detail"]
    assert "hunter2" not in reply.body.decode()
    assert len(reply.json["detail"].split()) > 4, "it says what to do"
    assert ask("GET", "/v1/jobs?limit=1000").json["jobs"] == before


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "no_such_page"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/20200101-000000", 404, "job_not_found"),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404, "no_such_page"),
        ("GET", "/v1/jobs/%2e%2e", 404, "job_not_found"),
        ("GET", "/v1/jobs/UPPER_case%00", 404, "job_not_found"),
        ("POST", "/v1/jobs/20200101-000000/cancel", 404, "job_not_found"),
        ("POST", "/v1/jobs/20200101-000000/retry", 404, "job_not_found"),
        ("GET", "/v1/jobs/20200101-000000/errors", 404, "job_not_found"),
        ("GET", "/v1/jobs/20200101-000000/report", 404, "job_not_found"),
        ("GET", "/v1/jobs/20200101-000000/events", 404, "job_not_found"),
        ("GET", "/v1/estimates/estimate-none", 404, "estimate_not_found"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_request"),
        ("GET", "/v1/jobs?state=tired", 422, "invalid_request"),
    ],
)
def test_what_is_not_there_is_a_problem_too(ask: Ask, method: str, path: str, status: int, code: str) -> None:
    """Else a client that reads problems breaks on the first page of HTML."""
    reply = ask(method, path)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert reply.headers["content-type"] == "application/problem+json"


def test_problems_of_the_request_name_the_field_to_programs(ask: Ask) -> None:
    """Else a form cannot show the message beside the field that it is about."""
    for change, field in (({"distances": [26]}, "distances"), ({"colour": 1}, "colour"), ({"budget": 0}, "budget")):
        (error,) = ask("POST", "/v1/jobs", GOOD | change).json["errors"]
        assert error["field"] == field
        assert error["message"]


def test_a_method_that_a_page_lacks_comes_with_those_that_it_has(ask: Ask) -> None:
    """Else a client that was told 405 cannot find out what would work (RFC 9110, section 15.5.6)."""
    reply = ask("PUT", "/v1/jobs")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, POST")
    assert ask("HEAD", "/healthz").status == ask("HEAD", "/readyz").status == 200
    assert ask("GET", "/v1/jobs/").status == 404


def test_a_dataset_that_holds_the_store_is_refused(ask: Ask, service: Service) -> None:
    """Else a manifest names encoded images as originals, and who deletes those deletes what other manifests keep."""
    store = service.folder / "store"
    for place in (store, store.parent, store / "objects"):
        for path, body in (("/v1/jobs", GOOD), ("/v1/estimates", GOOD)):
            reply = ask("POST", path, body | {"dataset": place.as_uri()})
            assert (reply.status, reply.json["code"]) == (422, "invalid_request"), place
            assert "would find encoded images" in reply.json["detail"]
    reply = ask("POST", "/v1/jobs", GOOD | {"evaluation": {"dataset": store.as_uri()}})
    assert reply.json["errors"][0]["field"] == "evaluation.dataset"


def test_the_subset_of_a_job_that_failed_does_not_run(ask: Ask, waiting: str) -> None:
    """Else a pipeline waits for ever for what nobody makes."""
    reply = ask("GET", f"/v1/jobs/{waiting}/subsets/own")
    assert (reply.status, reply.json["code"]) == (409, "job_not_ready")
    assert "dataset_not_found" in reply.json["detail"]
    for page in ("subsets", "subsets/" + 300 * "a", "trainings/" + 300 * "a"):
        assert ask("GET", f"/v1/jobs/{waiting}/{page}").status in (200, 404)


def test_a_body_that_is_not_json(ask: Ask) -> None:
    """Else a missing quote looks like a defect of the service."""
    for body in (b"{", b"\xff\xfe", b"[1]", b"null"):
        reply = ask("POST", "/v1/jobs", body)
        assert (reply.status, reply.json["code"]) in {(400, "malformed_json"), (422, "wrong_type")}, reply.json


def test_a_huge_body_is_refused_whether_its_length_is_declared_or_not(ask: Ask) -> None:
    """Else one caller takes the memory of the service from all the others."""
    huge = json.dumps(GOOD | {"dataset": "x" * 10_000_000}).encode()
    for body in (huge, iter([huge[:500_000]] * 20)):
        reply = ask("POST", "/v1/jobs", body)
        assert (reply.status, reply.json["code"]) == (413, "body_too_large")
        assert "1,000,000 bytes" in reply.json["detail"]


def test_the_refusal_of_another_kind_of_body_names_what_is_missing(ask: Ask) -> None:
    """Else curl's default, a form, gets an answer about dictionaries."""
    reply = ask("POST", "/v1/jobs", json.dumps(GOOD).encode(), Content_Type="application/x-www-form-urlencoded")
    assert (reply.status, reply.json["code"]) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in reply.json["detail"]


def test_a_manifest_before_it_exists_tells_the_stage(ask: Ask, waiting: str) -> None:
    """Else "not found" makes a retention system believe that nothing is kept."""
    for path in ("subsets/own/4", "report", "errors"):
        reply = ask("GET", f"/v1/jobs/{waiting}/{path}")
        assert (reply.status, reply.json["code"], reply.json["stage"]) == (409, "job_not_ready", "list")
    for path, body in (("subsets", {"budget": "1MB"}), ("trainings", {})):
        reply = ask("POST", f"/v1/jobs/{waiting}/{path}", body)
        assert (reply.status, reply.json["code"]) == (409, "job_not_ready")


def test_questions_that_a_job_cannot_answer(ask: Ask, job: str) -> None:
    """Else a wrong id gives somebody else's manifest, or none without a word."""
    for path in ("subsets/own/7", "subsets/nothing/4", "subsets/..%2f..%2fx/4", "subsets/nothing", "trainings/nothing"):
        reply = ask("GET", f"/v1/jobs/{job}/{path}")
        assert reply.status == 404, path
        assert reply.json["code"] in ("subset_not_found", "training_not_found", "no_such_page")
    small = ask("POST", f"/v1/jobs/{job}/subsets", {"budget": 10})
    assert (small.status, small.json["code"]) == (422, "budget_too_small")
    name = SubsetRequest(BytesBudget(10), Selection()).id
    for path in (f"subsets/{name}", f"subsets/{name}/4"):
        assert ask("GET", f"/v1/jobs/{job}/{path}").json["code"] == "budget_too_small"
    unknown = ask("POST", f"/v1/jobs/{job}/subsets", {"budget": {"as_distance": 6}})
    assert (unknown.status, unknown.json["code"]) == (422, "invalid_request")
    ended = ask("POST", f"/v1/jobs/{job}/cancel")
    assert (ended.status, ended.json["code"], ended.json["state"]) == (409, "job_ended", "succeeded")
    fine = ask("POST", f"/v1/jobs/{job}/retry")
    assert (fine.status, fine.json["code"]) == (409, "nothing_to_retry")


def test_forms_that_are_not_on_offer(ask: Ask, job: str) -> None:
    """Else a client that asked for Avro parses Parquet as such."""
    for path in (f"/v1/jobs/{job}/report", f"/v1/jobs/{job}/subsets/own/4"):
        reply = ask("GET", path, Accept="application/avro")
        assert (reply.status, reply.json["code"]) == (406, "not_acceptable")


def test_a_source_that_is_not_allowed(tmp_path: Path) -> None:
    """Else whoever may post a job may read the disk of the service, or what stands behind its firewall."""
    allowed = {"KEEPMORE_ALLOWED_SOURCES": f"s3://photos,https://,{tmp_path.as_uri()}/mine"}
    with embedded(tmp_path / "service", **allowed) as service:
        ask = asking(service)
        for uri in ("file:///etc", "s3://photos-private/x", f"{tmp_path.as_uri()}/mine/../yours", "http://x.org/a.tar"):
            reply = ask("POST", "/v1/jobs", {"dataset": uri, "distances": [4]})
            assert (reply.status, reply.json["code"]) in {(422, "source_not_allowed"), (422, "invalid_uri")}, uri
            assert ask("POST", "/v1/estimates", {"dataset": uri, "distances": [4]}).status == 422
        job = service.client.start({"dataset": "https://127.0.0.1:9/x.tar", "distances": [4]})["job"]
        with pytest.raises(KeepmoreError, match=r"127\.0\.0\.1"):
            service.client.wait(job, timeout_s=60)
        assert service.client._ask("GET", f"/v1/jobs/{job}").json()["error"]["code"] == "address_refused"


def test_a_webhook_goes_to_the_internet_only(tmp_path: Path) -> None:
    """Else whoever may post a job may have the service post to what stands behind its firewall."""
    with embedded(tmp_path, KEEPMORE_WEBHOOK_SECRET="whsec_" + 32 * "a") as service:
        ask = asking(service)
        for hook in ("http://127.0.0.1/x", "https://[::1]/x", "http://169.254.169.254/latest", "https://localhost/"):
            reply = ask("POST", "/v1/jobs", GOOD | {"webhook": hook})
            assert (reply.status, reply.json["code"]) == (422, "address_refused"), hook
        for hook in ("s3://bucket/x", "https://me:hunter2@example.org/", "example.org", "https://a..b/"):
            reply = ask("POST", "/v1/jobs", GOOD | {"webhook": hook})
            assert reply.status == 422
            assert "hunter2" not in reply.body.decode()
        assert ask("GET", "/v1/jobs").json["jobs"] == []


def _all(kind: type[KeepmoreError]) -> set[type[KeepmoreError]]:
    return {kind}.union(*map(_all, kind.__subclasses__()))


def test_every_error_has_a_status_and_stands_in_the_list() -> None:
    """Else a code appears that no caller has a branch for, and nobody can look it up."""
    docs = DOCS.read_text()
    for kind in _all(KeepmoreError):
        assert 400 <= status_of(kind("x")) < 600
        assert f"`{kind.code}`" in docs, kind
    others = ("unauthorized", "forbidden", "no_such_page", "method_not_allowed", "not_acceptable", "body_too_large")
    assert all(f"`{code}`" in docs for code in (*others, "malformed_json"))
    assert status_of(errors.BudgetTooSmall("x")) == 422
