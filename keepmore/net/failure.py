"""Why a remote read or write failed: one translation from servers' answers, and one into the terms of the caller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError

from keepmore.errors import (
    DatasetChanged,
    DatasetError,
    DatasetNotFound,
    DatasetUnreadable,
    ImageError,
    NotFound,
    SourceForbidden,
    SourceNotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnwritable,
    UnreadableImage,
    UnsupportedDataset,
)

# How urllib3 begins a message: with the class of a connection, which may be one of ours.
CONNECTION = re.compile(r"^[\w.]+\(host=[^)]*\): ")
ABSENT_CODES = frozenset({"NoSuchKey", "NoSuchObject", "ResourceNotFound"})
DENIED_CODES = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "ExpiredToken"}
)
FULL_CODES = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"})
REMEDY = "put the dataset back as it was and resume the job, or start a new job over what is there now"


class FailureReason(StrEnum):
    """What can be wrong with a remote object."""

    ABSENT = "absent"
    NO_BUCKET = "no bucket"
    DENIED = "denied"
    FULL = "full"
    CHANGED = "changed"
    NO_RANGES = "no ranges"  # the server sends only whole files
    UNAVAILABLE = "unavailable"  # no connection, or 5xx, after all retries
    OTHER = "other"


class RemoteFailure(Exception):
    """What went wrong with a remote object; the caller translates it into terms of a dataset, an image or the store."""

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def failure_of_status(status: int, detail: str, code: str | None = None) -> RemoteFailure:
    """The failure that an HTTP status stands for; `code` is what an S3 server calls it, "" where it does not say, and
    None if it is no S3 server. In S3, 409 is a conflict with another call, which may pass, and 410 has no meaning."""
    if code == "NoSuchBucket":
        reason = FailureReason.NO_BUCKET
    elif code in FULL_CODES or status == 507:
        reason = FailureReason.FULL
    elif code in ABSENT_CODES or status == 404 or (status == 410 and code is None):
        reason = FailureReason.ABSENT
    elif code in DENIED_CODES or status in (401, 403):
        reason = FailureReason.DENIED
    elif status >= 500 or status == 429 or (status == 409 and code is not None):
        reason = FailureReason.UNAVAILABLE
    else:
        reason = FailureReason.OTHER
    return RemoteFailure(reason, detail)


@contextmanager
def connection_failures() -> Iterator[None]:
    """Raises RemoteFailure for what urllib3 raises in the block."""
    try:
        yield
    except HTTPError as error:
        raise failure_of_connection(error) from error


def failure_of_connection(error: HTTPError) -> RemoteFailure:
    """UNAVAILABLE, except for an address, which will be just as wrong the next time.

    A malformed header is not final: servers and gateways send such a Retry-After when they have too much to do.
    """
    if isinstance(error, LocationValueError):
        return RemoteFailure(FailureReason.OTHER, str(error))
    cause = error.reason if isinstance(error, MaxRetryError) else None
    return RemoteFailure(FailureReason.UNAVAILABLE, CONNECTION.sub("", str(cause or error)))


def check_version(before: str | None, now: str | None) -> None:
    """Raises CHANGED for parts of two versions, HTTPError for an answer that was cut off before it named its own."""
    if before and not now:
        raise HTTPError("the connection ended within the headers of an answer")
    if before and before != now:
        raise RemoteFailure(FailureReason.CHANGED, f"it was {before} and is {now} now")


def dataset_error(uri: str, failure: RemoteFailure) -> DatasetError:
    """Why the dataset at `uri` cannot be listed."""
    where, detail = f"dataset {uri}", failure.detail
    match failure.reason:
        case FailureReason.ABSENT | FailureReason.NO_BUCKET:
            return DatasetNotFound(f"{where}: there is nothing at this address ({detail}); check it")
        case FailureReason.DENIED:
            return DatasetUnreadable(
                f"{where}: access is denied ({detail}); check the credentials and their permissions"
            )
        case FailureReason.CHANGED:
            return DatasetChanged(f"{where} was replaced while it was read ({detail}); list it again")
        case FailureReason.NO_RANGES:
            return UnsupportedDataset(f"{where}: {detail}; copy it to a disk or to S3 and use that address")
        case _:
            return DatasetUnreadable(
                f"{where} cannot be read ({detail}); check that its server is running, then resume the job"
            )


def image_error(uri: str, failure: RemoteFailure, is_listed: bool) -> DatasetError | ImageError:
    """Why the image at `uri` cannot be read: its own error, or that of a dataset which is no longer what was listed."""
    detail = failure.detail
    match failure.reason:
        case FailureReason.ABSENT | FailureReason.NO_BUCKET:
            return missing_image(uri, is_listed)
        case FailureReason.DENIED:
            return SourceForbidden(f"{uri}: access is denied ({detail}); check the credentials and their permissions")
        case FailureReason.CHANGED:
            return DatasetChanged(f"{uri} was modified after it was listed ({detail}); {REMEDY}")
        case FailureReason.UNAVAILABLE | FailureReason.FULL:
            return DatasetUnreadable(
                f"{uri} cannot be read ({detail}); check that its server is running, then resume the job"
            )
        case _:
            return UnreadableImage(f"{uri} cannot be read: {detail}")


def missing_image(uri: str, is_listed: bool) -> DatasetChanged | SourceNotFound:
    if is_listed:
        return DatasetChanged(f"{uri} was there when the dataset was listed and is gone; {REMEDY}")
    return SourceNotFound(f"{uri}: there is no such file")


def store_error(store: str, key: str, failure: RemoteFailure) -> StoreError:
    """Why a call for `key` failed; `store` names the place and the server, "s3://bucket/prefix at https://host"."""
    detail = failure.detail
    match failure.reason:
        case FailureReason.ABSENT:
            return NotFound(f"nothing is stored under {key} in {store}")
        case FailureReason.NO_BUCKET:
            return StoreUnwritable(f"the store {store}: there is no such bucket; create it, then resume the job")
        case FailureReason.DENIED:
            return StoreUnwritable(
                f"the store {store} refuses access ({detail}); check KEEPMORE_S3_ACCESS_KEY and "
                "KEEPMORE_S3_SECRET_KEY, that they may read, write and list there, and this machine's clock; "
                "then resume the job"
            )
        case FailureReason.FULL:
            return StoreFull(
                f"the store {store} is full ({detail}); free some space or raise the quota, then resume the job"
            )
        case FailureReason.UNAVAILABLE:
            return StoreUnavailable(
                f"the store {store} cannot be reached ({detail}); check that it is running, then resume the job"
            )
        case FailureReason.CHANGED:
            return StoreError(f"the store {store}: {key} was replaced while it was read ({detail}); try again")
        case _:
            return StoreError(f"the store {store} failed at {key}: {detail}")
