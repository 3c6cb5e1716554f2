"""Every domain error: a stable code, a message a user can act on, and whether trying again can help.

KeepmoreError
├── InvalidRequest            the request itself is wrong
│   └── BudgetTooSmall        not even one image fits
├── DatasetError              the dataset as a whole cannot be used
│   ├── DatasetNotFound
│   ├── UnsupportedDataset
│   ├── InvalidTable
│   ├── DuplicateImage
│   └── DatasetUnreadable  DatasetChanged     (retry helps once the dataset can be read, or is restored)
├── ImageError                one image cannot be used: a row in the errors list
│   ├── SourceNotFound  SourceTooLarge  TooManyPixels  UnreadableImage
│   └── SeveralFrames  UnsupportedMode  DecoderFailed
├── StoreError
│   ├── NotFound
│   └── StoreFull  StoreUnwritable      (retry helps once there is room, or permission)
├── JobError
│   └── JobNotFound  JobNotReady  CountMismatch
├── TrainingError
│   └── TrainerMissing  WeightsUnavailable  UnknownModel  NotTrainable
├── WorkerLost                a worker process died more than once on one step (retry may help)
└── InternalError             a defect of ours; the message holds the traceback (a mended release can go on)
"""

from __future__ import annotations

from typing import Any, ClassVar


class KeepmoreError(Exception):
    """Base of all errors that a user of Keepmore is meant to see."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    @property
    def message(self) -> str:
        return str(self)

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


class InvalidRequest(KeepmoreError):
    code = "invalid_request"


class BudgetTooSmall(InvalidRequest):
    code = "budget_too_small"


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


class DatasetUnreadable(DatasetError):
    code = "dataset_unreadable"
    retryable = True


class DatasetChanged(DatasetError):
    code = "dataset_changed"
    retryable = True


class ImageError(KeepmoreError):
    code = "image_error"


class SourceNotFound(ImageError):
    code = "source_not_found"


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


class StoreUnwritable(StoreError):
    code = "store_unwritable"
    retryable = True


class JobError(KeepmoreError):
    code = "job_error"


class JobNotFound(JobError):
    code = "job_not_found"


class JobNotReady(JobError):
    code = "job_not_ready"
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


class WorkerLost(KeepmoreError):
    code = "worker_lost"
    retryable = True


class InternalError(KeepmoreError):
    code = "internal_error"
    retryable = True


def _tree(root: type[KeepmoreError]) -> dict[str, type[KeepmoreError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def from_dict(data: dict[str, Any]) -> KeepmoreError:
    """The error that `as_dict` wrote down: how errors travel between processes."""
    return _tree(KeepmoreError).get(data["code"], InternalError)(data["message"])
