"""What every request passes on its way to a route: measuring, a limit for bodies, and names of this machine alone."""

from __future__ import annotations

import time
from contextlib import suppress
from http import HTTPStatus

from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keepmore_api import problems
from keepmore_api.metrics import Meter

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class BodyLimit:
    """Refuses a body that is longer than a request can be, before it is in memory."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):  # nobody reads a body that comes with these
            await self._app(scope, receive, send)
            return
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if stated.isdigit() and int(stated) > self._limit:
            await self._refusal()(scope, receive, send)
            return
        received, answered, too_large = 0, False, False

        async def counted() -> Message:
            nonlocal received, too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                too_large = True
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            if too_large and not answered:
                return  # what the application makes of a body that ends in an error: ours is the better answer
            answered = True
            await send(message)

        with suppress(_TooLarge):
            await self._app(scope, counted, noted)
        if too_large and not answered:
            await self._refusal()(scope, receive, send)

    def _refusal(self) -> ASGIApp:
        detail = f"the body is over {self._limit:,} bytes; no request needs more. Name images by a table's URI instead"
        return problems.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", detail, {"Connection": "close"})


class LocalOnly:
    """Answers only to names of this machine: else a page in a browser reaches an open service by a name of its own
    that resolves to 127.0.0.1."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name.lower() not in LOCAL_NAMES:
                detail = f"this service is open, so it answers to {', '.join(LOCAL_NAMES)} only, not to {host[:100]!r}"
                answer = problems.problem(HTTPStatus.BAD_REQUEST, "unknown_host", detail)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _TooLarge(Exception):
    pass


class Measured:
    """Counts and times every request by its route, not by its path, of which there is no end."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app = app
        self._meter = meter
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                key = (scope["method"], route, message["status"])
                if key not in self._series:
                    requests = self._meter.requests.labels(*map(str, key))
                    self._series[key] = (requests, self._meter.seconds.labels(scope["method"], route))
                requests, seconds = self._series[key]
                requests.inc()
                seconds.observe(time.perf_counter() - started_at)
            await send(message)

        await self._app(scope, receive, answer)
