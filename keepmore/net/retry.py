"""Which requests are tried again, how often, and with which pauses: one policy for the store and all sources.

`keepmore.client` has a policy of its own, because it posts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from urllib3 import Retry
from urllib3.exceptions import HTTPError, MaxRetryError

from keepmore.net.failure import failure_of_connection

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})

Result = TypeVar("Result")


def retry_policy(total: int, status: frozenset[int] = RETRIED_STATUS) -> Retry:
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


def retried(retries: Retry, attempt: Callable[[], Result]) -> Result:
    """The result of `attempt`, which is tried again while connections break within bodies: urllib3 itself retries only
    requests.

    Raises RemoteFailure when there are no retries left.
    """
    while True:
        try:
            return attempt()
        except MaxRetryError as error:
            raise failure_of_connection(error) from error
        except HTTPError as error:
            try:
                retries = retries.increment("GET", error=error)
            except HTTPError:  # MaxRetryError, or `error` itself where nothing may be retried
                raise failure_of_connection(error) from error
            retries.sleep()
