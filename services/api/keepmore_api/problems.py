"""Errors as problem+json (RFC 9457): the one place where an error's HTTP status is decided."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, Router

from keepmore import errors
from keepmore.errors import KeepmoreError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:keepmore:problem:"

# The most specific class that fits decides.
STATUSES: dict[type[KeepmoreError], HTTPStatus] = {
    KeepmoreError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DatasetError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DatasetUnreadable: HTTPStatus.BAD_GATEWAY,
    errors.StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.QueueUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.JobNotFound: HTTPStatus.NOT_FOUND,
    errors.SubsetNotFound: HTTPStatus.NOT_FOUND,
    errors.TrainingNotFound: HTTPStatus.NOT_FOUND,
    errors.AdviceNotFound: HTTPStatus.NOT_FOUND,
    errors.EstimateNotFound: HTTPStatus.NOT_FOUND,
    errors.JobNotReady: HTTPStatus.CONFLICT,
    errors.JobEnded: HTTPStatus.CONFLICT,
    errors.NothingToRetry: HTTPStatus.CONFLICT,
    errors.IdempotencyConflict: HTTPStatus.CONFLICT,
    errors.NotTrainable: HTTPStatus.CONFLICT,
    errors.PilotsInsufficient: HTTPStatus.CONFLICT,
}


MALFORMED = {
    "malformed_json": HTTPStatus.BAD_REQUEST,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}


class Refused(Exception):
    """A refusal on the level of HTTP: no key, no such page, a body that is too large."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers or {}


def problem(
    status: HTTPStatus, code: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    body = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status.value,
        "code": code,
        "detail": detail,
        **more,
    }
    return JSONResponse(body, status.value, headers, MEDIA_TYPE)


def status_of(error: KeepmoreError) -> HTTPStatus:
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem."""
    app.add_exception_handler(KeepmoreError, answer_error)
    app.add_exception_handler(Refused, answer_refusal)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(Exception, answer_defect)


def _count(request: Request, code: str) -> str:
    request.app.state.meter.problems.labels(code).inc()
    return code


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """One of the library's errors; where it names a field of the request, that too."""
    assert isinstance(error, KeepmoreError)
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request failed", extra={"path": request.url.path, "code": error.code, "reason": error.message})
    headers = {"Retry-After": "5"} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    more: dict[str, Any] = {"retryable": error.retryable}
    if error.field is not None and isinstance(error, errors.InvalidRequest):
        more["errors"] = [{"field": error.field, "code": error.code, "message": error.reason}]
    return problem(status, _count(request, error.code), error.message, headers, **more, **error.details)


async def answer_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return problem(error.status, _count(request, error.code), error.detail, error.headers)


async def answer_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [_field_error(item) for item in error.errors()]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in fields)
    code = fields[0]["code"]
    status = MALFORMED.get(code, HTTPStatus.UNPROCESSABLE_ENTITY)
    return problem(status, _count(request, code), detail, errors=fields)


async def answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:  # a router knows only the methods of the first route of a path
        routes = [route for route in _routes(request.app.routes) if route.path_regex.match(request.url.path)]
        headers["Allow"] = ", ".join(sorted({method for route in routes for method in route.methods or ()}))
    code = {404: "no_such_page", 405: "method_not_allowed"}.get(error.status_code, status.name.lower())
    remedy = f"{request.method} {request.url.path}: {error.detail}; /docs lists every call"
    return problem(status, _count(request, code), remedy, headers)


async def answer_defect(request: Request, error: Exception) -> JSONResponse:
    log.exception("a defect of the service", exc_info=error, extra={"path": request.url.path})
    detail = "a defect of the service; its log holds the traceback. Nothing of your data was changed by this answer"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, _count(request, "internal_error"), detail)


def _routes(routes: Sequence[BaseRoute]) -> Iterator[Route]:
    for route in routes:
        if isinstance(route, Route):
            yield route
        elif isinstance(included := getattr(route, "original_router", None), Router):
            yield from _routes(included.routes)


def _field_error(item: Any) -> dict[str, str]:
    """One of Pydantic's errors as ours: which field, what is wrong with it, what to do."""
    kind, place = item["type"], [part for part in item["loc"] if part not in ("body", "query", "path", "header")]
    name = ""
    for part in place:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
    name = name or "body"
    value = repr(item.get("input"))[:100]
    if kind == "json_invalid":
        why = item.get("ctx", {}).get("error", "")
        return {"field": "body", "code": "malformed_json", "message": f"not JSON ({why}); send one JSON object"}
    if kind == "model_attributes_type" and isinstance(item.get("input"), bytes | str) and not place:
        message = "send the body as JSON, with the header Content-Type: application/json"
        return {"field": "body", "code": "unsupported_media_type", "message": message}
    if kind == "extra_forbidden":
        message = "there is no such field; leave it out, or correct its name"
        return {"field": name, "code": "unknown_field", "message": message}
    if kind == "missing":
        return {"field": name, "code": "missing_field", "message": "this field is needed; /docs shows an example"}
    code = "wrong_type" if kind.endswith(("_type", "_parsing", "_from_float")) else "invalid_request"
    return {"field": name, "code": code, "message": f"{value} is not possible: {item['msg'].lower()}"}
