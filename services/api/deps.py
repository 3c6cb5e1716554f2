"""What the calls depend on, as annotations."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from keepmore.jobs import JobBook
from keepmore.store import Store
from services.api.access import READ, WRITE, ApiKey, Gate
from services.api.backend import Backend
from services.api.views import Views

_BEARER = HTTPBearer(auto_error=False, description="An API key; none is needed where the service was started open.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


async def _reader(request: Request, given: Credentials) -> ApiKey:
    return _admitted(request, READ)


async def _writer(request: Request, given: Credentials) -> ApiKey:
    return _admitted(request, WRITE)


def _admitted(request: Request, scope: str) -> ApiKey:
    gate: Gate = request.app.state.gate
    return gate.admit(request.headers.get("authorization"), scope)


async def _backend(request: Request) -> Backend:
    found: Backend = request.app.state.backend
    return found


async def _store(request: Request) -> Store:
    found: Backend = request.app.state.backend
    return found.store


async def _book(request: Request) -> JobBook:
    found: Backend = request.app.state.backend
    return JobBook(found.store)


async def _views(request: Request) -> Views:
    found: Views = request.app.state.views
    return found


Reader = Annotated[ApiKey, Depends(_reader)]
Writer = Annotated[ApiKey, Depends(_writer)]
Parts = Annotated[Backend, Depends(_backend)]
Objects = Annotated[Store, Depends(_store)]
Book = Annotated[JobBook, Depends(_book)]
JobViews = Annotated[Views, Depends(_views)]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the answer, or for the job's end.")]
