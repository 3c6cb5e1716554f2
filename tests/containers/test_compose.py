"""The service as Compose starts it, in containers: built, used from outside, disturbed, and taken down again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SHARED_DATA, digests, installed_command
from tests.containers.docker import GATEWAY, Docker, docker, run
from tests.servers import free_ports
from tests.tools import BIN, COMPOSE, ROOT

PHOTOGRAPHS = SHARED_DATA / "clothing10" / "test"
OPTIONS = ["--distances", "0,2,4,6,8,10", "--budget", "as:10*0.5", "--effort", "5"]
TRAINING = ["--holdout", "0.2", "--train", "mobilenet_v2", "--weights", "none", "--steps", "50", "--seeds", "1"]
MEGABYTE = 1_000_000
MOST_BYTES = {"api": 200 * MEGABYTE, "worker": 350 * MEGABYTE}
OUTAGE_S = 20
SERVICES = {"api": 1, "worker": 2, "trainer": 1, "beat": 1, "redis": 1, "store": 1}


def _say(what: str) -> None:
    """What `make e2e` shows while it runs."""
    sys.__stderr__ and print(f"  {time.strftime('%H:%M:%S')} {what}", file=sys.__stderr__, flush=True)


@dataclass(frozen=True, slots=True)
class Deployment:
    """The service in containers, brought up by Compose. `port` is where its API listens."""

    docker: Docker
    folder: Path
    project: str
    port: int
    api_key: str
    images: Path
    overrides: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *words: str, timeout_s: float = 900) -> str:
        command: list[str | Path] = [
            COMPOSE,
            "--project-name",
            self.project,
            "--env-file",
            self.folder / "env",
        ]
        return run([*command, *words], {**self.docker.environment, **self.overrides}, timeout_s)

    def command(self, *words: str) -> list[str]:
        """A command line of `keepmore` that asks this service, from outside."""
        return [*self.docker.inside, str(BIN / "keepmore"), *words, "--server", self.url]

    def ask(self, *words: str, timeout_s: float = 900) -> Any:
        environment = {"KEEPMORE_API_KEY": self.api_key, "TMPDIR": str(self.folder)}
        return json.loads(run([*self.command(*words), "--json"], environment, timeout_s))

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def logs(self, container: str) -> str:
        done = subprocess.run(
            ["docker", "logs", container],
            env={**os.environ, **self.docker.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        return done.stdout

    def inspect(self, container: str) -> Any:
        return json.loads(self.docker("inspect", container))[0]

    def until(self, what: str, true: Callable[[], bool], within_s: float) -> float:
        started_at = time.monotonic()
        while not true():
            assert time.monotonic() - started_at < within_s, (
                f"{what}: not within {within_s} s\n{self.compose('ps', '--all')}"
            )
            time.sleep(0.5)
        took = time.monotonic() - started_at
        _say(f"{what}: after {took:.0f} s")
        return took


@pytest.fixture(scope="module")
def engine() -> Iterator[Docker]:
    folder = Path(tempfile.mkdtemp(prefix="keepmore-e2e-"))
    _say("a Docker daemon, the base image, wheels")
    try:
        with docker(folder) as engine:
            yield engine
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs where there are some, else drawn ones."""
    if PHOTOGRAPHS.exists():
        return PHOTOGRAPHS
    folder = tmp_path_factory.mktemp("drawn") / "images"
    run([BIN / "keepmore", "sample", folder, "--train-images", "60", "--test-images", "1"])
    return folder / "train"


@pytest.fixture(scope="module")
def deployment(engine: Docker, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    checkout = folder / "checkout"
    (checkout / "deploy").mkdir(parents=True)
    for name in (".env.example", "deploy/new-env.sh"):
        shutil.copy(ROOT / name, checkout / name)
    key = run(["sh", checkout / "deploy" / "new-env.sh"]).split()[-1]
    port = free_ports(1)[0]
    own = {"KEEPMORE_PORT": str(port), "KEEPMORE_RECONCILE_S": "2", **engine.variables}
    lines = [*(checkout / ".env").read_text().splitlines(), *(f"{name}={value}" for name, value in own.items())]
    (folder / "env").write_text("\n".join(lines) + "\n")
    project = f"keepmore-{os.getpid()}"
    deployment = Deployment(engine, folder, project, port, key, images)
    try:
        for service in ("api", "worker", "trainer"):
            started_at = time.monotonic()
            deployment.compose("build", "--quiet", service, timeout_s=1200)
            _say(f"image of {service}: built in {time.monotonic() - started_at:.0f} s")
        started_at = time.monotonic()
        try:
            deployment.compose("up", "--detach", "--wait", "--scale", "worker=2")
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{deployment.compose('logs', '--no-color')}") from error
        _say(f"everything is up and healthy after {time.monotonic() - started_at:.0f} s")
        yield deployment
    finally:
        (folder / "log").write_text(_quietly(deployment, "logs", "--no-color"))
        _quietly(deployment, "down", "--volumes", "--timeout", "20")
        _say("taken down")


def _quietly(deployment: Deployment, *words: str) -> str:
    with suppress(RuntimeError, subprocess.TimeoutExpired):
        return deployment.compose(*words)
    return ""


def test_images_are_small_and_hold_what_runs_alone(deployment: Deployment) -> None:
    """Else every new machine waits for gigabytes, and an intruder finds a compiler."""
    base = deployment.docker.variables.get("KEEPMORE_BASE_IMAGE", "python:3.11-slim-bookworm")
    base_bytes = deployment.inspect(base)["Size"]
    for service in ("api", "worker", "trainer"):
        image = deployment.inspect(f"keepmore/{service}:0.2.0")
        size = image["Size"] - base_bytes
        _say(f"image of {service}: {size / MEGABYTE:.0f} MB on top of the base")
        assert size < MOST_BYTES.get(service, 10_000 * MEGABYTE)
        assert image["Config"]["User"] == "10001:10001"
        assert image["Config"]["Healthcheck"]
        assert image["Config"]["Labels"]["org.opencontainers.image.version"] == "0.2.0"
        find = "find /opt /tmp /root /src -name pip -o -name gcc -o -name '*.whl' -o -path '*/.cache/*' 2>/dev/null"
        leftovers = deployment.docker("run", "--rm", "--user", "0", image["Id"], "sh", "-c", f"{find}; true")
        assert not leftovers.strip()


def test_containers_run_confined(deployment: Deployment) -> None:
    """Else a hostile image that breaks a decoder owns the machine."""
    for service, count in SERVICES.items():
        assert len(deployment.containers(service)) == count
        for container in deployment.containers(service):
            details = deployment.inspect(container)
            host = details["HostConfig"]
            assert details["State"]["Health"]["Status"] == "healthy", service
            assert host["Memory"] > 0
            host_ips = [
                binding["HostIp"] for ports in details["NetworkSettings"]["Ports"].values() for binding in ports or ()
            ]
            assert host_ips == (["127.0.0.1"] if service == "api" else [])
            if service not in ("redis", "store"):
                assert host["ReadonlyRootfs"]
                assert host["CapDrop"] == ["ALL"]
                assert deployment.docker("exec", container, "id", "-u").strip() == "10001"
                with pytest.raises(RuntimeError, match="Read-only file system"):
                    deployment.docker("exec", container, "touch", "/opt/keepmore/mark")


def test_secrets_that_everybody_knows_are_refused(deployment: Deployment) -> None:
    """Else a template's secret guards somebody's originals."""
    words = ["run", "--rm", "--no-deps", "--env", "KEEPMORE_S3_SECRET_KEY=minioadmin", "setup"]
    with pytest.raises(RuntimeError, match="everybody knows"):
        deployment.compose(*words)
    empty = ["--env-file", str(ROOT / ".env.example"), "config", "--quiet"]
    with pytest.raises(RuntimeError, match=r"KEEPMORE_S3_SECRET_KEY is missing a value.*new-env\.sh"):
        run([COMPOSE, *empty])


def test_a_small_job_is_tried_from_within(deployment: Deployment) -> None:
    """Else nobody knows whether a deployment works before the first real job fails on it."""
    words = ["--server", "http://api:8000", "--dataset", "s3://keepmore/try", "--json"]
    key = f"KEEPMORE_API_KEY={deployment.api_key}"
    report = json.loads(
        deployment.compose("run", "--rm", "--no-deps", "--env", key, "worker", "keepmore", "try", *words)
    )
    assert report["index"]["compressed"] == report["index"]["listed"] == 32


def test_a_disturbed_job_ends_with_the_digests_of_an_undisturbed_one(deployment: Deployment, tmp_path: Path) -> None:
    """Else whoever deletes originals by a manifest of this service deletes too many, or a crash costs a job."""
    started_at = time.monotonic()
    local = installed_command(tmp_path / "store")
    done = local("run", str(deployment.images), *OPTIONS, "--holdout", "0.2", "--json", timeout=600)
    assert done.returncode == 0, done.stderr
    undisturbed = digests(json.loads(done.stdout))
    _say(f"the same job on this machine: {time.monotonic() - started_at:.0f} s")
    volume = f"{deployment.images}:/images:ro"
    upload = ["run", "--rm", "--no-deps", "--volume", volume, "worker", "keepmore", "upload", "/images"]
    deployment.compose(*upload, "s3://keepmore/photographs")
    count = sum(1 for _ in deployment.images.rglob("*.jpg"))
    _say(f"{count} images are in the store")

    started_at = time.monotonic()
    job, process = _start_job(deployment, *OPTIONS, *TRAINING)
    deployment.until("some images are compressed", lambda: 20 < _images_done(deployment, job) < count, 120)
    _kill_a_worker(deployment)
    _cut_off_the_store(deployment)
    assert 0 < _images_done(deployment, job) < count, "the job was under way all the time"
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    report = json.loads(out)
    _say(f"the disturbed job, with a training: {time.monotonic() - started_at:.0f} s")
    assert report["index"]["compressed"] == report["index"]["listed"] == count
    assert digests(report) == undisturbed
    assert all(0 <= row["top1"] <= 1 for row in report["distances"])
    (worker, *_) = deployment.containers("worker")
    assert deployment.docker("exec", worker, "python", "-m", "keepmore_services.liveness") == ""


def _start_job(deployment: Deployment, *words: str) -> tuple[str, subprocess.Popen[str]]:
    """A job over the photographs that are in the store, and the command that waits for it."""
    before = _jobs(deployment)
    command = deployment.command("run", "s3://keepmore/photographs", *words, "--json")
    environment = {**os.environ, "KEEPMORE_API_KEY": deployment.api_key}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deployment.until("a job has begun", lambda: _jobs(deployment) > before, 60)
    (job,) = _jobs(deployment) - before
    return job, process


def _jobs(deployment: Deployment) -> set[str]:
    return {one["id"] for one in deployment.ask("show")}


def _images_done(deployment: Deployment, job: str) -> int:
    return int((deployment.ask("show", job)["images"] or {}).get("done", 0))


def _kill_a_worker(deployment: Deployment) -> None:
    """As a crash does: Docker starts the container again."""
    container = deployment.containers("worker")[0]
    state = deployment.inspect(container)["State"]
    os.kill(state["Pid"], 9)
    _say("a worker's container is killed")

    def restarted() -> bool:
        now = deployment.inspect(container)["State"]
        return bool(now["StartedAt"] != state["StartedAt"] and now["Health"]["Status"] == "healthy")

    deployment.until("it is back and healthy", restarted, 120)


def _cut_off_the_store(deployment: Deployment) -> None:
    container = deployment.containers("store")[0]
    network = f"{deployment.project}_inside"
    deployment.docker("network", "disconnect", network, container)
    _say("the store is cut off")
    time.sleep(OUTAGE_S)
    deployment.docker("network", "connect", "--alias", "store", network, container)
    _say(f"the store is back after {OUTAGE_S} s")


def test_a_stopped_worker_leaves_within_its_grace_period(deployment: Deployment) -> None:
    """Else every deployment kills workers in the middle of a chunk, and pays for it twice."""
    job, process = _start_job(deployment, "--distances", "0,1,3,5,7,9", "--effort", "7")
    try:
        deployment.until("some images are compressed", lambda: _images_done(deployment, job) > 4, 120)
        container = deployment.containers("worker")[1]
        started_at = time.monotonic()
        deployment.docker("stop", "--time", "60", container)
        _say(f"a worker has left {time.monotonic() - started_at:.0f} s after it was asked to")
        assert deployment.inspect(container)["State"]["ExitCode"] == 0
        assert "step handed on" in deployment.logs(container)
    finally:
        run(deployment.command("cancel", job), {"KEEPMORE_API_KEY": deployment.api_key})
        process.kill()
        process.communicate()


def test_it_runs_on_servers_of_somebody_else(deployment: Deployment) -> None:
    """Else whoever has an S3 and a Redis has to run others beside them."""
    variables, secret = deployment.docker.variables, "a-secret-of-theirs"
    if not variables:
        pytest.skip("needs the servers' stand-ins, and these a daemon of our own")
    ports = free_ports(3)
    start = ["run", "--detach", "--rm"]
    login = ["--env", "MINIO_ROOT_USER=theirs", "--env", f"MINIO_ROOT_PASSWORD={secret}"]
    redis, s3 = (f"{GATEWAY}:{port}" for port in ports[:2])
    redis_words = ["redis-server", "--bind", "0.0.0.0", "--requirepass", secret]
    servers = [
        deployment.docker(*start, "--publish", f"{redis}:6379", variables["KEEPMORE_REDIS_IMAGE"], *redis_words),
        deployment.docker(
            *start, *login, "--publish", f"{s3}:9000", variables["KEEPMORE_STORE_IMAGE"], "server", "/data"
        ),
    ]
    overrides = {
        "COMPOSE_PROFILES": "",
        "KEEPMORE_REDIS_URL": f"redis://:{secret}@{redis}/3",
        "KEEPMORE_S3_ENDPOINT": f"http://{s3}",
        "KEEPMORE_S3_ACCESS_KEY": "theirs",
        "KEEPMORE_S3_SECRET_KEY": secret,
        "KEEPMORE_STORE": "s3://elsewhere/store",
        "KEEPMORE_PORT": str(ports[2]),
    }
    other = replace(deployment, project=f"{deployment.project}-other", port=ports[2], overrides=overrides)
    try:
        other.compose("up", "--detach", "--wait", "api", "worker", "beat")
        words = ["--server", "http://api:8000", "--dataset", "s3://elsewhere/try", "--json"]
        key = f"KEEPMORE_API_KEY={other.api_key}"
        report = json.loads(
            other.compose("run", "--rm", "--no-deps", "--env", key, "worker", "keepmore", "try", *words)
        )
        assert report["index"]["compressed"] == 32
        assert not other.containers("redis")
        _say("a job is done on other servers")
    finally:
        _quietly(other, "down", "--volumes", "--timeout", "20")
        deployment.docker("kill", *(server.strip() for server in servers))
