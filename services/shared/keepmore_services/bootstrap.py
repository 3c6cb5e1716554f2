"""Prepares what the service depends on: `python -m keepmore_services.bootstrap`, once before the rest is started.

Refuses well-known secrets, waits for Redis and the S3 server, and makes the bucket of the store if need be.
"""

from __future__ import annotations

import logging
import sys
import time
from urllib.parse import urlsplit

from keepmore.errors import InvalidRequest, KeepmoreError, StoreError, StoreUnavailable
from keepmore.net import uri as uris
from keepmore.net.failure import FailureReason, RemoteFailure
from keepmore_services import logs
from keepmore_services.broker.redis_tracker import RedisStepTracker
from keepmore_services.settings import Settings, load

WAIT_S = 120.0
EVERY_S = 2.0
FEWEST_CHARACTERS = 8
KNOWN = frozenset({"minioadmin", "minio123", "password", "passw0rd", "changeme", "change-me", "secretsecret"})

log = logging.getLogger(__name__)


def check_secrets(settings: Settings) -> None:
    """Raises InvalidRequest for a well-known or short secret: anybody who reaches the port could delete everything."""
    endpoints = settings.config.access.endpoints  # without a key: anonymous, or the machine's role
    secrets = {f"KEEPMORE_S3_SECRET_KEY for {end.url}": end.secret_key for end in endpoints if end.secret_key}
    if (password := urlsplit(settings.redis).password) is not None:
        secrets["the password in KEEPMORE_REDIS_URL"] = password
    for name, secret in secrets.items():
        if secret.lower() in KNOWN or len(secret) < FEWEST_CHARACTERS:
            raise InvalidRequest(
                f"{name} is one that everybody knows, or shorter than {FEWEST_CHARACTERS} characters; make one: "
                "openssl rand -hex 24"
            )


def make_bucket(settings: Settings) -> bool:
    """Make the bucket of the store, if there is none; returns whether it did. Raises StoreError."""
    from keepmore.net.s3 import Bucket

    place = uris.parse(settings.store)
    bucket = Bucket(settings.config.access.endpoint(place.bucket), place.bucket, retries=0)
    try:
        return bucket.make()
    except ValueError as error:  # what minio says of a name that no new bucket may have
        raise InvalidRequest(f"KEEPMORE_STORE: {error}; use 3 to 63 of a-z, 0-9, - and .") from error
    except RemoteFailure as failure:
        kind = StoreUnavailable if failure.reason is FailureReason.UNAVAILABLE else StoreError
        raise kind(
            f"the store's bucket {place.bucket}: {failure}; check KEEPMORE_STORE, KEEPMORE_S3_ENDPOINT and its keys"
        ) from failure
    finally:
        bucket.close()


def prepare(settings: Settings, wait_s: float = WAIT_S) -> None:
    """Raises the error that remains after `wait_s` seconds; raises one that waiting does not fix at once."""
    check_secrets(settings)
    settings.config.store()  # raises for an address that is none
    deadline = time.monotonic() + wait_s
    while True:
        try:
            if settings.distributed:
                RedisStepTracker(settings.redis).ping()
            if settings.store.startswith("s3://"):
                is_new = make_bucket(settings)
                log.info("the bucket was made" if is_new else "the bucket is there")
            return
        except KeepmoreError as error:
            if not error.transient or time.monotonic() > deadline:
                raise
            log.info("not ready yet", extra={"reason": error.message})
            time.sleep(EVERY_S)


def main() -> None:
    settings = load()
    logs.configure(settings.log_level)
    try:
        prepare(settings)
    except KeepmoreError as error:
        log.error("not started", extra={"code": error.code, "reason": error.message})
        sys.exit(1)


if __name__ == "__main__":
    main()
