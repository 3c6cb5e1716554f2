"""Rules in the place of distances: where they are taken, and where not."""

from __future__ import annotations

import json
from pathlib import Path

from tests.services.api.conftest import Ask
from tests.services.api.routes.jobs import job_body as _body
from tests.services.api.routes.jobs import wait_for_end as _wait_for_end


def test_rules_are_requested_and_served_like_distances(ask: Ask, sample: Path) -> None:
    """Else what the command can do a pipeline cannot."""
    distances = [4, {"fit": 10}, {"spread": [0.5, 15]}]
    body = _body(sample, distances=distances, budget="120kB")
    job = ask("POST", "/v1/jobs", body).json["job"]
    view = _wait_for_end(ask, job)
    assert view["state"] == "succeeded"
    assert view["request"]["distances"] == [4, {"spread": [0.5, 15]}, {"fit": 10}]
    assert list(view["links"]["manifests"]) == ["4", "spread-0.5-15", "fit-10"]
    for variant, path in view["links"]["manifests"].items():
        lines = ask("GET", path, accept="application/x-ndjson").body.splitlines()
        rows = [json.loads(line) for line in lines]
        assert sum(row["bytes"] for row in rows) <= 120_000
        assert len(rows) == view["subset"]["distances"][variant]["images"]
    assert view["subset"]["distances"]["fit-10"]["images"] == 10
    assert ask("GET", f"/v1/jobs/{job}/subsets/own/fit-11").status == 404
    report = ask("GET", f"/v1/jobs/{job}/report").json
    assert [row["distance"] for row in report["distances"]] == ["4", "spread-0.5-15", "fit-10"]
    alone = ask("POST", "/v1/jobs", _body(sample, distances={"spread": [0.5, 15]}))
    assert alone.json["request"]["distances"] == [{"spread": [0.5, 15]}]


def test_an_estimate_takes_numbers_alone(ask: Ask, sample: Path) -> None:
    """Else a sample's answer is taken for one about all images."""
    reply = ask("POST", "/v1/estimates", _body(sample, distances=[4, {"spread": [0.5, 15]}]))
    assert (reply.status, reply.json["code"]) == (422, "invalid_request")
    assert "give only fixed distances" in reply.json["detail"]
