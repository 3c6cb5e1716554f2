"""The answers over HTTP, as the description of the API shows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from keepmore_api.schemas.derived import example


class AdviceOut(BaseModel):
    """Advice; unless `state` is succeeded, only the request. docs/advice.md describes every field."""

    model_config = ConfigDict(extra="allow")

    advice: str
    job: str
    state: Literal["running", "succeeded"]
    request: dict[str, Any]


class Problem(BaseModel):
    """RFC 9457. `code` is stable; docs/errors.md lists them all."""

    model_config = ConfigDict(extra="allow") | example(
        type="urn:keepmore:problem:job_not_found",
        title="Job not found",
        status=404,
        code="job_not_found",
        detail="job 20261125-091500-1f0c2a9b37: no such job in this store; list the jobs (`keepmore show`, "
        "GET /v1/jobs)",
    )

    type: str = Field(examples=["urn:keepmore:problem:job_not_found"])
    title: str
    status: int
    code: str = Field(examples=["job_not_found"])
    detail: str


class Images(BaseModel):
    listed: int
    done: int
    failed: int


class Bytes(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    in_: int = Field(alias="in", description="Bytes of the sources read so far.")
    out: int = Field(description="Bytes of their encodings at all distances.")


class JobOut(BaseModel):
    """The status of a job."""

    job: str
    state: Literal["accepted", "succeeded", "failed", "cancelled"]
    stage: Literal["list", "compress", "select", "train", "report"] | None
    created_at: str
    ended_at: str | None
    error: dict[str, Any] | None
    request: dict[str, Any]
    images: Images | None
    bytes: Bytes | None
    rate: float | None = Field(description="Images per second.")
    eta_s: int | None = Field(description="Seconds until all images are compressed.")
    warnings: list[str]
    subset: dict[str, Any] | None
    report: str | None
    links: dict[str, Any]
    index: dict[str, Any] | None = None


class JobsOut(BaseModel):
    jobs: list[dict[str, Any]]
    next: str | None = Field(description="Give it as `after` for the next page; null: there is none.")


class SubsetOut(BaseModel):
    """A subset: `running` until its manifests are written."""

    model_config = ConfigDict(extra="allow")

    subset: str
    state: Literal["running", "succeeded"]
    links: dict[str, Any]


class SubsetsOut(BaseModel):
    subsets: list[SubsetOut]


class TrainingOut(BaseModel):
    """A training: its results by distance as they come in."""

    training: str
    subset: str
    state: Literal["running", "succeeded", "failed"]
    error: dict[str, Any] | None
    request: dict[str, Any]
    distances: dict[str, Any]
    comparison: dict[str, Any] | None = Field(description="Which distances differ by more than noise; null: not yet.")


class EstimateOut(BaseModel):
    """Expected bytes and counts by distance, each with an interval."""

    model_config = ConfigDict(extra="allow")

    estimate: str
    state: Literal["running", "succeeded"]


class Health(BaseModel):
    status: Literal["ok"]


def described(*kinds: str) -> dict[str, Any]:
    """An answer in OpenAPI that is one of these media types."""
    return {"content": {kind: {"schema": {} if kind.endswith("json") else {"type": "string"}} for kind in kinds}}
