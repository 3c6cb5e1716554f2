"""What went wrong on another machine, in the words of whoever named the dataset or the image."""

from __future__ import annotations

from keepmore.errors import (
    DatasetChanged,
    DatasetError,
    DatasetNotFound,
    DatasetUnreadable,
    ImageError,
    SourceForbidden,
    SourceNotFound,
    UnreadableImage,
    UnsupportedDataset,
)
from keepmore.net.failure import FailureReason, RemoteFailure

REMEDY = "put the dataset back as it was and resume the job, or start a new job over what is there now"


def dataset_error(uri: str, failure: RemoteFailure) -> DatasetError:
    """Why the dataset at `uri` cannot be listed."""
    where, detail = f"dataset {uri}", failure.detail
    match failure.why:
        case FailureReason.ABSENT | FailureReason.NO_BUCKET:
            return DatasetNotFound(f"{where}: there is nothing at this address ({detail}); check it")
        case FailureReason.DENIED:
            return DatasetUnreadable(
                f"{where}: access is denied ({detail}); check the credentials, and what they permit"
            )
        case FailureReason.CHANGED:
            return DatasetChanged(f"{where} was replaced while it was read ({detail}); list it again")
        case FailureReason.NO_RANGES:
            return UnsupportedDataset(f"{where}: {detail}; copy it to a disk or to S3, and name it there")
        case _:
            return DatasetUnreadable(
                f"{where} cannot be read ({detail}); see that its server runs, then resume the job"
            )


def source_error(uri: str, failure: RemoteFailure, listed: bool) -> DatasetError | ImageError:
    """Why the image at `uri` cannot be read: its own error, or that of a dataset which is no longer what was listed."""
    detail = failure.detail
    match failure.why:
        case FailureReason.ABSENT | FailureReason.NO_BUCKET:
            return missing(uri, listed)
        case FailureReason.DENIED:
            return SourceForbidden(f"{uri}: access is denied ({detail}); check the credentials and their rights")
        case FailureReason.CHANGED:
            return DatasetChanged(f"{uri} was modified after it was listed ({detail}); {REMEDY}")
        case FailureReason.UNAVAILABLE:
            return DatasetUnreadable(f"{uri} cannot be read ({detail}); see that its server runs, then resume the job")
        case _:
            return UnreadableImage(f"{uri} cannot be read: {detail}")


def missing(uri: str, listed: bool) -> DatasetChanged | SourceNotFound:
    if listed:
        return DatasetChanged(f"{uri} was there when the dataset was listed and is gone; {REMEDY}")
    return SourceNotFound(f"{uri}: there is no such file")
