"""The API against its own description, by requests that schemathesis makes up."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from keepmore.answers import ImageCounts, JobAnswer, TrainingAnswer
from keepmore.spec.variants import RULES
from keepmore_api.auth import new_key
from keepmore_api.schemas import answers, requests
from tests.service import embedded
from tests.services.api.conftest import Ask
from tests.tools import BIN

# What only a person can know from a schema: whether a dataset exists, whether a budget holds an image.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("with_job", [False, True], ids=["ids-made-up", "ids-of-a-job"])
def test_schemathesis_finds_nothing(with_job: bool, examples: int, tmp_path: Path, sample: Path) -> None:
    """Else a client that was made from the description breaks, or some input is a 500."""
    key, entry = new_key("schemathesis", "read+write")
    with embedded(tmp_path / "service", KEEPMORE_API_KEYS=entry, KEEPMORE_ALLOWED_SOURCES=sample.as_uri()) as service:
        service.api_key = key
        lines = []
        if with_job:
            job = service.client.start({"dataset": (sample / "test").as_uri(), "distances": [4]})["job"]
            service.client.wait(job, timeout_s=60)
            lines = ["[parameters]", f'"path.job_id" = "{job}"', '"path.subset" = "own"', '"path.distance" = "4"']
        (tmp_path / "schemathesis.toml").write_text("\n".join(lines))
        command = [str(BIN / "schemathesis"), "run", f"{service.url}/openapi.json", "--no-color", "--seed", "1"]
        command += ["--header", f"Authorization: Bearer {key}", "--exclude-checks", LEFT_OUT]
        command += ["--max-examples", str(examples), "--phases", "examples,coverage,fuzzing"]
        command += ["--request-timeout", "60", "--exclude-path-regex", "/events$"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_call_is_described_with_its_problems(ask: Ask) -> None:
    """Else a caller finds out about a refusal when it happens."""
    paths = ask("GET", "/openapi.json").json["paths"]
    posts = [item["post"] for path, item in paths.items() if "post" in item]
    assert len(posts) == 7
    for path, item in paths.items():
        for method, call in item.items():
            assert call["summary"], (method, path)
            assert "422" in call["responses"], (method, path)
            assert "application/problem+json" in call["responses"]["404"]["content"], (method, path)


def test_every_body_has_an_example_that_is_accepted(ask: Ask) -> None:
    """Else whoever copies from the description is refused."""
    spec = ask("GET", "/openapi.json").json
    bodies = [call["post"]["requestBody"] for call in spec["paths"].values() if "requestBody" in call.get("post", {})]
    names = [body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2] for body in bodies]
    assert sorted(names) == ["AdviceIn", "EstimateIn", "JobIn", "SubsetIn", "TrainingAskedIn"]
    for name in [*names, "Problem"]:
        (example,) = spec["components"]["schemas"][name]["examples"]
        model = getattr(requests, name, None) or getattr(answers, name)
        model.model_validate_json(json.dumps(example))


def test_every_kind_of_rule_is_described(ask: Ask) -> None:
    """Else a client that was made from the description cannot ask for a kind that somebody adds."""
    schemas = ask("GET", "/openapi.json").json["components"]["schemas"]
    (distances,) = (schemas["JobIn"]["properties"]["distances"],)
    names = {form["$ref"].rpartition("/")[2] for form in distances["anyOf"] if "$ref" in form}
    assert {key for name in names for key in schemas[name]["properties"]} == {kind.KEY for kind in RULES}


@pytest.mark.parametrize(
    ("typed", "model"),
    [(JobAnswer, answers.JobOut), (TrainingAnswer, answers.TrainingOut), (ImageCounts, answers.Images)],
)
def test_answers_are_typed_alike_in_the_client_and_the_description(typed: type, model: type[BaseModel]) -> None:
    """Else a field that somebody adds is in one of them, and users of the other do not hear of it."""
    only_printed = {"subsets"}  # by the command; the service has a route for them
    assert set(typed.__annotations__) - only_printed == set(model.model_fields)


def test_a_job_answers_with_what_is_described(ask: Ask, job: str) -> None:
    """Else a field of the answer is in no description."""
    assert set(ask("GET", f"/v1/jobs/{job}").json) <= set(answers.JobOut.model_fields)
