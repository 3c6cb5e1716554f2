"""Trainings beside a job's own: what may be asked for, and what comes back. Training itself is tested elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepmore.spec.training import Training, Tuning
from tests.conftest import installed_command
from tests.service import Service, embedded
from tests.services.api.conftest import Ask, asking

FINETUNE = {
    "model": "mobilenet_v3_small", "weights": "none", "method": "finetune", "steps": 2, "seeds": 1,
    "test_distances": [10, 0], "tuning": {"batch": 8, "image_size": 32, "learning_rate": 1},
}  # fmt: skip


def _wait_for_end(ask: Ask, location: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    training: dict[str, Any] = ask("GET", location).json
    while training["state"] == "running":
        assert time.monotonic() < deadline, training
        time.sleep(0.2)
        training = ask("GET", location).json
    return training


def test_a_fine_tuning_comes_back_with_its_comparison(ask: Ask, job: str) -> None:
    """Else a caller of the API can only probe, and takes noise for a better distance."""
    reply = ask("POST", f"/v1/jobs/{job}/trainings", FINETUNE)
    assert reply.status == 202, reply.json
    assert reply.json["comparison"] is None
    request = Training.from_json(reply.json["request"])
    assert request.tuning == Tuning(batch=8, image_size=32, learning_rate=1)
    assert list(request.test_distances) == [10.0], "the original is always tested on"
    training = _wait_for_end(ask, reply.headers["location"])
    assert training["state"] == "succeeded", training["error"]
    pairs = [
        (one["arm"], one["against"]) for one in training["comparison"]["comparisons"] if one["family"] == "reference"
    ]
    assert pairs == [("4", "0"), ("10", "0")]
    for result in training["distances"].values():
        assert set(result["tests"]) == {"10-e3"}
        (artifacts,) = result["kept"]
        assert set(artifacts) == {"seed", "weights", "events"}


def test_the_command_passes_a_fine_tuning_on(service: Service, job: str, tmp_path: Path) -> None:
    """Else `keepmore train --server` trains something else than was asked for, or nothing."""
    done = installed_command(tmp_path)(
        "train", job, "--server", service.url, "--train", "mobilenet_v3_small", "--weights", "none", "--json",
        "--method", "finetune", "--steps", "1", "--seeds", "1", "--tune", "batch=4", "--tune", "image_size=32",
        "--test-distances", "10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    training = json.loads(done.stdout)
    assert training["request"]["tuning"]["image_size"] == 32
    assert training["request"]["test_distances"] == [10]
    assert len(training["comparison"]["comparisons"]) > 0


def test_a_field_that_is_left_out_changes_no_id(ask: Ask, job: str) -> None:
    """Else a probe that was asked for before an upgrade is trained again after it."""
    body = {"model": "no_such_model", "seeds": 1, "steps": 5}
    plain = ask("POST", f"/v1/jobs/{job}/trainings", body).json
    explicit = ask(
        "POST", f"/v1/jobs/{job}/trainings", body | {"method": "probe", "test_distances": [], "tuning": None}
    ).json
    assert plain["training"] == explicit["training"]


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Service]:
    """A service that may read the sample and one bucket."""
    folder = tmp_path_factory.mktemp("bounded")
    with embedded(folder, KEEPMORE_ALLOWED_SOURCES=f"{sample.as_uri()},s3://weights/vit") as service:
        yield service


def test_weights_are_bound_by_the_allowed_sources(bounded: Service, sample: Path) -> None:
    """Else whoever may post a job reads any bucket that the service can read, and learns what lies where."""
    ask = asking(bounded)
    body = {"dataset": (sample / "train").as_uri(), "distances": [4], "evaluation": {"holdout": 0.2}}
    for place in ("s3://private/w.pt", "s3://weights/vit-private/w.safetensors"):
        reply = ask("POST", "/v1/jobs", body | {"training": {"weights": place}})
        assert (reply.status, reply.json["code"]) == (422, "source_not_allowed"), reply.json
        assert reply.json["errors"][0]["field"] == "training.weights"
        assert "KEEPMORE_ALLOWED_SOURCES" in reply.json["detail"]
    assert ask("GET", "/v1/jobs").json["jobs"] == []
    job = ask("POST", "/v1/jobs", body).json["job"]
    bounded.client.wait(job, timeout_s=120)
    path = f"/v1/jobs/{job}/trainings"
    refused = ask("POST", path, {"weights": "s3://private/w.pt"})
    assert (refused.status, refused.json["code"]) == (422, "source_not_allowed")
    advice = {"budgets": [1000], "training": {"weights": "s3://private/w.pt"}}
    refused = ask("POST", f"/v1/jobs/{job}/advice", advice)
    assert (refused.status, refused.json["code"]) == (422, "source_not_allowed")
    assert refused.json["errors"][0]["field"] == "training.weights"
    accepted = ask("POST", path, {"weights": "s3://weights/vit/w.safetensors"})
    assert (accepted.status, accepted.json["request"]["weights"]) == (202, "s3://weights/vit/w.safetensors")
    failed = _wait_for_end(ask, accepted.headers["location"])
    assert failed["state"] == "failed"
    assert "weights/vit" in failed["error"]["message"] or "bucket" in failed["error"]["message"]
