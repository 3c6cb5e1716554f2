"""Why a remote read or write failed, and whether it may pass by itself: one translation for S3 and HTTP."""

from __future__ import annotations

from enum import StrEnum

from urllib3 import Retry
from urllib3.exceptions import HTTPError


class FailureReason(StrEnum):
    """What can be wrong with something that another machine holds."""

    ABSENT = "absent"
    NO_BUCKET = "no bucket"
    DENIED = "denied"
    FULL = "full"
    CHANGED = "changed"
    NO_RANGES = "no ranges"  # the server sends whole files only
    UNAVAILABLE = "unavailable"  # no connection, or 5xx, after all retries
    OTHER = "other"


class RemoteFailure(Exception):
    """What went wrong with a remote object; whoever knows what the object is to a user says it in their words."""

    def __init__(self, why: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail


def retry_policy(total: int, status: frozenset[int] = frozenset({429, 500, 502, 503, 504})) -> Retry:
    """Retries with growing pauses, 33 seconds for 10 of them. Redirects are left to the caller."""
    return Retry(
        total,
        redirect=False,
        allowed_methods=None,
        status_forcelist=status,
        raise_on_status=False,
        backoff_factor=0.25,
        backoff_max=5,
        backoff_jitter=0.5,
        retry_after_max=30,
    )


def check_version(before: str | None, now: str | None) -> None:
    """Raises CHANGED for parts of two versions, HTTPError for an answer that was cut off before it named its own."""
    if before and not now:
        raise HTTPError("the connection ended within the headers of an answer")
    if before and before != now:
        raise RemoteFailure(FailureReason.CHANGED, f"it was {before} and is {now} now")
