"""A chunk of images becomes objects and rows."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keepmore.codec import jpegxl
from keepmore.codec import version as codec_version
from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.compression import index
from keepmore.compression.compressor import Compressor, EncodedImage, encodings, smallest
from keepmore.compression.index import EVALUATION, POOL, ChunkRow
from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import Skipped
from keepmore.datasets.listing import list_images
from keepmore.errors import DatasetChanged
from keepmore.progress import Progress
from keepmore.spec.job import Limits
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore

DISTANCES = (0.0, 1.0, 4.0, 10.0)


@pytest.fixture
def compressor(store: FolderStore, decoder: IsolatedDecoder) -> Compressor:
    return Compressor(store, DISTANCES, 3, Limits(), decoder)


def _rows(folder: Path, split: str = POOL) -> list[ChunkRow]:
    return [ChunkRow(split, entry) for entry in list_images(absolute_uri(str(folder)), Skipped())]


def _compress(compressor: Compressor, rows: list[ChunkRow]) -> list[dict[str, Any]]:
    table_rows: list[dict[str, Any]] = compressor.chunk(rows, lambda progress: None).to_pylist()
    return table_rows


def test_every_row_describes_its_objects(compressor: Compressor, store: FolderStore, sample: Path) -> None:
    """Else byte counts or checksums are wrong, and originals are deleted for objects that are not there."""
    for row in _compress(compressor, _rows(sample / "test" / "apple")):
        source = (sample / "test" / "apple" / row["path"]).read_bytes()
        assert row["source_sha256"] == hashlib.sha256(source).hexdigest()
        assert (row["bytes@0"], row["encoding@0"], row["sha256@0"]) == (len(source), "original", row["source_sha256"])
        for distance in DISTANCES[1:]:
            key = layout.object(row["source_sha256"], row[f"encoding@{distance:g}"], distance, 3, codec_version.codec())
            data = store.get(key)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (
                row[f"bytes@{distance:g}"],
                row[f"sha256@{distance:g}"],
            )
            assert jpegxl.decode(data, 10**7).size == (row["width"], row["height"])
            assert len(data) <= len(source)


def test_the_distance_that_the_encoder_got_is_recorded(compressor: Compressor, sample: Path) -> None:
    """Else nobody can tell that distance 10 was encoded just below it."""
    row = _compress(compressor, _rows(sample / "test" / "mug"))[0]
    assert row["encoder_distance@10"] == pytest.approx(9.999999, abs=1e-7)
    assert row["encoder_distance@10"] < 10
    assert row["encoder_distance@0"] is None


def test_compressing_again_is_a_cache_hit_with_the_same_rows(
    compressor: Compressor, store: FolderStore, sample: Path
) -> None:
    """Else a second job pays for every encoding again, or reports other bytes for it."""
    rows = _rows(sample / "test")
    first = _compress(compressor, rows)
    before = {key: (store.root / key).stat().st_mtime_ns for key in store.keys("objects/")}
    assert _compress(compressor, rows) == first
    assert {key: (store.root / key).stat().st_mtime_ns for key in store.keys("objects/")} == before


def test_isolated_decoding_gives_the_same_rows(compressor: Compressor, sample: Path, tmp_path: Path) -> None:
    """Else a job in which a worker once died has another digest than an undisturbed one."""
    rows = _rows(sample / "test" / "pear")
    first = _compress(compressor, rows)
    careful = Compressor(FolderStore(tmp_path / "other"), DISTANCES, 3, Limits(), compressor.decoder, isolate=True)
    assert _compress(careful, rows) == first


def test_nothing_larger_than_its_source_is_kept() -> None:
    """Else compressing makes a dataset of small files larger."""
    source, lossless, lossy = b"s" * 10, b"p" * 8, b"l" * 9
    assert smallest(source, lossy, lossless) == EncodedImage("lossless", lossless)
    assert smallest(source, lossy, None) == EncodedImage("lossy", lossy)
    assert smallest(source, b"l" * 11, b"p" * 12) == EncodedImage("original", source)
    assert smallest(source, b"l" * 10, None).encoding == "original", "of equals, the truest"


def test_small_distances_of_a_compressed_jpeg_are_kept_lossless(sample: Path, hostile: Path) -> None:
    """Else a quality-70 JPEG at distance 0.5 is stored larger than it was, with a second loss."""
    source = (hostile / "libjxl" / "bicycles_restarts.jpg").read_bytes()
    image = jpegxl.decode(source, 10**8)
    encoded = dict(encodings(image, source, (0.5, 10.0), 3))
    assert encoded[0.5].encoding == "lossless"
    assert jpegxl.restore(encoded[0.5].data) == source
    assert encoded[10.0].encoding == "lossy"


def test_a_tiny_original_is_kept_as_an_object(compressor: Compressor, store: FolderStore, tmp_path: Path) -> None:
    """Else the manifest points at the source, and deleting originals deletes the only copy."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    Image.new("L", (1, 1)).save(folder / "1.gif")
    row = _compress(compressor, _rows(folder))[0]
    assert row["encoding@4"] == "original"
    assert (
        store.get(layout.object(row["source_sha256"], "original", 4, 3, codec_version.codec()))
        == (folder / "1.gif").read_bytes()
    )


def test_an_image_that_cannot_be_read_is_a_row(compressor: Compressor, sample: Path, tmp_path: Path) -> None:
    """Else one bad file stops a job, or vanishes from its counts."""
    folder = tmp_path / "mixed"
    shutil.copytree(sample / "test" / "fish", folder)
    (folder / "a.jpg").write_bytes(b"no image")
    (folder / "empty.png").write_bytes(b"")
    rows = _compress(compressor, _rows(folder))
    assert len(rows) == 5
    bad = {row["path"]: row for row in rows if row["error_code"]}
    assert set(bad) == {"a.jpg", "empty.png"}
    assert bad["empty.png"]["error"] == "the file is empty"
    assert bad["a.jpg"]["bytes@4"] is None


def test_evaluation_images_are_read_and_never_encoded(compressor: Compressor, store: FolderStore, sample: Path) -> None:
    """Else test images are compressed, and the accuracy is measured on other pictures than the user's."""
    rows = _compress(compressor, _rows(sample / "test" / "leaf", EVALUATION))
    assert all(row["bytes@0"] and row["bytes@4"] is None for row in rows)
    assert list(store.keys("objects/")) == []


def test_a_dataset_that_changed_stops_the_chunk(compressor: Compressor, sample: Path, tmp_path: Path) -> None:
    """Else a job over a dataset that somebody is editing ends with a digest of neither state."""
    folder = tmp_path / "copy"
    shutil.copytree(sample / "test" / "fish", folder)
    rows = _rows(folder)
    min(folder.iterdir()).write_bytes(b"changed")
    with pytest.raises(DatasetChanged, match="resume the job"):
        _compress(compressor, rows)


def test_progress_adds_up(compressor: Compressor, sample: Path) -> None:
    """Else the time left and the rates that a user sees are made up."""
    reports: list[Progress] = []
    rows = _rows(sample / "test" / "apple")
    table = compressor.chunk(rows, reports.append)
    assert sum(p.images for p in reports) == len(rows)
    assert sum(p.bytes_in for p in reports) == sum(table["source_bytes"].to_pylist())
    encoded_bytes = sum(sum(table[index.column("bytes", d)].to_pylist()) for d in DISTANCES[1:])
    assert sum(p.bytes_out for p in reports) == encoded_bytes


def test_what_is_kept_does_not_depend_on_earlier_jobs_or_other_distances(
    decoder: IsolatedDecoder, hostile: Path, tmp_path: Path
) -> None:
    """Else one request has two digests, depending on what the store held before."""
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(hostile / "libjxl" / "bicycles_restarts.jpg", folder / "1.jpg")

    def checksums(store: str, *distances: float) -> Any:
        compressor = Compressor(FolderStore(tmp_path / store), distances, 3, Limits(), decoder)
        return [_compress(compressor, _rows(folder))[0][f"sha256@{d:g}"] for d in distances]

    alone = [checksums(f"alone {d}", d)[0] for d in (0.5, 2.0, 3.0)]
    assert checksums("together", 0.5, 2.0, 3.0) == alone
    assert checksums("alone 2.0", 0.5, 2.0, 3.0) == alone


def test_the_cap_holds_for_images_that_an_earlier_job_stored(compressor: Compressor, sample: Path) -> None:
    """Else the same request fails images on a new store and keeps them on an old one."""
    rows = _rows(sample / "test" / "mug")
    _compress(compressor, rows)
    compressor.limits = Limits(max_pixels=1000)
    assert {row["error_code"] for row in _compress(compressor, rows)} == {"too_many_pixels"}


def test_another_distance_encodes_that_one_alone(store: FolderStore, decoder: IsolatedDecoder, sample: Path) -> None:
    """Else adding a distance to a job of a week takes another week."""
    rows = _rows(sample / "test" / "apple")[:1]
    (first,) = _compress(Compressor(store, (4.0,), 3, Limits(), decoder), rows)
    key = layout.object(first["source_sha256"], "lossy", 4.0, 3, codec_version.codec())
    other = jpegxl.encode(jpegxl.decode(store.get(key), 10**7), 5.0, 3)  # what is encoded anew would differ from it
    store.put(key, other)
    (again,) = _compress(Compressor(store, (2.0, 4.0, 10.0), 3, Limits(), decoder), rows)
    assert again["sha256@4"] == hashlib.sha256(other).hexdigest()
    assert again["bytes@2"] > again["bytes@10"]


@pytest.mark.parametrize("damage", [b"", b"\xff\x0a rubbish"])
def test_a_damaged_object_is_written_again(
    compressor: Compressor, store: FolderStore, sample: Path, damage: bytes
) -> None:
    """Else damage in a store spreads into the manifests of every later job, and cannot be fixed."""
    rows = _rows(sample / "test" / "mug")
    first = _compress(compressor, rows)
    for key in list(store.keys("objects/")):
        store.put(key, damage)
    assert _compress(compressor, rows) == first
    key = layout.object(first[0]["source_sha256"], first[0]["encoding@4"], 4, 3, codec_version.codec())
    assert hashlib.sha256(store.get(key)).hexdigest() == first[0]["sha256@4"]
