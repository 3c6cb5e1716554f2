"""Settings of the services."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from keepmore.errors import InvalidRequest
from keepmore_services import settings


def test_a_log_level_is_read_in_any_case_and_a_wrong_one_names_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a service does not start, and suggests the very word that it refuses."""
    monkeypatch.setenv("KEEPMORE_LOG_LEVEL", "debug")
    assert settings.load().log_level == "DEBUG"
    monkeypatch.setenv("KEEPMORE_LOG_LEVEL", "loud")
    with pytest.raises(InvalidRequest, match="KEEPMORE_LOG_LEVEL: input should be 'DEBUG'"):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("KEEPMORE_PROCESSES", "two", "write a whole number, such as 1000000"),
        ("KEEPMORE_MAX_BODY_BYTES", "1MB", "write a whole number, such as 1000000"),
        ("KEEPMORE_RECONCILE_S", "often", "write a number, such as 10"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "write it as http://host:port or https://host:port"),
    ],
)
def test_a_wrong_value_comes_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    """Else whoever sets up a service reads how the program is written, and not what to write."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidRequest, match=f"{name}: {remedy}"):
        settings.load()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:6379",
        "http://127.0.0.1:6379/0",
        "redis://127.0.0.1:99999/0",
        "redis://127.0.0.1:6379/jobs",
    ],
)
def test_a_wrong_address_of_redis_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Else a service ends with a traceback, or its API starts and its workers do not."""
    monkeypatch.setenv("KEEPMORE_STORE", "s3://bucket")
    monkeypatch.setenv("KEEPMORE_REDIS_URL", url)
    with pytest.raises(InvalidRequest, match="KEEPMORE_REDIS_URL: write it as redis:// or rediss://host:port/number"):
        settings.load()


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"KEEPMORE_S3_SECRET_KEY": "secret-key"}, "KEEPMORE_REDIS_URL: a worker, a trainer and beat need it"),
        ({"KEEPMORE_REDIS_URL": "redis://127.0.0.1:1/0", "KEEPMORE_S3_SECRET_KEY": ""}, "give both the access key"),
        (
            {
                "KEEPMORE_REDIS_URL": "redis://127.0.0.1:1/0",
                "KEEPMORE_S3_SECRET_KEY": "s",
                "KEEPMORE_STORE": "ftp://x/y",
            },
            "the store 'ftp://x/y' is none that can be used",
        ),
    ],
)
def test_a_worker_with_wrong_settings_does_not_start(environ: dict[str, str], why: str) -> None:
    """Else it takes steps that it cannot do from those that can, and looks healthy."""
    s3 = {
        "KEEPMORE_STORE": "s3://bucket",
        "KEEPMORE_S3_ENDPOINT": "http://127.0.0.1:1",
        "KEEPMORE_S3_ACCESS_KEY": "key",
    }
    process = subprocess.run(
        [sys.executable, "-c", "import keepmore_worker.app"],
        env=os.environ | s3 | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert why in process.stderr.splitlines()[-1]
