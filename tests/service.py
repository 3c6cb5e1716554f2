"""The services as processes, as an operator starts them: the API, workers, a trainer, beat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import urllib3
from minio import Minio

from keepmore.client import Client
from keepmore_api.auth import new_key
from tests.servers import RedisServer, S3Server, free_ports, seaweed, valkey
from tests.tools import BIN

READY_S = 60


@dataclass
class Service:
    """A running service. `keepmore` processes end with it; `api_key` is None where it is open."""

    url: str
    environment: dict[str, str]
    folder: Path
    api_key: str | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    redis: RedisServer | None = None
    s3: S3Server | None = None

    @property
    def client(self) -> Client:
        return Client(self.url, self.api_key)

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        (temporary := self.folder / f"{name}.tmp").mkdir(exist_ok=True)  # as a container's /tmp: a process's own
        with log:
            process = subprocess.Popen(
                [str(BIN / words[0]), *words[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment, "TMPDIR": str(temporary)},
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def start_worker(self, name: str, lanes: str, processes: int = 1) -> subprocess.Popen[bytes]:
        celery = ("celery", "-A", "keepmore_worker.app", "worker", "-Q", lanes, "-c", str(processes))
        return self.start(name, *celery, "-n", f"{name}@%h", "--without-gossip", "--without-mingle")

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a process and all that it started."""
        process = self.processes.pop(name)
        try:
            os.killpg(process.pid, number)
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        except ProcessLookupError:
            process.wait()

    def alive(self, name: str) -> bool:
        """What an orchestrator asks a worker or the clock, as its image does."""
        command = [sys.executable, "-m", "keepmore_services.liveness"]
        return not subprocess.run(command, env={"TMPDIR": str(self.folder / f"{name}.tmp")}, check=False).returncode

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if urllib3.request("GET", self.url + "/readyz", retries=False, timeout=2).status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"not ready: {ended} ended\n" + "\n".join(map(self.log, self.processes)))
            time.sleep(0.1)


def group_lives(group: int) -> bool:
    """Whether any process of a process group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def upload(service: Service, folder: Path, prefix: str, copies: int = 1) -> str:
    """The URI of what `folder` holds, once it is below `prefix`: so many images of each of its own, all different."""
    assert service.s3 is not None
    s3 = service.s3
    client = Minio(s3.url.removeprefix("http://"), s3.access_key, s3.secret_key, secure=False)

    def put(file: Path) -> None:
        for number in range(copies):
            inside = file.relative_to(folder)
            name = f"{prefix}/{inside if copies == 1 else inside.with_stem(f'{inside.stem}-{number}')}"
            # A JPEG may be followed by anything: each copy is an image of its own to everyone who looks at bytes.
            data = file.read_bytes() + (str(number).encode() if number else b"")
            part = folder.parent / f"{threading.get_ident()}.part"
            part.write_bytes(data)
            client.fput_object(s3.bucket, name, str(part))
            part.unlink()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, folder.rglob("*.jpg")))
    return f"s3://{s3.bucket}/{prefix}"


@contextmanager
def embedded(folder: Path, **settings: str) -> Iterator[Service]:
    """`keepmore serve` over a folder store, open on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    environment = _environment({"KEEPMORE_STORE": str(folder / "store"), "KEEPMORE_RECONCILE_S": "1", **settings})
    service = Service(f"http://127.0.0.1:{port}", environment, folder)
    with _stop_at_end(service):
        service.start("api", "keepmore", "serve", "--port", str(port))
        service.wait_until_ready()
        yield service


@contextmanager
def distributed(folder: Path, workers: int = 2, trainer: bool = False, **settings: str) -> Iterator[Service]:
    """Redis and S3 servers, the API with a key, beat, `workers` with a process each, and maybe a trainer."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    key, entry = new_key("tests", "read+write")
    with ExitStack() as stack:
        redis, s3 = stack.enter_context(valkey(folder)), stack.enter_context(seaweed(folder))
        environment = _environment(
            {
                "KEEPMORE_STORE": f"s3://{s3.bucket}/store",
                "KEEPMORE_REDIS_URL": redis.url,
                "KEEPMORE_S3_ENDPOINT": s3.url,
                "KEEPMORE_S3_ACCESS_KEY": s3.access_key,
                "KEEPMORE_S3_SECRET_KEY": s3.secret_key,
                "KEEPMORE_API_KEYS": entry,
                "KEEPMORE_RECONCILE_S": "2",
                **settings,
            }
        )
        service = Service(f"http://127.0.0.1:{port}", environment, folder, key, redis=redis, s3=s3)
        with _stop_at_end(service):
            service.start("api", "keepmore", "serve", "--port", str(port))
            for number in range(workers):
                service.start_worker(f"worker-{number}", "control,compress")
            if trainer:
                service.start_worker("trainer", "training")
            service.start("beat", "celery", "-A", "keepmore_worker.app", "beat")
            service.wait_until_ready()
            yield service


@contextmanager
def _stop_at_end(service: Service) -> Iterator[None]:
    try:
        yield
    finally:
        for name in list(service.processes):
            service.stop(name)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("KEEPMORE_")}
    return {**own, **settings}
