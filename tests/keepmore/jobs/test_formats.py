"""What an earlier release wrote is read by this one: a store of 0.1.0, without its objects and its report's page."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keepmore.codec import version as codec_version
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.config import RuntimeConfig
from keepmore.errors import InvalidRequest, RecordUnreadable, StoreError
from keepmore.jobs.job import Job, JobRepository, State
from keepmore.jobs.requests import request_subset, subset_request
from keepmore.jobs.step import Kind, Step
from keepmore.pipeline.context import StepContext
from keepmore.pipeline.runner import run_step
from keepmore.reporting import report
from keepmore.reporting.figures import figures
from keepmore.scheduling import status
from keepmore.selection import manifest
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import Selection, SubsetRequest
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore
from keepmore.storage.layout import RequestKind
from tests.conftest import Command

FIRST = Path(__file__).parents[2] / "data" / "store-0.1.0.tar"
DIGESTS = {
    "0": "0e10526f6daaa373a23f4a804ceca914b3adba85f79edc0bcda1fbc204fd5de8",
    "4": "8dc811d521ae71c873826bc6c5ce395d0c4fc3d648a4db79fe16276d08e1a7cb",
    "10": "dfe55ab0a12b9140e876c1c99ebbdf81a70b8c0aecc817563d4f6024a22b2033",
}

# What 0.1.0 itself came to over the same images.
INTERRUPTED = FIRST.with_name("job-0.1.0.tar.xz")
RESUMED_DIGESTS = {
    "0": "ed087374edae95793146705273bd5e2917ea0eaf9d8c95711342083b244ff7da",
    "4": "e55a28368d8922cf24e5f6fcd541a523f83f494796897d1d97a5f3b256ac8758",
    "10": "2ee0454ce490fb4c934b475661e0ee5a1752a182bdecb386202b6df013e5753f",
}


@pytest.fixture
def old_store(tmp_path: Path) -> FolderStore:
    with tarfile.open(FIRST) as archive:
        archive.extractall(tmp_path / "store", filter="data")
    return FolderStore(tmp_path / "store")


@pytest.fixture
def job(old_store: FolderStore) -> Job:
    (name,) = JobRepository(old_store).ids()
    return JobRepository(old_store).get(name)


def _digests(store: FolderStore, job: Job, subset: str) -> dict[str, str]:
    digests = {}
    for variant in job.request.variants:
        digest = manifest.Digest()
        with manifest.open_manifest(store.get(layout.manifest(job.id, subset, variant))) as parquet:
            for batch in manifest.batches(parquet):
                digest.add(batch)
            assert manifest.metadata(parquet).totals.digest == digest.hexdigest()
        digests[variant] = digest.hexdigest()
    return digests


def test_a_finished_job_is_shown_as_it_was(old_store: FolderStore, job: Job) -> None:
    """Else an upgrade loses the record of what was kept."""
    assert (job.state, job.keepmore, job.request.distances) == (State.SUCCEEDED, "0.1.0", (0, 4, 10))
    job_status = status.status(job, old_store)
    assert (job_status.job.state, job_status.image_count) == (State.SUCCEEDED, 25)
    training = status.training_status(job, job.request.training_id, old_store).as_json()
    assert {distance: len(one["top1_by_seed"]) for distance, one in training["distances"].items()} == {
        "4": 2,
        "10": 2,
        "0": 2,
    }
    errors = list(index.errors(old_store, layout.index(job.id), layout.evaluation(job.id)))
    assert [image.path for image in errors] == ["apple/broken.jpg"]


def test_its_report_is_still_drawn(old_store: FolderStore, job: Job) -> None:
    """Else a job that is finished after an upgrade has no report, because its results lack what later ones have."""
    page = report.html(json.loads(old_store.get(layout.report(job.id))), [])
    assert "whether by chance was not tested" in page
    assert "spread of seeds" in page
    step = Step(job.id, Kind.COMPARE, job.request.training_id)
    old_store.put(step.output, b'{"format": 1, "comparisons": []}')
    results = figures(job, old_store).as_json()
    assert results["comparison"]["comparisons"] == []
    assert "Which distances differ" not in report.html(results, [])


def test_its_manifests_have_the_digests_that_they_state(old_store: FolderStore, job: Job) -> None:
    """Else originals that were deleted by them have no proof any more."""
    assert _digests(old_store, job, job.request.subset_id) == DIGESTS


def test_another_budget_over_its_index_gives_what_it_gave(
    old_store: FolderStore, job: Job, decoder: IsolatedDecoder, tmp_path: Path
) -> None:
    """Else a question to an older index is answered differently after an upgrade."""
    (other,) = {one["subset"] for one in status.subsets(job, old_store)} - {job.request.subset_id}
    before = _digests(old_store, job, other)
    for key in list(old_store.keys(f"work/{job.id}/subsets/{other}/")):
        old_store.delete(key)
    step = request_subset(job, old_store, SubsetRequest(BytesBudget(60_000), Selection()))
    assert step.part == other
    run_step(step, old_store, StepContext.at(RuntimeConfig(str(old_store.root)), decoder, lambda progress: None))
    assert _digests(old_store, job, other) == before


def test_a_job_that_it_left_unfinished_is_finished(old_store: FolderStore, job: Job, decoder: IsolatedDecoder) -> None:
    """Else an upgrade in the middle of a job costs all that was compressed, or changes what is kept."""
    for key in list(old_store.keys(f"work/{job.id}/")):
        if "/chunks/" not in key and "/parts/" not in key and not key.endswith("listing.json"):
            old_store.delete(key)
    JobRepository(old_store).retry(job)
    context = StepContext.at(RuntimeConfig(str(old_store.root)), decoder, lambda progress: None)
    for step in (Step(job.id, Kind.INDEX), Step(job.id, Kind.SELECT, job.request.subset_id)):
        run_step(step, old_store, context)
    assert _digests(old_store, job, job.request.subset_id) == DIGESTS


def test_what_a_later_release_wrote_is_refused_by_name(old_store: FolderStore, job: Job) -> None:
    """Else a release that was rolled back misreads what the newer one wrote."""
    record = json.loads(old_store.get(layout.job(job.id)))
    old_store.put(layout.job(job.id), json.dumps(record | {"format": 2}).encode())
    with pytest.raises(RecordUnreadable, match="format 2"):
        JobRepository(old_store).get(job.id)
    entry = JobRepository(old_store).record_for_list(job.id)
    assert (entry["id"], entry["state"]) == (job.id, "unreadable")
    assert entry["error"] is not None
    assert entry["error"]["code"] == "record_unreadable"
    key = layout.index(job.id)
    table = pq.read_table(pa.BufferReader(old_store.get(key)))
    old_store.put(key, index.to_parquet(table.replace_schema_metadata({index.METADATA: b'{"format": 2}'})))
    with pytest.raises(StoreError, match="format 2"):
        list(index.rows(old_store, key))
    key = layout.manifest(job.id, job.request.subset_id, "4")
    with pytest.raises(InvalidRequest, match="format 2"):
        list(manifest.rows(old_store.get(key).replace(b'{"format": 1', b'{"format": 2')))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("selection", "order"), "largest"),
        (("selection", "order"), None),
        (("effort",), 3.5),
        (("distances",), [0, {"cap": 4000}]),
        (("limits", "max_pixels"), 10**12),
    ],
    ids=["order", "null", "fraction", "rule", "limit"],
)
def test_a_job_with_values_of_a_later_release_is_named_and_hides_no_other(
    path: tuple[str, ...], value: Any, old_store: FolderStore, job: Job
) -> None:
    """Else one job of a newer release takes away the list of all, and whoever asks for it is told to change a field."""
    record = json.loads(old_store.get(layout.job(job.id)))
    parent = record["request"]
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    old_store.put(layout.job(job.id), json.dumps(record).encode())
    with pytest.raises(RecordUnreadable, match=rf"jobs/{job.id}.json is not a job record of this release \({path[0]}"):
        JobRepository(old_store).get(job.id)
    assert JobRepository(old_store).record_for_list(job.id)["state"] == "unreadable"


def test_a_request_with_values_of_a_later_release_is_named(old_store: FolderStore, job: Job) -> None:
    """Else whoever looks at a subset is told to change an order that they did not write."""
    (other,) = {one["subset"] for one in status.subsets(job, old_store)} - {job.request.subset_id}
    key = layout.request(RequestKind.SUBSET, job.id, other)
    record = json.loads(old_store.get(key))
    record["selection"]["order"] = "largest"
    old_store.put(key, json.dumps(record).encode())
    with pytest.raises(RecordUnreadable, match=rf"{other}/request.json is not a request of this release"):
        subset_request(job, other, old_store)


def test_formats_are_stamped(old_store: FolderStore, job: Job) -> None:
    """Else no later release can tell what it reads."""
    with old_store.open(layout.index(job.id)) as file:
        stamp = json.loads(pq.read_schema(file).metadata[index.METADATA])
    assert stamp["format"] == 1
    assert set(stamp["versions"]) == set(codec_version.versions())
    assert json.loads(old_store.get(layout.job(job.id)))["format"] == 1


@pytest.fixture
def interrupted_job(tmp_path: Path) -> tuple[FolderStore, str]:
    """A job of 0.1.0 that was killed when one of its two chunks was compressed, with its images; and its id."""
    with tarfile.open(INTERRUPTED) as archive:
        archive.extractall(tmp_path, filter="data")
    store, sources = FolderStore(tmp_path / "store"), tmp_path.as_uri()
    (name,) = JobRepository(store).ids()
    store.put(layout.job(name), store.get(layout.job(name)).replace(b"file:///SOURCES", f"{sources}/images".encode()))
    for key in list(store.keys(f"work/{name}/")):
        if key.endswith(".parquet"):
            store.put(key, _with_sources(store.get(key), f"{sources}/images"))
    return store, name


def _with_sources(data: bytes, sources: str) -> bytes:
    """A table whose images lie somewhere else."""
    table = pq.read_table(pa.BufferReader(data))
    for place, name in enumerate(table.schema.names):
        if name.endswith("uri"):
            uris = [uri and uri.replace("file:///SOURCES", sources) for uri in table[name].to_pylist()]
            table = table.set_column(place, name, pa.array(uris, pa.string()))
    return index.to_parquet(table)


def test_a_job_that_it_was_killed_in_is_resumed_read_and_verified(
    interrupted_job: tuple[FolderStore, str], keepmore: Command
) -> None:
    """Else an upgrade in the middle of a job encodes everything again, or keeps other images than were promised."""
    store, job = interrupted_job
    place = ("--store", str(store.root))
    before = set(store.keys("objects/"))
    process = keepmore("resume", job, "--json", *place)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout)
    assert (report["index"]["listed"], report["index"]["compressed"], report["index"]["failed"]) == (25, 24, 1)
    assert {row["distance"]: row["digest"] for row in report["distances"]} == RESUMED_DIGESTS
    assert before <= set(store.keys("objects/")), "what the earlier release encoded is used"
    for distance in RESUMED_DIGESTS:
        process = keepmore("verify", f"{job}/{distance}", *place)
        assert process.returncode == 0, process.stdout
