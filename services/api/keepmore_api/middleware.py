"""What every request passes on its way to a route: metrics, a limit for bodies, and a check of the host name."""

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
    """Refuses a body that is longer than any valid request, before it is in memory."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):  # a body of these is never read
            await self._app(scope, receive, send)
            return
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if stated.isdigit() and int(stated) > self._limit:
            await self._refusal()(scope, receive, send)
            return
        body_size, has_answer, too_large = 0, False, False

        async def receive_counted() -> Message:
            nonlocal body_size, too_large
            message = await receive()
            body_size += len(message.get("body", b""))
            if body_size > self._limit:
                too_large = True
                raise _TooLarge
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal has_answer
            if too_large and not has_answer:
                return  # the application's answer to the truncated body: ours is better
            has_answer = True
            await send(message)

        with suppress(_TooLarge):
            await self._app(scope, receive_counted, send_unless_refused)
        if too_large and not has_answer:
            await self._refusal()(scope, receive, send)

    def _refusal(self) -> ASGIApp:
        detail = f"the body is over {self._limit:,} bytes; no request needs more. Name images by a table's URI instead"
        return problems.problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", detail, {"Connection": "close"})


class LocalOnly:
    """Answers only to names of this machine: otherwise a page in a browser could reach an open service by a host name
    of its own that resolves to 127.0.0.1."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name.lower() not in LOCAL_NAMES:
                detail = (
                    f"this service is open, so it answers to {', '.join(LOCAL_NAMES)} only, not to {host[:100]!r}; use "
                    "one of these names, or set KEEPMORE_API_KEYS"
                )
                answer = problems.problem(HTTPStatus.BAD_REQUEST, "unknown_host", detail)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _TooLarge(Exception):
    pass


class Measured:
    """Counts and times every request by its route, not by its path, because there is no limit to the number of
    paths."""

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
