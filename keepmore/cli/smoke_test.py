"""A small job through a running service, from synthetic images to manifests that are counted again: does all of it
work?"""

from __future__ import annotations

import io
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from keepmore.answers import ReportAnswer
from keepmore.client import Client
from keepmore.errors import InternalError, InvalidRequest
from keepmore.net.access import Access
from keepmore.selection import manifest
from keepmore.selection.manifest import Metadata, Totals
from keepmore.storage.open import open_store
from keepmore.synthetic.dataset import write_sample

IMAGES_PER_CLASS = 4
DISTANCES = (0.0, 4.0, 10.0)
REQUEST = {
    "distances": list(DISTANCES),
    "budget": {"as_distance": 10, "fraction": 0.5},
    "selection": {"order": "random", "balance": True, "seed": 0},
}


def try_out(client: Client, place: str, access: Access, timeout_s: float, say: Callable[[str], None]) -> ReportAnswer:
    """Draw images into a new folder below `place`, s3://bucket/prefix, let the service keep half of their bytes at
    three distances, and count its manifests again; the images are deleted at the end, the job is not.

    Returns the job's report. Raises InternalError where the service's figures are wrong, and the error of a job that
    failed.
    """
    if not place.startswith("s3://"):
        raise InvalidRequest(f"--dataset {place}: the service reads it, so name an S3 place: s3://bucket/prefix")
    folder = f"{place.rstrip('/')}/{secrets.token_hex(4)}"
    store = open_store(folder, access)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "images"
        write_sample(root, train_per_class=IMAGES_PER_CLASS, test_per_class=0)
        images = {path.relative_to(root / "train").as_posix(): path.read_bytes() for path in root.rglob("*.jpg")}
    try:
        store.put_all(images)
        say(f"{len(images)} images are in {folder}")
        job = client.start({"dataset": folder, **REQUEST})["job"]
        say(f"job {job} is accepted")
        client.wait(job, timeout_s=timeout_s)
        report = client.report(job)
        _check(client, job, report, len(images))
        return report
    finally:
        for name in images:
            store.delete(name)


def _check(client: Client, job: str, report: ReportAnswer, images: int) -> None:
    """Raises InternalError unless every image is accounted for and each manifest states the totals of its rows."""
    if report["index"]["compressed"] != images:
        raise InternalError(f"job {job}: {report['index']['compressed']} of {images} images were compressed")
    for stated in report["distances"]:
        about, actual = _read_totals(client, job, stated["distance"])
        reported = Totals(stated["images"], stated["bytes"], stated["digest"])
        if not reported == about.totals == actual:
            raise InternalError(
                f"job {job}, distance {stated['distance']}: the report says {reported}, the manifest {about.totals}, "
                f"and its rows give {actual}"
            )
        if about.budget_bytes is not None and actual.bytes > about.budget_bytes:
            raise InternalError(f"job {job}, distance {stated['distance']}: {actual.bytes} bytes: over the budget")


def _read_totals(client: Client, job: str, distance: str) -> tuple[Metadata, Totals]:
    """The metadata of a manifest, and the totals of its rows."""
    file, digest, images, total = io.BytesIO(), manifest.Digest(), 0, 0
    client.download_manifest(job, distance, file)
    with manifest.open_manifest(file.getvalue()) as parquet:
        for batch in manifest.batches(parquet):
            digest.add(batch)
            images += len(batch)
            total += sum(batch["bytes"].to_pylist())
        return manifest.metadata(parquet), Totals(images, total, digest.hexdigest())
