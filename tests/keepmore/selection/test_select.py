"""The select step: an index becomes manifests."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.codec import version as codec_version
from keepmore.compression import index
from keepmore.compression.index import Summary
from keepmore.sampling import path_hash
from keepmore.selection import fit, manifest, select
from keepmore.selection.fit import FitResult
from keepmore.selection.pool import read_pool
from keepmore.selection.subset import Subset
from keepmore.spec.budget import BytesBudget
from keepmore.spec.distance import text
from keepmore.spec.job import Selection
from keepmore.spec.variants import FitCount, Spread
from keepmore.storage import layout
from keepmore.storage.folder import FolderStore

DISTANCES = (0.0, 0.5, 10.0)
ENCODINGS = ("original", "lossless", "lossy")


def _row(number: int) -> dict[str, Any]:
    """A row of an index; every seventh image failed."""
    path = f"{number % 3}/{number:05d}.jpg"
    row: dict[str, Any] = {"split": "pool", "path": path, "path_hash": path_hash(path), "source_uri": f"file:///{path}"}
    if number % 7 == 3:
        return row | {"error_code": "unreadable_image", "error": "it is none"}
    row |= {"label": None if number % 5 == 0 else f"class {number % 3}", "source_sha256": _sha256(path)}
    row |= {"source_bytes": 1000 + number, "width": 4, "height": 3}
    for d in DISTANCES:
        row[index.column("bytes", d)] = int((1000 + number) / (1 + d))
        row[index.column("encoding", d)] = ENCODINGS[number % 3] if d else "original"
        row[index.column("sha256", d)] = _sha256(f"{path} at {d}")
    return row


def _sha256(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _write_subset(store: FolderStore, images: int, row_group: int, budget: int | None) -> Subset:
    rows = sorted(map(_row, range(images)), key=lambda row: str(row["path"]))
    with store.writer(layout.index("job")) as file:
        pq.write_table(pa.Table.from_pylist(rows, index.schema(DISTANCES)), file, row_group_size=row_group)
    limit = BytesBudget(budget) if budget else None
    return select.write_subsets(
        store, "job", "subset", select.SelectionPlan(DISTANCES, 3, limit, Selection()), Summary()
    )


def test_a_manifest_holds_what_the_index_says_of_the_images_that_were_chosen(store: FolderStore) -> None:
    """Else a manifest names the object of another image, and the wrong original is deleted."""
    subset = _write_subset(store, 900, 7, 200_000)
    by_path = {row["path"]: row for row in map(_row, range(900))}
    pool = read_pool(store, layout.index("job"), DISTANCES)
    choices = select.choose(pool, DISTANCES, Selection(), 200_000)
    for d, places in zip(DISTANCES, choices, strict=True):
        rows = list(manifest.rows(store.get(layout.manifest("job", "subset", text(d)))))
        assert [path_hash(row["path"]) for row in rows] == pool.path_hashes[np.sort(places)].tolist()
        about = subset.rows[text(d)]
        assert (about.images, about.bytes) == (len(rows), sum(row["bytes"] for row in rows))
        for row in rows:
            index_row = by_path[row["path"]]
            assert [row[n] for n in select.SHARED] == [index_row[n] for n in select.SHARED]
            assert [row[n] for n in select.OWN[:3]] == [index_row[index.column(n, d)] for n in select.OWN[:3]]
            assert row["distance"] == d
            key = layout.object(row["source_sha256"], row["encoding"], d, 3, codec_version.codec())
            assert row["object_uri"] == (store.uri(key) if d else row["source_uri"])


@pytest.mark.parametrize("budget", [None, 100_000])
def test_manifests_do_not_depend_on_how_an_index_is_laid_out(store: FolderStore, budget: int | None) -> None:
    """Else the same images have another digest after a resume with other chunks."""
    digests = [
        [about.digest for about in _write_subset(store, 700, rows, budget).rows.values()] for rows in (3, 64, 5000)
    ]
    assert digests[0] == digests[1] == digests[2]


ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([None, "a", "b", "ü", "a class"]), st.integers(0, 2**40)), min_size=1
)


@given(rows=ROWS, row_group=st.integers(1, 5))
def test_the_pool_is_what_the_index_says(
    folders: pytest.TempPathFactory, rows: list[tuple[bool, str | None, int]], row_group: int
) -> None:
    """Else a size of more than four bytes, or a class, is another one in the choice than in the index."""
    store = FolderStore(folders.getbasetemp() / "pools")
    index_rows = [
        {"path_hash": number, "label": label, "bytes@0": size, "bytes@2": size // 3}
        if good
        else {"path_hash": number, "label": label, "error_code": "unreadable_image"}
        for number, (good, label, size) in enumerate(rows)
    ]
    with store.writer(layout.index("job")) as file:
        pq.write_table(pa.Table.from_pylist(index_rows, index.schema((0, 2))), file, row_group_size=row_group)
    pool = read_pool(store, layout.index("job"), (0, 2))
    good = [number for number, row in enumerate(rows) if row[0]]
    assert pool.rows.tolist() == pool.path_hashes.tolist() == good
    assert [pool.class_names[c] if c >= 0 else None for c in pool.classes] == [rows[number][1] for number in good]
    assert pool.class_names == sorted({rows[number][1] or "" for number in good} - {""})
    assert pool.bytes[0].tolist() == [rows[number][2] for number in good]
    assert pool.bytes[2].tolist() == [rows[number][2] // 3 for number in good]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


@given(
    images=st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from(ENCODINGS)), min_size=1, max_size=9)
)
def test_object_uris_are_those_of_the_keys(folders: pytest.TempPathFactory, images: list[tuple[bytes, str]]) -> None:
    """Else a manifest names objects that are not there, in a store whose name looks like a checksum too."""
    store = FolderStore(folders.getbasetemp() / select.ANY_SHA256[:2] / "ü ab")
    sha256s, encodings = [sha.hex() for sha, _ in images], [encoding for _, encoding in images]
    uris = select.object_uris(store, pa.array(sha256s), pa.array(encodings), 0.5, 3)
    pairs = zip(sha256s, encodings, strict=True)
    assert uris.to_pylist() == [
        store.uri(layout.object(sha, encoding, 0.5, 3, codec_version.codec())) for sha, encoding in pairs
    ]


SPREAD, FIT = Spread(0.5, 10), FitCount(300)
FIT_RESULT = FitResult(3.217, True, 3)


def _row_with_ladder(number: int) -> dict[str, Any]:
    """As `_row`, with the sizes of a ladder: every fifth image is no smaller at larger distances."""
    row = _row(number)
    if "error" not in row:
        for d in SPREAD.ladder:
            row[index.column("bytes", d)] = 900 if number % 5 == 1 else int((1000 + number) / (1 + d))
            row[index.column("encoding", d)] = "lossless" if number % 5 == 1 else "lossy"
            row[index.column("sha256", d)] = _sha256(f"{row['path']} at {d}")
    return row


def _write_ladder(store: FolderStore, images: int, row_group: int) -> tuple[Subset, list[dict[str, Any]]]:
    """The subset of a spread and a fit, and the index's rows."""
    rows = sorted(map(_row_with_ladder, range(images)), key=lambda row: str(row["path"]))
    with store.writer(layout.index("job")) as file:
        pq.write_table(pa.Table.from_pylist(rows, index.schema(SPREAD.ladder)), file, row_group_size=row_group)
    numbers = [number for number, row in enumerate(rows) if "error" not in row][5::2][: FIT.images]
    fits = [
        {
            "row": number,
            "path": rows[number]["path"],
            "bytes": 7 + number,
            "encoding": "lossy",
            "sha256": _sha256("fit"),
        }
        for number in numbers
    ]
    key = layout.fitted("job", "subset", FIT.name)
    store.put(key, fit.to_parquet(FIT_RESULT, pa.Table.from_pylist(fits, fit.SCHEMA)))
    plan = select.SelectionPlan((), 3, BytesBudget(250_000), Selection(), (SPREAD, FIT))
    return select.write_subsets(store, "job", "subset", plan, Summary()), rows


def test_manifests_of_rules_hold_what_was_chosen_for_each_image(store: FolderStore) -> None:
    """Else a row names the object of another distance, or of another image, where an index has many batches."""
    subset, rows = _write_ladder(store, 900, 7)
    rows_by_path = {row["path"]: row for row in rows}
    spread = list(manifest.rows(store.get(layout.manifest("job", "subset", SPREAD.name))))
    assert [row["path"] for row in spread] == [row["path"] for row in rows if "error" not in row]
    assert 249_750 < sum(row["bytes"] for row in spread) <= 250_000
    assert len({row["distance"] for row in spread}) > 8
    for row in spread:
        index_row, d = rows_by_path[row["path"]], row["distance"]
        assert [row[n] for n in select.OWN[:3]] == [index_row[index.column(n, d)] for n in select.OWN[:3]]
        key = layout.object(row["source_sha256"], row["encoding"], d, 3, codec_version.codec())
        assert row["object_uri"] == store.uri(key)
        assert d == 0.5 or row["encoding"] == "lossy", "no distance at which a lower one takes as few bytes"
    fit_rows = list(manifest.rows(store.get(layout.manifest("job", "subset", FIT.name))))
    assert len(fit_rows) == subset.rows[FIT.name].images == FIT.images
    for row in fit_rows:
        assert rows[row["bytes"] - 7]["path"] == row["path"]
        assert (row["distance"], row["source_sha256"]) == (
            FIT_RESULT.distance,
            rows_by_path[row["path"]]["source_sha256"],
        )
        assert row["object_uri"].endswith(f"/lossy-3.217-e3-{codec_version.codec()}.jxl")


def test_manifests_of_rules_do_not_depend_on_how_an_index_is_laid_out(store: FolderStore) -> None:
    """Else the same images have another digest after a resume with other chunks."""
    digests = []
    for row_group in (3, 64, 5000):
        subset, _ = _write_ladder(store, 700, row_group)
        digests.append([about.digest for about in subset.rows.values()])
        for variant, about in subset.rows.items():
            digest = manifest.Digest()
            with manifest.open_manifest(store.get(layout.manifest("job", "subset", variant))) as parquet:
                for batch in manifest.batches(parquet, 50):
                    digest.add(batch)
            assert digest.hexdigest() == about.digest
    assert digests[0] == digests[1] == digests[2]
