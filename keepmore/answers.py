"""The JSON that the HTTP API answers and `--json` prints, as typed dictionaries: the answers of `keepmore.client`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

State = Literal["accepted", "succeeded", "failed", "cancelled"]
Interval = tuple[float, float]


class ErrorAnswer(TypedDict):
    """Why something failed; `errors.from_dict` makes an exception of it."""

    code: str
    message: str
    retryable: bool
    field: NotRequired[str]
    details: NotRequired[Mapping[str, Any]]


class ImageCounts(TypedDict):
    listed: int
    done: int
    failed: int


class IndexAnswer(TypedDict):
    """The contents of a job's index, in numbers; `errors` by code, sizes by distance."""

    listed: int
    compressed: int
    failed: int
    pool: int
    evaluation: int
    source_bytes: int
    pool_bytes: dict[str, int]
    encodings: dict[str, dict[str, int]]
    classes: dict[str, int]
    unlabelled: int
    errors: dict[str, int]


class SubsetRowAnswer(TypedDict):
    """What is kept in one variant."""

    images: int
    bytes: int
    digest: str
    manifest: str
    classes: dict[str, int]
    levels: NotRequired[Mapping[str, Any]]


class SubsetAnswer(TypedDict):
    """A subset; the service adds `state` and `links`."""

    subset: str
    job: str
    budget: Any
    budget_bytes: int | None
    selection: Mapping[str, Any]
    effort: int
    pool_images: int
    distances: dict[str, SubsetRowAnswer]
    state: NotRequired[str]
    links: NotRequired[Mapping[str, Any]]


class JobAnswer(TypedDict):
    """The status of a job; docs/api.md explains each field. `links` come from a service."""

    job: str
    state: State
    stage: Literal["list", "compress", "select", "train", "report"] | None
    created_at: str
    ended_at: str | None
    error: ErrorAnswer | None
    request: Mapping[str, Any]
    images: ImageCounts | None
    bytes: dict[str, int] | None
    rate: float | None
    eta_s: int | None
    warnings: list[str]
    subset: SubsetAnswer | None
    report: str | None
    links: NotRequired[Mapping[str, Any]]
    index: NotRequired[IndexAnswer]
    subsets: NotRequired[list[SubsetAnswer]]


class JobRecordAnswer(TypedDict):
    """A job in a list; for an unreadable record only the id, the state `unreadable` and the error."""

    id: str
    state: str
    error: ErrorAnswer | None
    request: NotRequired[Mapping[str, Any]]
    created_at: NotRequired[str]


class TrainingAnswer(TypedDict):
    """A training; `distances` has a result by variant, as far as it is there."""

    training: str
    subset: str
    state: Literal["running", "succeeded", "failed"]
    error: ErrorAnswer | None
    request: Mapping[str, Any]
    distances: dict[str, Mapping[str, Any]]
    comparison: Mapping[str, Any] | None


class ReportAnswer(TypedDict):
    """A job's report; `distances` has a row per variant, `report` says where its page is."""

    job: str
    index: IndexAnswer
    skipped: dict[str, int]
    warnings: list[str]
    distances: list[Mapping[str, Any]]
    budget_bytes: int | None
    subset: str
    training: str | None
    comparison: NotRequired[Mapping[str, Any] | None]
    report: NotRequired[str | None]


class ExpectedValue(TypedDict):
    expected: float
    low: float
    high: float


class EstimateRowAnswer(TypedDict):
    bytes: ExpectedValue
    images: ExpectedValue | None


class EstimateAnswer(TypedDict):
    """Expected bytes and counts by distance; `rate` is the coverage of the intervals. A service adds `estimate` and
    `state`."""

    request: Mapping[str, Any]
    skipped: dict[str, int]
    sampled: int
    images: int
    rate: float
    failed: ExpectedValue
    source_bytes: ExpectedValue
    budget_bytes: ExpectedValue | None
    distances: dict[str, EstimateRowAnswer]
    estimate: NotRequired[str]
    state: NotRequired[str]


class AdviceAnswer(TypedDict):
    """Advice on a job; docs/advice.md explains each field."""

    advice: str
    job: str
    state: str
    request: Mapping[str, Any]
    budgets: list[Mapping[str, Any]]
    fit: Mapping[str, Any]
    wished: Mapping[str, Any] | None
    error: NotRequired[ErrorAnswer | None]


class FailedImageAnswer(TypedDict):
    """A row of the errors list."""

    path: str
    source_uri: str
    error_code: str
    error: str
