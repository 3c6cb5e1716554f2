"""A Docker daemon for the tests: the one that runs, or one of our own in a network namespace of its own.

In a namespace of its own it reaches nothing, and nothing reaches what it publishes but who enters: so nothing of this
machine is touched, images are made of Debian's packages instead of pulled, and wheels are served from a folder here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.tools import BIN, ROOT

PACKAGES = ("docker.io", "iptables", "iproute2", "debootstrap")
BASE = "keepmore-base:local"
STORE, REDIS = "keepmore-store:local", "keepmore-redis:local"
WHEELS_PORT = 8765
GATEWAY = "172.17.0.1"
READY_S = 60

_START_STORE = """#!/bin/sh
# Takes the command and the variables of MinIO.
export AWS_ACCESS_KEY_ID="$MINIO_ROOT_USER" AWS_SECRET_ACCESS_KEY="$MINIO_ROOT_PASSWORD"
exec weed mini -dir=/data -ip=127.0.0.1 -ip.bind=0.0.0.0 -webdav=false -admin.ui=false -s3.port=9000 \\
  -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false
"""

_STORE = f"""
FROM {BASE}
COPY weed start-store /usr/local/bin/
RUN mkdir /data && chmod 755 /usr/local/bin/*
ENTRYPOINT ["/usr/local/bin/start-store"]
"""


def run(words: Sequence[str | Path], environment: Mapping[str, str] | None = None, timeout_s: float = 900) -> str:
    """What a command prints; raises RuntimeError with all of it where it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **(environment or {})},
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Docker:
    """A daemon at `host`. `inside`: the words before a command that has to reach what it publishes. `variables`: what
    an .env needs so that images can be built on it."""

    host: str
    inside: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str | Path, timeout_s: float = 900) -> str:
        return run(["docker", *words], self.environment, timeout_s)

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.host} if self.host else {}


@contextmanager
def docker(folder: Path) -> Iterator[Docker]:
    """The daemon that runs, or one that lives as long as the context, with its data in `folder`."""
    if shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        yield Docker(os.environ.get("DOCKER_HOST", ""))
        return
    if not all(map(shutil.which, ("dockerd", "ip", "debootstrap", "iptables"))):
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES])
    with ExitStack() as stack:
        namespace = stack.enter_context(_namespace())
        inside = ("nsenter", f"--net=/run/netns/{namespace}")
        engine = Docker(stack.enter_context(_daemon(folder, inside)), inside)
        _make_base(engine, folder)
        _make_stand_ins(engine, folder)
        wheels = _collect_wheels(folder)
        stack.enter_context(_serve(wheels, inside))
        variables = {
            "KEEPMORE_BASE_IMAGE": BASE,
            "KEEPMORE_BUILD_IMAGE": BASE,
            "KEEPMORE_STORE_IMAGE": STORE,
            "KEEPMORE_REDIS_IMAGE": REDIS,
            "KEEPMORE_PIP_NO_INDEX": "1",
            "KEEPMORE_PIP_FIND_LINKS": f"http://{GATEWAY}:{WHEELS_PORT}/",
            "KEEPMORE_PIP_TRUSTED_HOST": GATEWAY,
        }
        yield Docker(engine.host, inside, variables)


@contextmanager
def _namespace() -> Iterator[str]:
    name = f"keepmore-{os.getpid()}"
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        yield name
    finally:
        run(["ip", "netns", "delete", name])


@contextmanager
def _daemon(folder: Path, inside: Sequence[str]) -> Iterator[str]:
    host = f"unix://{folder}/docker.sock"
    command = [*inside, "dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "-H", host]
    with (folder / "dockerd.log").open("wb") as log:
        words = [str(word) for word in [*command, "--pidfile", folder / "docker.pid"]]
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + READY_S
        while subprocess.run(["docker", "-H", host, "info"], capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "dockerd.log").read_text())
            time.sleep(0.3)
        yield host
    finally:
        process.terminate()
        process.wait(60)


def _make_base(docker: Docker, folder: Path) -> None:
    """What `python:3.11-slim-bookworm` is made of too: Debian 12 and a Python 3.11; and a Redis, to start as well."""
    root = folder / "base"
    packages = "--include=python3,python3-venv,python3-pip,ca-certificates,binutils,redis-server"
    run(["debootstrap", "--variant=minbase", packages, "bookworm", root])
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / cache)
    path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    words = ["docker", "-H", docker.host, "import", "-c", path, "-", BASE]
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(words, stdin=tar.stdout, check=True, capture_output=True)
    if tar.returncode:
        raise RuntimeError("tar failed")
    shutil.rmtree(root)


def _make_stand_ins(docker: Docker, folder: Path) -> None:
    """Servers that take the commands and the variables of the images that Compose names."""
    docker("tag", BASE, REDIS)
    context = folder / "stand-in"
    context.mkdir()
    shutil.copy(BIN / "weed", context / "weed")
    (context / "start-store").write_text(_START_STORE)
    (context / "Dockerfile").write_text(_STORE)
    docker("build", "--quiet", "--tag", STORE, context)


def _collect_wheels(folder: Path) -> Path:
    """Everything that the images install, and what an older patch release of Python needs besides."""
    wheels = folder / "wheels"
    words: list[str | Path] = [
        BIN / "python",
        "-m",
        "pip",
        "download",
        "--quiet",
        "--dest",
        wheels,
        "--constraint",
        "constraints.txt",
    ]
    run([*words, ".[api,worker,timm]", "setuptools==80.9.0"])
    run([*words, "--no-deps", "async-timeout"])
    return wheels


@contextmanager
def _serve(wheels: Path, inside: Sequence[str]) -> Iterator[None]:
    words = [*inside, sys.executable, "-m", "http.server", str(WHEELS_PORT), "--bind", GATEWAY, "--directory"]
    process = subprocess.Popen([*words, str(wheels)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
