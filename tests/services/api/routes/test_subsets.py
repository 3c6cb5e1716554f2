"""Subsets of a finished job for another budget."""

from __future__ import annotations

from pathlib import Path

from tests.services.api.conftest import Ask
from tests.services.api.routes.jobs import job_body as _body
from tests.services.api.routes.jobs import wait_for_end as _wait_for_end


def test_another_budget_is_answered_at_once(ask: Ask, job: str) -> None:
    """Else trying budgets is as slow as compressing."""
    body = {"budget": "150kB", "selection": {"order": "smallest", "balance": False}}
    reply = ask("POST", f"/v1/jobs/{job}/subsets", body)
    assert reply.status == 201
    assert reply.headers["location"] == reply.json["links"]["self"]
    assert all(row["bytes"] <= 150_000 for row in reply.json["distances"].values())
    assert ask("POST", f"/v1/jobs/{job}/subsets", body).json == reply.json
    assert ask("GET", reply.headers["location"]).json == reply.json
    subsets = ask("GET", f"/v1/jobs/{job}/subsets").json["subsets"]
    assert subsets[0]["subset"] == ask("GET", f"/v1/jobs/{job}").json["subset"]["subset"]
    assert reply.json["subset"] in [subset["subset"] for subset in subsets]
    own = ask("POST", f"/v1/jobs/{job}/subsets", {"budget": {"as_distance": 10}})
    assert own.json["subset"] == subsets[0]["subset"]


def test_another_budget_of_a_job_with_rules_is_fitted_again(ask: Ask, sample: Path) -> None:
    """Else a second budget is never answered, or with what fits the first; or a wrong one is found out by a worker."""
    job = ask("POST", "/v1/jobs", _body(sample, distances=[{"fit": 10}], budget="120kB")).json["job"]
    own = _wait_for_end(ask, job)["subset"]["distances"]["fit-10"]
    reply = ask("POST", f"/v1/jobs/{job}/subsets?wait=60", {"budget": "60kB"})
    assert reply.status == 201
    row = reply.json["distances"]["fit-10"]
    assert (row["images"], row["bytes"] <= 60_000) == (10, True)
    assert row["levels"]["distance"] > own["levels"]["distance"]
    refused = ask("POST", f"/v1/jobs/{job}/subsets", {"budget": None})
    assert (refused.status, refused.json["code"]) == (422, "invalid_request")
    small = ask("POST", f"/v1/jobs/{job}/subsets?wait=60", {"budget": "1kB"})
    assert (small.status, small.json["code"]) == (422, "budget_too_small")
