"""Makes ready what the service stands on: `python -m keepmore_services.bootstrap`, once before the rest is started.

Refuses secrets that everybody knows, waits for Redis and the S3 server, and makes the bucket of the store if need be.
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
    """Raises InvalidRequest for a secret that is known or short: whoever reaches the port could delete everything."""
    found = {f"KEEPMORE_S3_SECRET_KEY for {end.url}": end.secret_key for end in settings.config.access.endpoints}
    if (password := urlsplit(settings.redis).password) is not None:
        found["the password in KEEPMORE_REDIS_URL"] = password
    for name, secret in found.items():
        if secret.lower() in KNOWN or len(secret) < FEWEST_CHARACTERS:
            raise InvalidRequest(
                f"{name} is one that everybody knows, or shorter than {FEWEST_CHARACTERS} characters; make one: "
                "openssl rand -hex 24"
            )


def make_bucket(settings: Settings) -> bool:
    """Make the bucket of the store, if there is none; says whether it did. Raises StoreError."""
    from keepmore.net.s3 import Bucket

    place = uris.parse(settings.store)
    bucket = Bucket(settings.config.access.endpoint(place.bucket), place.bucket, retries=0)
    try:
        return bucket.make()
    except RemoteFailure as failure:
        kind = StoreUnavailable if failure.reason is FailureReason.UNAVAILABLE else StoreError
        raise kind(f"the store's bucket {place.bucket}: {failure}") from failure
    finally:
        bucket.close()


def prepare(settings: Settings, wait_s: float = WAIT_S) -> None:
    """Raises what is still in the way after `wait_s` seconds, and at once what waiting does not mend."""
    check_secrets(settings)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            if settings.distributed:
                RedisStepTracker(settings.redis).ping()
            if settings.store.startswith("s3://"):
                made = make_bucket(settings)
                log.info("the bucket was made" if made else "the bucket is there")
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
