"""Every store key, one function each. Nothing else in the project spells a key."""

from __future__ import annotations

from enum import StrEnum

from keepmore.spec import distance as distances

TOP = ("jobs", "active", "work", "objects", "features", "estimates", "idempotency")  # the first part of every key


class RequestKind(StrEnum):
    """Requests beside a job's own, by the folder that they lie in. An estimate belongs to no job: its id stands for
    one."""

    SUBSET = "subsets"
    TRAINING = "trainings"
    ADVICE = "advice"
    ESTIMATE = "estimates"


def requests_prefix(kind: RequestKind, job_id: str) -> str:
    return "estimates/" if kind is RequestKind.ESTIMATE else f"work/{job_id}/{kind}/"


def request(kind: RequestKind, job_id: str, request_id: str) -> str:
    """The request."""
    return f"{requests_prefix(kind, job_id)}{request_id}/request.json"


def request_error(kind: RequestKind, job_id: str, request_id: str) -> str:
    """The error, if there is no answer."""
    return f"{requests_prefix(kind, job_id)}{request_id}/error.json"


def request_id(key: str, prefix: str) -> str | None:
    """The id of the request below `prefix` that lies under `key`; None for other keys."""
    name = key.removeprefix(prefix).removesuffix("/request.json")
    return name if key == f"{prefix}{name}/request.json" and "/" not in name else None


def jobs_prefix() -> str:
    return "jobs/"


def job(job_id: str) -> str:
    return f"jobs/{job_id}.json"


def active_prefix() -> str:
    return "active/"


def active(name: str) -> str:
    """Marks a job, or an estimate, that still has work: so that looking after them does not mean reading every job in
    the store."""
    return f"active/{name}"


def work(job_id: str) -> str:
    return f"work/{job_id}/"


def ending(job_id: str, attempt: int) -> str:
    """How an attempt at a job ended: the first to write it decides."""
    return f"work/{job_id}/endings/{attempt:04d}.json"


def webhook(job_id: str) -> str:
    """Tries to tell the caller that the job ended."""
    return f"work/{job_id}/webhook.json"


def chunk(job_id: str, listing: str, number: int) -> str:
    """A chunk of one listing, because another listing may find another dataset. Numbers are padded so that keys sort as
    numbers do, up to 10^8 chunks.
    """
    return f"work/{job_id}/chunks/{listing}/{number:08d}.parquet"


def listing(job_id: str) -> str:
    return f"work/{job_id}/listing.json"


def codec_check(job_id: str) -> str:
    return f"work/{job_id}/check.json"


def parts_prefix(job_id: str) -> str:
    return f"work/{job_id}/parts/"


def part(job_id: str, number: int) -> str:
    return f"work/{job_id}/parts/{number:08d}.parquet"


def index(job_id: str) -> str:
    return f"work/{job_id}/index.parquet"


def evaluation(job_id: str) -> str:
    return f"work/{job_id}/evaluation.parquet"


def index_summary(job_id: str) -> str:
    """Written last by the index step, so it stands for both tables."""
    return f"work/{job_id}/index.json"


def subset(job_id: str, subset_id: str) -> str:
    return f"work/{job_id}/subsets/{subset_id}/subset.json"


def manifest(job_id: str, subset_id: str, variant: str) -> str:
    return f"work/{job_id}/subsets/{subset_id}/{variant}.parquet"


def fitted(job_id: str, subset_id: str, variant: str) -> str:
    """The distance at which the requested number of images fits, and the images there."""
    return f"work/{job_id}/subsets/{subset_id}/levels/{variant}.parquet"


def features(job_id: str, training_id: str, part: str) -> str:
    """Where features lie, and how many. `part` is a variant, "evaluation", or "evaluation@" and a distance."""
    return f"work/{job_id}/trainings/{training_id}/features/{part}.json"


def feature_cache(backbone: str, group: str) -> str:
    """The features of objects from one backbone, by checksum: all jobs and trainings share them. `group`, a variant or
    "evaluation", separates those that are seldom read together."""
    return f"features/{backbone}/{group}/"


def run(job_id: str, training_id: str, variant: str, seed: int) -> str:
    """The result of one seed of a fine-tuning."""
    return f"work/{job_id}/trainings/{training_id}/runs/{variant}-{seed}.npz"


def checkpoint(job_id: str, training_id: str, variant: str, seed: int) -> str:
    """The state of a fine-tuning, until it is over."""
    return f"work/{job_id}/trainings/{training_id}/checkpoints/{variant}-{seed}.pt"


def weights(job_id: str, training_id: str, variant: str, seed: int) -> str:
    return f"work/{job_id}/trainings/{training_id}/weights/{variant}-{seed}.safetensors"


def events(job_id: str, training_id: str, variant: str, seed: int) -> str:
    """For TensorBoard, one folder per run."""
    return f"work/{job_id}/trainings/{training_id}/events/{variant}-{seed}/events.out.tfevents.0"


def predictions(job_id: str, training_id: str, variant: str) -> str:
    return f"work/{job_id}/trainings/{training_id}/predictions/{variant}.npz"


def training(job_id: str, training_id: str, variant: str) -> str:
    return f"work/{job_id}/trainings/{training_id}/{variant}.json"


def comparison(job_id: str, training_id: str) -> str:
    """Written last in a training: every variant against the others."""
    return f"work/{job_id}/trainings/{training_id}/comparison.json"


def pilots(job_id: str, advice_id: str) -> str:
    """The images of pilot trainings at every distance."""
    return f"work/{job_id}/advice/{advice_id}/pilots.parquet"


def advice_page(job_id: str, advice_id: str) -> str:
    return f"work/{job_id}/advice/{advice_id}/advice.html"


def advice(job_id: str, advice_id: str) -> str:
    return f"work/{job_id}/advice/{advice_id}/advice.json"


def report(job_id: str) -> str:
    return f"work/{job_id}/report.json"


def report_page(job_id: str) -> str:
    return f"work/{job_id}/report.html"


def estimate(estimate_id: str) -> str:
    return f"estimates/{estimate_id}/estimate.json"


def idempotency(digest: str) -> str:
    """The answer to a request with an Idempotency-Key; `digest` stands for the key and the caller."""
    return f"idempotency/{digest}.json"


def objects() -> str:
    return "objects"


def objects_of(source_sha256: str) -> str:
    return f"objects/{source_sha256[:2]}/{source_sha256}"


def object(source_sha256: str, encoding: str, distance: float, effort: int, codec: str) -> str:  # noqa: A001
    """Where one stored encoding lies; only lossy ones depend on distance and effort, originals not on the codec."""
    folder = objects_of(source_sha256)
    if encoding == "original":
        return f"{folder}/original"
    if encoding == "lossless":
        return f"{folder}/lossless-{codec}.jxl"
    return f"{folder}/{encoding}-{distances.text(distance)}-e{effort}-{codec}.jxl"
