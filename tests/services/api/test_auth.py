"""Who may do what: API keys, scopes, and when the service refuses to start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keepmore.errors import InvalidRequest
from keepmore_api.auth import Gate, new_key, parse
from keepmore_api.problems import Refused
from tests.service import Service, embedded
from tests.services.api.conftest import Ask, asking
from tests.tools import BIN


def test_keys_and_scopes(tmp_path: Path) -> None:
    """Else anybody may start jobs, or a dashboard's key may cancel them."""
    (writer, one), (reader, two) = new_key("pipeline", "read+write"), new_key("dashboard", "read")
    with embedded(tmp_path, KEEPMORE_API_KEYS=f"{one},{two}") as service:
        ask = asking(service)
        body = {"dataset": "file:///nowhere", "distances": [4]}
        for headers, status, code in (
            ({}, 401, "unauthorized"),
            ({"Authorization": "Bearer km_wrong"}, 401, "unauthorized"),
            ({"Authorization": f"Basic {writer}"}, 401, "unauthorized"),
            ({"Authorization": f"Bearer {reader}"}, 403, "forbidden"),
        ):
            reply = ask("POST", "/v1/jobs", body, **headers)
            assert (reply.status, reply.json["code"]) == (status, code)
            assert reply.headers["content-type"] == "application/problem+json"
            assert ("www-authenticate" in reply.headers) == (status == 401)
        assert ask("GET", "/v1/jobs").status == 401
        assert ask("GET", "/v1/jobs", Authorization=f"Bearer {reader}").json == {"jobs": [], "next": None}
        assert ask("POST", "/v1/jobs", body, Authorization=f"Bearer {writer}").status == 202
        for path in ("/healthz", "/readyz", "/metrics"):
            assert ask("GET", path).status == 200
        everything = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
        assert writer not in everything
        assert reader not in everything


def test_every_call_asks_for_a_key(tmp_path: Path) -> None:
    """Else a call that was added later stands open."""
    with embedded(tmp_path, KEEPMORE_API_KEYS=new_key("one", "read")[1]) as service:
        ask = asking(service)
        calls = [
            (path, method) for path, methods in ask("GET", "/openapi.json").json["paths"].items() for method in methods
        ]
        assert len(calls) > 15
        for path, method in calls:
            if path.startswith("/v1/"):
                for name in ("job_id", "subset", "distance", "training", "estimate"):
                    path = path.replace("{" + name + "}", "x1")
                assert ask(method.upper(), path, {} if method == "post" else None).status in (401, 422), path
                if method == "get":
                    assert ask("GET", path).status == 401, path


@pytest.mark.parametrize("words", [["--host", "0.0.0.0"], ["--host", "::"], ["--host", "example.org"]])
def test_an_open_service_stays_on_loopback(words: list[str], service: Service) -> None:
    """Else a service started for a try is open to the whole network."""
    command = [str(BIN / "keepmore"), "serve", "--port", "0", *words]
    done = subprocess.run(command, env=service.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "KEEPMORE_API_KEYS" in done.stderr
    assert "--insecure" in done.stderr


def test_a_distributed_service_needs_keys_even_on_loopback(service: Service) -> None:
    """Else every process of a shared machine may start jobs."""
    environment = {**service.environment, "KEEPMORE_REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [str(BIN / "keepmore"), "serve", "--port", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "needs API keys" in done.stderr


def test_an_open_service_answers_to_this_machine_only(ask: Ask) -> None:
    """Else a page in a browser reaches it by a name that resolves to 127.0.0.1."""
    refused = ask("GET", "/healthz", Host="evil.example.org")
    assert (refused.status, refused.json["code"]) == (400, "unknown_host")
    assert ask("GET", "/healthz", Host="localhost:1234").status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEEPMORE_PROCESSES", "many"),
        ("KEEPMORE_REDIS_URL", "hunter2"),
        ("KEEPMORE_WEBHOOK_SECRET", "hunter2"),
        ("KEEPMORE_API_KEYS", "hunter2"),
        ("KEEPMORE_S3_SOURCES", "hunter2"),
        ("KEEPMORE_STORE", "s3://hunter2:x@bucket"),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(service: Service, name: str, value: str) -> None:
    """Else the service starts, and fails at the first job; or it prints a secret."""
    command = [str(BIN / "keepmore"), "serve", "--port", "0"]
    environment = {**service.environment, name: value}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert name in done.stderr or "credentials" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text", ["hunter2", "hunter2:read", "hunter2:admin:" + 64 * "a", "x:read:hunter2", "hunter 2:read:" + 64 * "a"]
)
def test_a_key_that_is_none_is_refused_without_being_repeated(text: str) -> None:
    """Else a mistyped setting opens the service, or puts a secret into the log."""
    with pytest.raises(InvalidRequest, match="KEEPMORE_API_KEYS: entry 1 is not a key") as refused:
        parse(text)
    assert "hunter" not in refused.value.message


def test_a_made_key_is_let_in() -> None:
    """Else `keepmore key` makes keys that do not work."""
    key, entry = new_key("one", "read+write")
    assert key not in entry
    gate = Gate(parse(entry))
    assert gate.admit(f"Bearer {key}", "write").name == "one"
    with pytest.raises(Refused):
        gate.admit(f"Bearer {key}x", "read")
    done = subprocess.run([str(BIN / "keepmore"), "key", "ci"], capture_output=True, text=True, timeout=60, check=True)
    key, entry = (line.split()[-1] for line in done.stdout.splitlines())
    assert Gate(parse(entry)).admit(f"Bearer {key}", "write").name == "ci"
