"""Chunks, parts and their merge."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keepmore.codec import version as codec_version
from keepmore.compression import chunking, index, merge
from keepmore.compression.index import EVALUATION, POOL, ChunkRow, Summary
from keepmore.datasets.entry import Entry
from keepmore.errors import CountMismatch, DatasetNotFound, DuplicateImage, StoreError
from keepmore.net.access import EVERYTHING
from keepmore.sampling import path_hash, ranks
from keepmore.spec.job import Evaluation, Request
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore

DISTANCES = (0.0, 4.0)


def _part(store: FolderStore, number: int, *rows: dict[str, Any]) -> str:
    key = layout.part("job", number)
    table = pa.Table.from_pylist(list(rows), index.schema(DISTANCES))
    store.put(key, index.to_parquet(table))
    return key


def _row(path: str, split: str = POOL, size: int = 100, label: str | None = "a", sha: str = "00") -> dict[str, Any]:
    return {"split": split, "path": path, "label": label, "source_bytes": size, "source_sha256": sha} | {
        "bytes@0": size,
        "encoding@0": "original",
        "bytes@4": None if split == EVALUATION else size // 2,
        "encoding@4": None if split == EVALUATION else "lossy",
    }


def _merge(store: FolderStore, parts: list[str], pool: int, evaluation: int = 0) -> Summary:
    counts = {POOL: pool, EVALUATION: evaluation}
    return merge.merge(store, parts, counts, DISTANCES, layout.index("job"), layout.evaluation("job"))


def test_merging_counts_every_image_once(store: FolderStore) -> None:
    """Else bytes or images are lost between the parts and the budget."""
    failed_row = {"split": POOL, "path": "c", "error_code": "unreadable_image", "error": "why"}
    parts = [
        _part(store, 0, _row("a"), _row("b", label=None), _row("e", EVALUATION, sha="11")),
        _part(store, 1, failed_row, _row("d", label="z")),
    ]
    summary = _merge(store, parts, 4, 1)
    assert (summary.listed, summary.compressed, summary.failed, summary.pool, summary.evaluation) == (5, 4, 1, 3, 1)
    assert summary.pool_bytes == {0.0: 300, 4.0: 150}
    assert summary.classes == {"a": 1, "z": 1}
    assert summary.unlabelled == 1
    assert summary.errors == {"unreadable_image": 1}
    paths = [row["path"] for batch in index.rows(store, layout.index("job")) for row in batch.to_pylist()]
    assert paths == ["a", "b", "c", "d"]
    assert [image.error for image in index.errors(store, layout.index("job"))] == ["why"]
    assert Summary.from_json(json.loads(json.dumps(summary.as_json()))) == summary


def test_an_evaluation_image_is_never_kept_under_another_name(store: FolderStore) -> None:
    """Else a photograph that is in both splits is trained on and tested on, and the accuracy is too high."""
    parts = [_part(store, 0, _row("a", sha="11"), _row("b")), _part(store, 1, _row("c", EVALUATION, sha="11"))]
    summary = _merge(store, parts, 2, 1)
    assert (summary.pool, summary.evaluation, summary.failed) == (1, 1, 1)
    assert summary.pool_bytes == {0.0: 100, 4.0: 50}
    row = next(row for batch in index.rows(store, layout.index("job")) for row in batch.to_pylist())
    assert (row["path"], row["error_code"], row["bytes@4"]) == ("a", "evaluation_image", None)


def test_a_merge_of_many_parts_is_what_looking_at_one_row_after_another_gives(store: FolderStore) -> None:
    """Else rows are lost between parts and row groups, or a test image is trained on because it stands in another."""
    draw = random.Random(0)
    rows = [
        _row(f"{n:06d}", draw.choice((POOL, POOL, EVALUATION)), n, sha=f"{draw.randrange(10**5):064x}")
        for n in range(2 * merge.GROUP_ROWS + 999)
    ]
    cuts = [0, *sorted(draw.sample(range(len(rows)), 30)), len(rows)]
    parts = [_part(store, n, *rows[start:end]) for n, (start, end) in enumerate(pairwise(cuts))]
    test_checksums = {row["source_sha256"] for row in rows if row["split"] == EVALUATION}
    pool, evaluation = ([row for row in rows if row["split"] == split] for split in (POOL, EVALUATION))
    summary = _merge(store, parts, len(pool), len(evaluation))
    index_rows = [row for batch in index.rows(store, layout.index("job")) for row in batch.to_pylist()]
    assert [row["path"] for row in index_rows] == [row["path"] for row in pool]
    refused_paths = [row["path"] for row in pool if row["source_sha256"] in test_checksums]
    assert 0 < len(refused_paths) < len(pool)
    assert [row["path"] for row in index_rows if row["error_code"] == "evaluation_image"] == refused_paths
    usable = [row for row in pool if row["source_sha256"] not in test_checksums]
    assert [row["bytes@4"] for row in index_rows if row["error_code"] is None] == [row["bytes@4"] for row in usable]
    assert summary.pool_bytes == {0.0: sum(r["bytes@0"] for r in usable), 4.0: sum(r["bytes@4"] for r in usable)}
    batches = index.rows(store, layout.evaluation("job"), ["path"])
    assert [row["path"] for batch in batches for row in batch.to_pylist()] == [row["path"] for row in evaluation]


def test_the_index_says_what_made_it(store: FolderStore) -> None:
    """Else nobody can tell which codec the sizes of an old index belong to."""
    _merge(store, [_part(store, 0, _row("a"))], 1)
    with store.open(layout.index("job")) as file:
        stamp = json.loads(pq.read_schema(file).metadata[index.METADATA])
    assert stamp == {"format": 1, "codec": codec_version.codec(), "versions": codec_version.versions()}


def test_a_lost_row_is_noticed(store: FolderStore) -> None:
    """Else an image that was listed and neither compressed nor failed is deleted as "not kept"."""
    part = _part(store, 0, _row("a"), _row("b"), _row("c", EVALUATION, sha="11"))
    for pool, evaluation in ((3, 1), (2, 2), (3, 0)):
        message = f"{pool} images of the pool and {evaluation} of the evaluation split were listed and 2 and 1 are in"
        with pytest.raises(CountMismatch, match=message):
            _merge(store, [part], pool, evaluation)
        assert not store.exists(layout.index("job"))


def test_a_damaged_index_is_an_error_and_no_other_index(store: FolderStore) -> None:
    """Else one flipped bit on a disk makes a budget fit that does not, or drops images from a manifest."""
    _merge(store, [_part(store, n, *(_row(f"{n}{m:03d}", size=m) for m in range(100))) for n in range(3)], 300)
    intact = store.get(layout.index("job"))
    expected = _sizes(store)
    refusals = 0
    for position in range(0, len(intact), 11):
        store.put(layout.index("job"), intact[:position] + bytes([intact[position] ^ 4]) + intact[position + 1 :])
        try:
            sizes = _sizes(store)
        except StoreError as error:
            refusals += "index.parquet is damaged" in error.message
        else:
            assert sizes == expected, "the byte says something of these columns"
    assert refusals > 100


def _sizes(store: FolderStore) -> list[dict[str, Any]]:
    return [row for batch in index.rows(store, layout.index("job"), ["path", "bytes@4"]) for row in batch.to_pylist()]


def test_small_parts_make_no_small_row_groups(store: FolderStore) -> None:
    """Else whoever opens the index of a few million images, as the API does for its errors, runs out of memory."""
    parts = [_part(store, n, *(_row(f"{n:03d}{m}") for m in range(9)), _row(f"{n:03d}", EVALUATION)) for n in range(50)]
    _merge(store, parts, 450, 50)
    for key in (layout.index("job"), layout.evaluation("job")):
        with store.open(key) as file:
            assert pq.read_metadata(file).num_row_groups == 1


def test_an_index_of_many_row_groups_is_read_in_flat_memory(store: FolderStore) -> None:
    """Else listing the failed images of a large job takes more memory the larger it is."""
    columns = index.schema(DISTANCES)
    group = pa.Table.from_pylist([_row(f"{n:05d}") for n in range(500)], columns)
    with store.writer(layout.index("job")) as file, pq.ParquetWriter(file, columns) as parquet:
        for _ in range(40 * index.ROW_GROUPS):
            parquet.write_table(group)
    row_count, held_bytes = 0, []
    for batch in index.rows(store, layout.index("job")):
        row_count += len(batch)
        held_bytes.append(pa.total_allocated_bytes())
    assert row_count == 40 * index.ROW_GROUPS * 500
    assert max(held_bytes) < 2 * held_bytes[0]


def test_two_images_of_one_path_are_noticed(store: FolderStore) -> None:
    """Else one of them is kept under the other's name."""
    with pytest.raises(DuplicateImage, match="pool: a"):
        _merge(store, [_part(store, 0, _row("a")), _part(store, 1, _row("a"))], 2)


def test_chunks_keep_their_rows(tmp_path: Path) -> None:
    """Else labels or sizes change between listing and compressing."""
    rows = [
        ChunkRow(POOL, Entry("a/ä.jpg", "file:///a", "a", 7, "mtime:3")),
        ChunkRow(EVALUATION, Entry("b", "file:///b", None)),
    ]
    assert index.read_chunk(index.write_chunk(rows)) == rows


def test_chunks_are_bounded_and_complete() -> None:
    """Else a small job runs on one core only, or a chunk of large images outlives its time limit."""
    rows = [ChunkRow(POOL, Entry(f"{n:05d}", "file:///x", None, 1000)) for n in range(5000)]
    chunks = list(chunking.chunked(iter(rows), distances=5))
    assert [row for chunk in chunks for row in chunk] == rows
    assert len(chunks[0]) == 16
    assert max(map(len, chunks)) <= chunking.LARGEST_CHUNK_ENCODINGS / 5 + 1
    assert len(next(chunking.chunked(iter(rows), distances=20))) == 4
    assert len(next(chunking.chunked(iter(rows), distances=1))) == 16
    large = [ChunkRow(POOL, Entry(f"{n}", "file:///x", None, 30_000_000)) for n in range(10)]
    assert [len(chunk) for chunk in chunking.chunked(iter(large), distances=5)] == [3, 3, 3, 1]


def test_the_hold_out_is_drawn_before_anything_is_compressed(store: FolderStore, sample: Path) -> None:
    """Else test images are in the pool, and the accuracy is measured on what was trained on."""
    request = Request((sample / "train").as_uri(), DISTANCES, evaluation=Evaluation(holdout=0.34))
    listing = chunking.write_listing(store, "job", request, EVERYTHING)
    rows = [
        row for n in range(listing.chunks) for row in index.read_chunk(store.get(layout.chunk("job", listing.name, n)))
    ]
    assert listing.images == len(rows) == 48
    assert listing.splits == {POOL: 32, EVALUATION: 16}
    for label in {row.entry.label for row in rows}:
        assert sum(row.split == EVALUATION for row in rows if row.entry.label == label) == 2


def test_what_is_held_out_does_not_depend_on_how_many_are_ranked_at_once() -> None:
    """Else the split of a dataset moves with a constant of the program, and test images were trained on before."""
    entries = [
        Entry(f"{n:05d}", "file:///x", str(n % 7) if n % 5 else None) for n in range(2 * chunking.BLOCK_IMAGES + 9)
    ]
    rows = list(chunking.split(iter(entries), iter(entries), 0.3, 5))
    assert [row.entry for row in rows] == entries
    for label in {entry.label for entry in entries}:
        mine = [row for row in rows if row.entry.label == label]
        rank = {row.entry.path: ranks(np.array([path_hash(row.entry.path)], np.uint64), 5)[0] for row in mine}
        holdout = {row.entry.path for row in mine if row.split == EVALUATION}
        assert holdout == set(sorted(rank, key=rank.__getitem__)[: round(0.3 * len(mine))])


def test_a_dataset_without_images_is_an_error(store: FolderStore, tmp_path: Path) -> None:
    """Else a wrong folder ends as a success with nothing kept."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/readme.txt").touch()
    with pytest.raises(DatasetNotFound, match=r"holds no image \(skipped: 1 not an image\)"):
        chunking.write_listing(store, "job", Request((tmp_path / "d").as_uri(), DISTANCES), EVERYTHING)
