"""What the calls depend on, as annotations."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPBearer

from keepmore.jobs.job import JobRepository
from keepmore.storage.base import Store
from keepmore_api.auth import READ, WRITE, ApiKey, Gate
from keepmore_api.backend.base import Backend
from keepmore_api.job_views import Views

MOST_WAIT_S = 60
SCHEME = "ApiKey"


def admitted(request: Request, scope: str) -> ApiKey:
    """The caller's key; raises Refused."""
    gate: Gate = request.app.state.gate
    return gate.admit(request.headers.get("authorization"), scope)


class _Scope(HTTPBearer):
    """Admits callers whose key has a scope. One dependency and not two, because each slows down polling."""

    def __init__(self, scope: str) -> None:
        super().__init__(
            scheme_name=SCHEME,
            description="An API key; needed unless the service was started open.",
            auto_error=False,
        )
        self._scope = scope

    async def __call__(self, request: Request) -> ApiKey:  # type: ignore[override]
        return admitted(request, self._scope)


async def get_backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


async def get_store(request: Request) -> Store:
    backend: Backend = request.app.state.backend
    return backend.store


async def get_repository(request: Request) -> JobRepository:
    backend: Backend = request.app.state.backend
    return JobRepository(backend.store)


async def get_views(request: Request) -> Views:
    views: Views = request.app.state.views
    return views


Reader = Annotated[ApiKey, Security(_Scope(READ))]
Writer = Annotated[ApiKey, Security(_Scope(WRITE))]
BackendDep = Annotated[Backend, Depends(get_backend)]
StoreDep = Annotated[Store, Depends(get_store)]
RepositoryDep = Annotated[JobRepository, Depends(get_repository)]
ViewsDep = Annotated[Views, Depends(get_views)]
Wait = Annotated[float, Query(ge=0, le=MOST_WAIT_S, description="Seconds to wait for the answer.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Sent again within 24 h with the same body, it returns the same job or estimate.",
    ),
]
