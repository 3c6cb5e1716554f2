"""What servers' answers mean."""

from __future__ import annotations

import pytest
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError, MaxRetryError, ReadTimeoutError

from keepmore.net.failure import FailureReason, failure_of_connection, failure_of_status


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (409, "", FailureReason.UNAVAILABLE),
        (409, "OperationAborted", FailureReason.UNAVAILABLE),
        (409, None, FailureReason.OTHER),
        (410, "", FailureReason.OTHER),
        (410, None, FailureReason.ABSENT),
        (404, "", FailureReason.ABSENT),
        (404, "NoSuchBucket", FailureReason.NO_BUCKET),
        (400, "ExpiredToken", FailureReason.DENIED),
        (507, None, FailureReason.FULL),
        (503, "SlowDown", FailureReason.UNAVAILABLE),
    ],
)
def test_a_status_means_what_its_protocol_says(status: int, code: str | None, reason: FailureReason) -> None:
    """Else a conflict that passes fails a job for good, or a store that answers 410 is taken for an empty one."""
    assert failure_of_status(status, "detail", code).reason is reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidHeader("Invalid Retry-After header: 1.5"), FailureReason.UNAVAILABLE),
        (HTTPError("the connection ended"), FailureReason.UNAVAILABLE),
        (
            MaxRetryError(HTTPConnectionPool("x"), "/", ReadTimeoutError(HTTPConnectionPool("x"), "/", "slow")),
            FailureReason.UNAVAILABLE,
        ),
        (LocationParseError("x:y:z"), FailureReason.OTHER),
    ],
)
def test_only_a_wrong_address_is_final(error: HTTPError, reason: FailureReason) -> None:
    """Else a server that is busy for a minute leaves a sound image out of the index, and its original is deleted."""
    assert failure_of_connection(error).reason is reason
