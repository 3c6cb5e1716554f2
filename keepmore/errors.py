"""Every domain error: a stable code, a message a user can act on, and whether trying again can help.

KeepmoreError
├── InvalidRequest            the request itself is wrong
│   ├── UnknownField  MissingField  WrongType
│   ├── DistanceOutOfRange  DuplicateDistance  BudgetOutOfRange
│   ├── InvalidUri  SourceNotAllowed  AddressRefused
│   └── BudgetTooSmall        not even one image fits
├── DatasetError              the dataset as a whole cannot be used
│   ├── DatasetNotFound
│   ├── UnsupportedDataset
│   ├── InvalidTable
│   ├── DuplicateImage
│   ├── EndpointMissing
│   └── DatasetUnreadable  DatasetChanged     (retry helps once the dataset can be read, or is restored)
├── ImageError                one image cannot be used: a row in the errors list
│   ├── SourceNotFound  SourceForbidden  SourceTooLarge  TooManyPixels  UnreadableImage
│   └── SeveralFrames  UnsupportedMode  DecoderFailed
├── StoreError
│   ├── NotFound  RecordUnreadable
│   └── StoreFull  StoreUnwritable  StoreUnavailable    (retry helps once there is room, permission, or a connection)
├── JobError
│   ├── JobNotFound  SubsetNotFound  TrainingNotFound  AdviceNotFound  EstimateNotFound
│   ├── JobNotReady           (retry helps once the stage before is done)
│   ├── JobEnded  NothingToRetry  IdempotencyConflict
│   └── CountMismatch  Cancelled
├── TrainingError
│   └── TrainerMissing  WeightsUnavailable  UnknownModel  NotTrainable  PilotsInsufficient
├── QueueUnavailable          the queue cannot be reached (retry helps once it is back)
├── ServiceError              a service refuses what the client asked (no key, not allowed)
│   └── ServiceUnavailable    (retry helps once it is back)
├── PackageMissing            what this command needs is not installed
├── Stopping                  a worker hands its step on
├── WorkerLost                a worker process died more than once on one step (retry may help)
└── InternalError             a defect of ours; the message holds the traceback (a fixed release can go on)
"""

from __future__ import annotations

from typing import Any, ClassVar

from keepmore.answers import ErrorAnswer


class KeepmoreError(Exception):
    """Base of all errors that users of Keepmore may see."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False  # trying again can help, once what the message names is fixed
    transient: ClassVar[bool] = False  # it may disappear by itself: a service tries again before it gives up

    def __init__(self, reason: str, *, field: str | None = None, **details: Any) -> None:
        """`field`: the field of a request that is wrong, such as `training.steps`; `details`: plain data for programs,
        such as the stage that a job is in."""
        super().__init__(f"{field}: {reason}" if field else reason)
        self.reason = reason
        self.field = field
        self.details = details

    @property
    def message(self) -> str:
        """The field, if there is one, and the reason."""
        return str(self)

    def as_dict(self) -> ErrorAnswer:
        record: ErrorAnswer = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.field:
            record["field"] = self.field
        if self.details:
            record["details"] = self.details
        return record


class InvalidRequest(KeepmoreError):
    code = "invalid_request"


class UnknownField(InvalidRequest):
    code = "unknown_field"


class MissingField(InvalidRequest):
    code = "missing_field"


class WrongType(InvalidRequest):
    code = "wrong_type"


class PackageMissing(KeepmoreError):
    code = "package_missing"


class DistanceOutOfRange(InvalidRequest):
    code = "distance_out_of_range"


class DuplicateDistance(InvalidRequest):
    code = "duplicate_distance"


class BudgetOutOfRange(InvalidRequest):
    code = "budget_out_of_range"


class BudgetTooSmall(InvalidRequest):
    code = "budget_too_small"


class InvalidUri(InvalidRequest):
    code = "invalid_uri"


class SourceNotAllowed(InvalidRequest):
    code = "source_not_allowed"


class AddressRefused(InvalidRequest):
    code = "address_refused"


class DatasetError(KeepmoreError):
    code = "dataset_error"


class DatasetNotFound(DatasetError):
    code = "dataset_not_found"


class UnsupportedDataset(DatasetError):
    code = "unsupported_dataset"


class InvalidTable(DatasetError):
    code = "invalid_table"


class DuplicateImage(DatasetError):
    code = "duplicate_image"


class EndpointMissing(DatasetError):
    code = "endpoint_missing"


class DatasetUnreadable(DatasetError):
    code = "dataset_unreadable"
    retryable = True
    transient = True


class DatasetChanged(DatasetError):
    code = "dataset_changed"
    retryable = True


class ImageError(KeepmoreError):
    code = "image_error"


class SourceNotFound(ImageError):
    code = "source_not_found"


class SourceForbidden(ImageError):
    code = "source_forbidden"


class SourceTooLarge(ImageError):
    code = "source_too_large"


class TooManyPixels(ImageError):
    code = "too_many_pixels"


class UnreadableImage(ImageError):
    code = "unreadable_image"


class SeveralFrames(ImageError):
    code = "several_frames"


class UnsupportedMode(ImageError):
    code = "unsupported_mode"


class DecoderFailed(ImageError):
    code = "decoder_failed"


class StoreError(KeepmoreError):
    code = "store_error"


class NotFound(StoreError):
    code = "not_found"


class StoreFull(StoreError):
    code = "store_full"
    retryable = True


class RecordUnreadable(StoreError):
    code = "record_unreadable"


class StoreUnwritable(StoreError):
    code = "store_unwritable"
    retryable = True


class StoreUnavailable(StoreError):
    code = "store_unavailable"
    retryable = True
    transient = True


class JobError(KeepmoreError):
    code = "job_error"


class JobNotFound(JobError):
    code = "job_not_found"


class SubsetNotFound(JobError):
    code = "subset_not_found"


class TrainingNotFound(JobError):
    code = "training_not_found"


class AdviceNotFound(JobError):
    code = "advice_not_found"


class EstimateNotFound(JobError):
    code = "estimate_not_found"


class JobNotReady(JobError):
    code = "job_not_ready"
    retryable = True


class JobEnded(JobError):
    code = "job_ended"


class NothingToRetry(JobError):
    code = "nothing_to_retry"


class IdempotencyConflict(JobError):
    code = "idempotency_conflict"


class Stopping(KeepmoreError):
    code = "stopping"
    transient = True


class Cancelled(JobError):
    code = "cancelled"
    retryable = True


class CountMismatch(JobError):
    code = "count_mismatch"


class TrainingError(KeepmoreError):
    code = "training_error"


class TrainerMissing(TrainingError):
    code = "trainer_missing"
    retryable = True


class WeightsUnavailable(TrainingError):
    code = "weights_unavailable"
    retryable = True


class UnknownModel(TrainingError):
    code = "unknown_model"


class NotTrainable(TrainingError):
    code = "not_trainable"


class PilotsInsufficient(TrainingError):
    code = "pilots_insufficient"


class QueueUnavailable(KeepmoreError):
    code = "queue_unavailable"
    retryable = True
    transient = True


class ServiceError(KeepmoreError):
    code = "service_error"


class ServiceUnavailable(ServiceError):
    code = "service_unavailable"
    retryable = True


class WorkerLost(KeepmoreError):
    code = "worker_lost"
    retryable = True


class InternalError(KeepmoreError):
    code = "internal_error"
    retryable = True


def _classes_by_code(root: type[KeepmoreError]) -> dict[str, type[KeepmoreError]]:
    classes = {root.code: root}
    for child in root.__subclasses__():
        classes |= _classes_by_code(child)
    return classes


def is_known(code: str) -> bool:
    return code in _classes_by_code(KeepmoreError)


def from_dict(record: ErrorAnswer) -> KeepmoreError:
    """The error that `as_dict` serialised: errors are passed between processes like this."""
    kind = _classes_by_code(KeepmoreError).get(record["code"], InternalError)
    field = record.get("field")
    return kind(record["message"].removeprefix(f"{field}: "), field=field, **record.get("details", {}))
