"""What stands ready before the service starts."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest
from minio import Minio

from keepmore.errors import InvalidRequest, StoreUnavailable
from keepmore_services import bootstrap
from keepmore_services.settings import Settings, load
from tests.servers import S3Server, free_ports


@pytest.fixture
def settings(s3: S3Server, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A service whose bucket is not there yet."""
    monkeypatch.setenv("KEEPMORE_S3_ENDPOINT", s3.url)
    monkeypatch.setenv("KEEPMORE_S3_ACCESS_KEY", s3.access_key)
    monkeypatch.setenv("KEEPMORE_S3_SECRET_KEY", s3.secret_key)
    return load(store=f"s3://new-{secrets.token_hex(4)}/store", redis_url=redis_url)


def test_the_bucket_is_made_once(settings: Settings, s3: S3Server) -> None:
    """Else the first start needs a tool that nobody has, or the second one fails."""
    bootstrap.prepare(settings)
    client = Minio(s3.url.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)
    assert client.bucket_exists(settings.store.split("/")[2])
    settings.config.store().put("jobs/a.json", b"{}")
    bootstrap.prepare(settings)
    assert settings.config.store().get("jobs/a.json") == b"{}"


@pytest.mark.parametrize("secret", ["minioadmin", "MinioAdmin", "change-me", "short"])
def test_a_secret_that_everybody_knows_is_refused(
    secret: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a template's secret guards somebody's originals."""
    monkeypatch.setenv("KEEPMORE_S3_SECRET_KEY", secret)
    with pytest.raises(InvalidRequest, match=r"KEEPMORE_S3_SECRET_KEY for http.*everybody knows.*openssl"):
        bootstrap.prepare(load(store=settings.store, redis_url=settings.redis))
    monkeypatch.setenv("KEEPMORE_S3_SECRET_KEY", "good-enough-for-a-test")
    for password in (secret, ""):
        with pytest.raises(InvalidRequest, match="the password in KEEPMORE_REDIS_URL"):
            bootstrap.check_secrets(load(store=settings.store, redis_url=f"redis://:{password}@redis:6379/0"))


@pytest.mark.parametrize("role", ["", "1"])
def test_a_service_without_keys_of_its_own_starts(
    role: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a bucket that is reached by the machine's role, or by everybody, cannot be used with Compose."""
    for key in ("ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.delenv(f"KEEPMORE_S3_{key}")
    if role:
        monkeypatch.setenv("KEEPMORE_S3_ROLE", role)
    bootstrap.check_secrets(load(store=settings.store, redis_url=settings.redis))


def test_what_does_not_come_up_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a deployment that cannot start says nothing, or waits for ever."""
    monkeypatch.setenv("KEEPMORE_S3_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(StoreUnavailable, match="the store's bucket new-"):
        bootstrap.prepare(load(store=settings.store, redis_url=settings.redis), wait_s=0)
    environment = {**os.environ, "KEEPMORE_STORE": settings.store, "KEEPMORE_S3_SECRET_KEY": "minioadmin"}
    done = subprocess.run(
        [sys.executable, "-m", "keepmore_services.bootstrap"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "everybody knows" in done.stderr
    assert "Traceback" not in done.stderr
