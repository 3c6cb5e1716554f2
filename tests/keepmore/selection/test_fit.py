"""The fit step: the distance at which exactly so many images fill a budget, found by encoding real images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmore.codec import version as codec_version
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.compression.batch import BatchEncoder
from keepmore.compression.compressor import Compressor
from keepmore.compression.index import POOL, ChunkRow
from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import BudgetTooSmall, Cancelled, DatasetChanged, InvalidRequest, StoreError
from keepmore.net.access import Access
from keepmore.progress import Progress
from keepmore.sampling import path_hash
from keepmore.selection import fit
from keepmore.selection.fit import FitResult
from keepmore.selection.pool import in_order, read_originals
from keepmore.spec.distance import SMALLEST
from keepmore.spec.job import Limits, Selection
from keepmore.spec.variants import FitCount
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore

pytestmark = pytest.mark.slow

INDEX = layout.index("job")


@pytest.fixture(scope="module")
def indexed_store(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """A store with an index of 48 images that were compressed at no distance but 0."""
    return _write_index(FolderStore(tmp_path_factory.mktemp("indexed")), sample / "train")


def _write_index(store: FolderStore, dataset: Path) -> FolderStore:
    rows = [ChunkRow(POOL, entry) for entry in list_images(dataset.as_uri(), Skipped(), Access())]
    with IsolatedDecoder() as decoder, store.writer(INDEX) as file:
        table = Compressor(store, (0.0,), 3, Limits(), decoder).chunk(rows, lambda progress: None)
        pq.write_table(table, file, row_group_size=7)
    return store


def _encoder(store: FolderStore, reports: list[Progress] | None = None, threads: int = 2) -> BatchEncoder:
    reports = reports if reports is not None else []
    return BatchEncoder(store, 3, Limits(), Access(), False, reports.append, threads)


def _fit(
    store: FolderStore, images: int, budget: int, selection: Selection | None = None
) -> tuple[FitResult, pa.Table]:
    key = f"work/job/{images}-{budget}.parquet"
    store.put(key, fit.find(_encoder(store), INDEX, FitCount(images), budget, selection or Selection()))
    return fit.read(store, key)


def _order(store: FolderStore, selection: Selection) -> list[int]:
    pool = read_originals(store, INDEX)
    rows: list[int] = pool.rows[in_order(pool, selection, pool.bytes[0.0])].tolist()
    return rows


@given(images=st.integers(1, 30), share=st.floats(0.15, 0.9), smallest=st.booleans())
@settings(max_examples=6)
def test_exactly_so_many_images_fit_and_no_more(
    indexed_store: FolderStore, images: int, share: float, smallest: bool
) -> None:
    """Else a variant has another number of images than it is compared for, or is over the budget."""
    selection = Selection("smallest" if smallest else "random")
    pool = read_originals(indexed_store, INDEX)
    order = _order(indexed_store, selection)
    originals = sum(int(pool.bytes[0.0][pool.rows.tolist().index(row)]) for row in order[:images])
    budget = int(originals * share)
    result, rows = _fit(indexed_store, images, budget, selection)
    assert rows["row"].to_pylist() == sorted(order[:images])
    sizes = _sizes(indexed_store, order[: images + 1], result.distance)
    assert sum(sizes[:-1]) == sum(rows["bytes"].to_pylist()) <= budget
    assert (sum(sizes) > budget) is result.exact
    if not result.exact and result.distance > SMALLEST:  # the encoder's sizes jump at some distances
        assert sum(_sizes(indexed_store, order[:images], 0.98 * result.distance)) > budget


def _sizes(store: FolderStore, rows: list[int], distance: float) -> list[int]:
    """Bytes of images of the index at a distance."""
    table = pa.Table.from_batches(index.rows(store, INDEX, ["path", "source_uri", "source_bytes"]))
    chunk_rows = [
        ChunkRow(POOL, Entry(row["path"], row["source_uri"], None, row["source_bytes"]))
        for row in table.take(rows).to_pylist()
    ]
    with IsolatedDecoder() as decoder:
        part = Compressor(store, (distance,), 3, Limits(), decoder).chunk(chunk_rows, lambda progress: None)
    sizes: list[int] = part[index.column("bytes", distance)].to_pylist()
    return sizes


def test_a_jump_of_the_encoder_is_reported(indexed_store: FolderStore) -> None:
    """Else a user believes that a budget is filled when it is not."""
    order = _order(indexed_store, Selection())[:11]
    near, far = (sum(_sizes(indexed_store, order, distance)) for distance in (1.474, 1.475))
    if near < 1.1 * far:
        pytest.skip("this codec has no jump there")
    result, rows = _fit(indexed_store, 11, near - 1)
    assert result.distance == 1.475
    assert not result.exact
    assert (len(rows), sum(rows["bytes"].to_pylist())) == (11, far)


def test_every_row_names_an_object_that_is_there(indexed_store: FolderStore) -> None:
    """Else a manifest names objects of a trial that was not taken."""
    result, rows = _fit(indexed_store, 20, 250_000)
    batches = pa.Table.from_batches(index.rows(indexed_store, INDEX)).take(rows["row"]).to_pylist()
    for row, index_row in zip(rows.to_pylist(), batches, strict=True):
        assert row["path"] == index_row["path"]
        key = layout.object(index_row["source_sha256"], row["encoding"], result.distance, 3, codec_version.codec())
        data = indexed_store.get(key)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
        assert row["encoder_distance"] == pytest.approx(result.distance, rel=1e-6)
    assert len(repr(result.distance)) <= 6, "keys stay short"


def test_a_repeated_step_finds_the_same_and_encodes_nothing_again(sample: Path, tmp_path: Path) -> None:
    """Else a worker that is lost at the end costs the whole search, or a retry makes another subset."""
    store = _write_index(FolderStore(tmp_path / "own"), sample / "test")
    first = fit.find(_encoder(store, threads=3), INDEX, FitCount(12), 150_000, Selection())
    before = {path: path.stat().st_mtime_ns for path in (store.root / "objects").rglob("*.jxl")}
    reports: list[Progress] = []
    assert fit.find(_encoder(store, reports, threads=1), INDEX, FitCount(12), 150_000, Selection()) == first
    assert {path: path.stat().st_mtime_ns for path in (store.root / "objects").rglob("*.jxl")} == before
    assert sum(progress.encode_s for progress in reports) < 0.05 * len(reports)


def test_originals_that_fit_stay_as_they_are(indexed_store: FolderStore) -> None:
    """Else images lose quality where nothing is gained by it."""
    result, rows = _fit(indexed_store, 5, 10**9)
    assert result == FitResult(0.0, False, 0)
    assert set(rows["encoding"].to_pylist()) == {"original"}
    sizes = rows["bytes"].to_pylist()
    exact, _ = _fit(indexed_store, 5, sum(sizes))
    assert exact == FitResult(0.0, True, 0)


def test_all_images_of_the_pool_can_be_fitted(indexed_store: FolderStore) -> None:
    """Else the one distance that a user most often wants, for all images, cannot be had, or wastes the budget."""
    result, rows = _fit(indexed_store, 48, 400_000)
    assert len(rows) == 48
    assert result.exact
    assert 400_000 * 47 / 48 < sum(rows["bytes"].to_pylist()) <= 400_000


def test_what_cannot_be_fitted_says_why(indexed_store: FolderStore) -> None:
    """Else a job fails for an unknown reason, or goes over its budget."""
    with pytest.raises(InvalidRequest, match="fit:49 is not possible: the pool has 48 images"):
        _fit(indexed_store, 49, 10**6)
    with pytest.raises(BudgetTooSmall, match="do not hold 20 images at any distance; they take"):
        _fit(indexed_store, 20, 10_000)


def test_a_source_that_changed_is_noticed(sample: Path, tmp_path: Path) -> None:
    """Else a subset holds images that nobody compressed before, under checksums of others."""
    folder = tmp_path / "images"
    for source in (sample / "test").rglob("*.jpg"):
        target = folder / source.relative_to(sample / "test")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    store = _write_index(FolderStore(tmp_path / "own"), folder)
    files = sorted(folder.rglob("*.jpg"))
    original = files[0].read_bytes()
    for data in (files[1].read_bytes(), original[: len(original) // 2]):
        files[0].write_bytes(data)
        with pytest.raises(DatasetChanged, match=r"put .* back"):
            fit.find(_encoder(store), INDEX, FitCount(24), 150_000, Selection())
    files[0].write_bytes(original)
    files[0].unlink()
    with pytest.raises(DatasetChanged, match=r"put .* back"):
        fit.find(_encoder(store), INDEX, FitCount(24), 150_000, Selection())


def test_a_cancelled_step_stops_within_an_image(indexed_store: FolderStore) -> None:
    """Else a cancelled job goes on encoding for hours."""
    reports = []

    def report(progress: Progress) -> None:
        reports.append(progress)
        if len(reports) >= 3:
            raise Cancelled("nobody waits for it")

    with pytest.raises(Cancelled):
        fit.find(
            BatchEncoder(indexed_store, 3, Limits(), Access(), False, report, 2),
            INDEX,
            FitCount(40),
            300_000,
            Selection(),
        )
    assert len(reports) <= 5


def test_a_damaged_result_is_an_error(store: FolderStore) -> None:
    """Else a select step fails with a traceback of another library."""
    store.put("work/job/x.parquet", b"PAR1 and no more")
    with pytest.raises(StoreError, match="resume the job"):
        fit.read(store, "work/job/x.parquet")


def test_the_order_is_that_of_the_other_variants(indexed_store: FolderStore) -> None:
    """Else a fit is compared with other images than the fixed distances keep."""
    hashes = read_originals(indexed_store, INDEX).path_hashes.tolist()
    paths = [row["path"] for batch in index.rows(indexed_store, INDEX, ["path"]) for row in batch.to_pylist()]
    assert hashes == [path_hash(path) for path in paths]
    labels = {paths[row].split("/")[0] for row in _order(indexed_store, Selection())[:8]}
    assert len(labels) == 8, "one of each class first"
