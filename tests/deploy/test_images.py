"""What the images and Compose are made of, checked without a daemon. `make e2e` builds and runs them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from keepmore_api import auth
from keepmore_services.settings import Settings
from tests.tools import COMPOSE, HADOLINT, ROOT

DOCKERFILES = sorted(ROOT.glob("services/*/Dockerfile"))
OURS = ("api", "worker", "trainer", "beat", "setup")
SECRETS = {
    "KEEPMORE_S3_SECRET_KEY": "only for tests",
    "KEEPMORE_REDIS_PASSWORD": "only for tests",
    "KEEPMORE_API_KEYS": f"tests:read:{'0' * 64}",
}


def _compose(
    *words: str, variables: Mapping[str, str], env_file: Path = ROOT / ".env.example"
) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPMORE_", "COMPOSE_"))}
    command = [str(COMPOSE), "--env-file", str(env_file), *words]
    return subprocess.run(command, env={**plain, **variables}, cwd=ROOT, capture_output=True, text=True, check=False)


def _config(*files: str, **variables: str) -> dict[str, Any]:
    options = [word for file in files for word in ("--file", file)]
    done = _compose(*options, "config", "--format", "json", variables={**SECRETS, **variables})
    assert done.returncode == 0, done.stderr
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def test_dockerfiles_are_clean() -> None:
    """Else an image breaks with the next release of its base, or carries what nobody meant to ship."""
    assert [file.parent.name for file in DOCKERFILES] == ["api", "trainer", "worker"]
    done = subprocess.run([HADOLINT, *DOCKERFILES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.parent.name)
def test_an_image_copies_only_files_that_its_context_holds(file: Path) -> None:
    """Else a build fails on everybody's machine but that of who has the file."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+)$", file.read_text(), re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


def test_scripts_are_clean() -> None:
    """Else the first command of a new user fails on another shell."""
    for script in ("deploy/new-env.sh", "deploy/image/install.sh"):
        done = subprocess.run(["sh", "-n", ROOT / script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_new_env_has_secrets_of_its_own_and_a_key_that_fits(tmp_path: Path) -> None:
    """Else everybody's service has the template's secrets, or refuses the key that was shown."""
    (tmp_path / "deploy").mkdir()
    for name in (".env.example", "deploy/new-env.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    outputs = [subprocess.check_output(["sh", tmp_path / "deploy" / "new-env.sh"], text=True)]
    first = (tmp_path / ".env").read_text()
    again = subprocess.run(["sh", tmp_path / "deploy" / "new-env.sh"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "move it away" in again.stderr
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    (tmp_path / ".env").unlink()
    outputs.append(subprocess.check_output(["sh", tmp_path / "deploy" / "new-env.sh"], text=True))
    keys = [text.split()[-1] for text in outputs]
    assert keys[0] != keys[1]
    variables = dict(line.split("=", 1) for line in first.splitlines() if line and not line.startswith("#"))
    (entry,) = auth.parse(variables["KEEPMORE_API_KEYS"])
    assert entry.sha256 == hashlib.sha256(keys[0].encode()).hexdigest()
    assert len(variables["KEEPMORE_S3_SECRET_KEY"]) == len(variables["KEEPMORE_REDIS_PASSWORD"]) == 48
    assert _compose("config", "--quiet", variables={}, env_file=tmp_path / ".env").returncode == 0


@pytest.mark.parametrize("secret", ["KEEPMORE_S3_SECRET_KEY", "KEEPMORE_API_KEYS"])
def test_compose_refuses_to_start_without_a_secret(secret: str) -> None:
    """Else the template's emptiness guards somebody's originals."""
    done = _compose("config", "--quiet", variables={**SECRETS, secret: ""})
    assert done.returncode != 0
    assert f"{secret} is missing a value" in done.stderr
    assert "deploy/new-env.sh" in done.stderr


def test_only_the_api_is_published_and_on_loopback() -> None:
    """Else Redis and the store are open to whoever finds their ports."""
    services = _config()["services"]
    assert set(services) == {*OURS, "redis", "store"}
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert {name: [port["host_ip"] for port in ports] for name, ports in published.items()} == {"api": ["127.0.0.1"]}
    assert _config(KEEPMORE_BIND="0.0.0.0")["services"]["api"]["ports"][0]["host_ip"] == "0.0.0.0"
    networks = _config()["networks"]
    assert networks["inside"]["internal"]
    assert all(set(services[name]["networks"]) == {"inside"} for name in ("redis", "store"))


def test_every_container_is_confined_and_bounded() -> None:
    """Else one container takes the machine, or what breaks into it does."""
    for name, service in _config()["services"].items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not re.search(r"(:latest|^[^:]*)$", service["image"]), name
        if name in OURS:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert not service.get("privileged"), name


def test_the_service_runs_on_servers_of_its_own_by_environment_alone() -> None:
    """Else whoever has an S3 and a Redis has to rewrite the file."""
    variables = {
        "COMPOSE_PROFILES": "",
        "KEEPMORE_REDIS_URL": "rediss://:secret-of-theirs@redis.example.com:6379/0",
        "KEEPMORE_S3_ENDPOINT": "https://s3.example.com",
        "KEEPMORE_STORE": "s3://theirs/prefix",
    }
    services = _config(**variables)["services"]
    assert set(services) == set(OURS)
    for name in OURS:
        environment = services[name]["environment"]
        assert {key: environment[key] for key in variables if key != "COMPOSE_PROFILES"} == {
            key: value for key, value in variables.items() if key != "COMPOSE_PROFILES"
        }


def test_every_variable_that_compose_hands_on_is_one_that_is_read() -> None:
    """Else a misspelled setting is silently the default."""
    settings = {f"KEEPMORE_{name.upper()}" for name in Settings.model_fields}
    documented = set(re.findall(r"`((?:KEEPMORE|OTEL)_[A-Z0-9_]+)`", (ROOT / "docs/service.md").read_text()))
    for name in OURS:
        variables = set(_config()["services"][name]["environment"])
        assert variables <= documented
        assert {key for key in variables if key in settings or key.startswith("KEEPMORE_S3_")} >= {
            "KEEPMORE_STORE",
            "KEEPMORE_REDIS_URL",
            "KEEPMORE_S3_ENDPOINT",
        }
    names = set(re.findall(r"\$\{((?:KEEPMORE|OTEL|COMPOSE)_[A-Z0-9_]+)", (ROOT / "docker-compose.yml").read_text()))
    template = set(re.findall(r"^#?((?:KEEPMORE|OTEL|COMPOSE)_[A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.M))
    assert template <= names | {"COMPOSE_PROFILES"}


def test_the_trainer_gets_a_gpu_and_wheels_for_it_by_one_more_file() -> None:
    """Else a machine with a GPU trains on its processors."""
    trainer = _config("docker-compose.yml", "docker-compose.gpu.yml")["services"]["trainer"]
    assert "/whl/cu" in trainer["build"]["args"]["TORCH_INDEX"]
    assert trainer["image"].endswith("-cuda")
    (device,) = trainer["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert _config()["services"]["trainer"]["build"]["args"]["TORCH_INDEX"].endswith("/whl/cpu")


def test_versions_agree() -> None:
    """Else a new release is built under the name of the old one."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version
    for name in OURS:
        assert _config()["services"][name]["image"].endswith(f":{version[1]}")
    for file in DOCKERFILES:
        assert f"ARG VERSION={version[1]}\n" in file.read_text()
    assert yaml.safe_load((ROOT / "helm/keepmore/Chart.yaml").read_text())["appVersion"] == version[1]
