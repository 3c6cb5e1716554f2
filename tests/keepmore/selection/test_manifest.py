"""Manifests: what a retention system deletes by."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.codec import jpegxl
from keepmore.errors import InvalidRequest
from keepmore.selection import manifest
from keepmore.selection.manifest import ManifestSpec
from keepmore.selection.subset import SubsetSpec
from keepmore.selection.verify import verify
from keepmore.spec.budget import BytesBudget
from keepmore.spec.job import Limits, Selection

texts = st.text(max_size=12)
row_lists = st.lists(
    st.fixed_dictionaries(
        {
            "path": texts,
            "object_uri": texts,
            "label": st.none() | texts,
            "bytes": st.integers(0, 2**62),
            "sha256": st.just("ab" * 32),
            "encoding": st.sampled_from(["original", "lossless", "lossy"]),
            "distance": st.sampled_from([0.0, 0.5, 2.0, 9.75, 25.0]),
        }
    ),
    max_size=12,
)


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=manifest.SCHEMA)


def _digest(*batches: list[dict[str, Any]]) -> str:
    digest = manifest.Digest()
    for rows in batches:
        digest.add(_batch(rows))
    return digest.hexdigest()


def _expected_digest(rows: list[dict[str, Any]]) -> str:
    """The digest's recipe in the plainest code."""
    lines = [
        json.dumps(
            [r["path"], r["label"], r["bytes"], r["sha256"], r["encoding"], _plain(r["distance"])],
            separators=(",", ":"),
        )
        + "\n"
        for r in rows
    ]
    return hashlib.sha256("".join(lines).encode("ascii")).hexdigest()


@given(row_lists)
def test_the_digest_is_what_its_description_says(rows: list[dict[str, Any]]) -> None:
    """Else nobody but us can check a manifest."""
    assert _digest(rows) == _expected_digest(rows)


def _plain(distance: float) -> float | int:
    return int(distance) if distance.is_integer() else distance


# One character decides which way a batch goes: these are around the limits of what JSON writes as it is.
plain = st.text("ab/ ~", max_size=6)
one_character = st.sampled_from(["", "\x1f", "\x7f", '"', "\\", "\x80", "\U0001f600"])


@given(st.lists(st.tuples(plain, st.none() | plain), max_size=5), one_character, st.booleans(), st.integers(0, 1))
def test_the_fast_way_to_the_digest_is_the_same(
    images: list[tuple[str, str | None]], character: str, in_label: bool, start: int
) -> None:
    """Else the digest of a whole dataset changes because one of its images has a quote or an umlaut in its name."""
    images.append(("a", f"b{character}") if in_label else (f"a{character}", None))
    rows: list[dict[str, Any]] = [
        {"path": path, "label": label, "bytes": 2**62 // (i + 1), "sha256": f"{i:064x}", "encoding": "lossy"}
        for i, (path, label) in enumerate(images)
    ]
    rows = [row | {"distance": 0.5} for row in rows]
    digest = manifest.Digest()
    digest.add(_batch(rows).slice(start))
    assert digest.hexdigest() == _expected_digest(rows[start:])


@given(row_lists, st.integers(0, 12))
def test_the_digest_does_not_depend_on_how_rows_are_batched(rows: list[dict[str, Any]], cut: int) -> None:
    """Else another chunk size gives another digest for the same images."""
    assert _digest(rows[:cut], rows[cut:]) == _digest(rows)


@given(row_lists.filter(bool), st.data())
def test_the_digest_covers_every_field_but_the_uris(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Else a changed label or size goes unnoticed, or moving a store changes the digest."""
    place = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(["path", "label", "bytes", "sha256", "encoding", "distance", "object_uri"]))
    old = rows[place][name]
    other = {"bytes": 7 if old != 7 else 8, "distance": 3.25, "label": None if old is not None else ""}
    copies = [dict(row) for row in rows]
    copies[place][name] = other.get(name, f"{old}x")
    assert (_digest(copies) == _digest(rows)) == (name == "object_uri")


def _write(path: Path, objects: dict[str, bytes], budget: int | None = None) -> Path:
    rows = []
    for name, data in sorted(objects.items()):
        object_path = path.parent / f"{name}.object"
        object_path.write_bytes(data)
        rows.append(
            {
                "path": name,
                "object_uri": object_path.as_uri(),
                "label": None if name == "a" else "ä,\n",
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "width": 400,
                "height": 300,
                "encoding": "original",
                "distance": 0.0,
            }
        )
    with path.open("wb") as file:
        limit = BytesBudget(budget) if budget else None
        writer = manifest.Writer(file, ManifestSpec(SubsetSpec("job", limit, budget, Selection(), 3), 0.0))
        writer.add(_batch(rows))
        writer.close()
    return path


@pytest.fixture
def manifest_path(tmp_path: Path, sample: Path) -> Path:
    files = [f for f in sorted((sample / "train").rglob("*.jpg")) if _size(f) == (400, 300)][:2]
    return _write(tmp_path / "m.parquet", {"a": files[0].read_bytes(), "b": files[1].read_bytes()})


def _size(file: Path) -> tuple[int, int]:
    return jpegxl.decode(file.read_bytes(), 10**8).size


def _problems(path: Path) -> dict[str, str]:
    return {p.path: p.code for p in verify(path, Limits(), lambda images, size: None)}


def test_a_sound_manifest_has_no_problems(manifest_path: Path) -> None:
    """Else users learn to ignore what verify says."""
    assert _problems(manifest_path) == {}


def test_verify_finds_what_is_missing_or_changed(manifest_path: Path) -> None:
    """Else originals are deleted although their compressed copies are gone or damaged."""
    (manifest_path.parent / "a.object").unlink()
    data = bytearray((manifest_path.parent / "b.object").read_bytes())
    data[-100] ^= 1
    (manifest_path.parent / "b.object").write_bytes(data)
    assert _problems(manifest_path) == {"a": "source_not_found", "b": "differs"}
    (manifest_path.parent / "b.object").write_bytes(data[:-1])
    assert _problems(manifest_path)["b"] == "differs"


def test_verify_finds_objects_that_do_not_decode(tmp_path: Path) -> None:
    """Else a store full of well-checksummed garbage passes."""
    assert _problems(_write(tmp_path / "m.parquet", {"a": b"no image"})) == {"a": "unreadable_image"}


def test_verify_finds_altered_manifests(tmp_path: Path, manifest_path: Path) -> None:
    """Else a manifest that lost rows, or exceeds its budget, is believed."""
    with manifest.open_manifest(manifest_path) as parquet:
        table, about = parquet.read(), json.loads(parquet.metadata.metadata[manifest.METADATA])
    with pq.ParquetWriter(tmp_path / "short.parquet", manifest.SCHEMA) as writer:
        writer.write_table(table.slice(0, 1))
        writer.add_key_value_metadata({manifest.METADATA: json.dumps(about | {"budget_bytes": 5}).encode()})
    codes = [p.code for p in verify(tmp_path / "short.parquet", Limits(), lambda images, size: None)]
    assert sorted(codes) == ["altered", "altered", "altered", "over_budget"]


def test_a_damaged_manifest_is_a_problem_and_no_traceback(manifest_path: Path) -> None:
    """Else a pipeline cannot tell a damaged manifest from a crash of the check itself."""
    data = bytearray(manifest_path.read_bytes())
    data[4:400] = bytes(396)
    manifest_path.write_bytes(data)
    assert _problems(manifest_path) == {"": "unreadable_manifest"}
    with pytest.raises(InvalidRequest, match="damaged"):
        list(manifest.rows(manifest_path))


def test_no_damaged_byte_is_read_as_another_row(manifest_path: Path) -> None:
    """Else a flipped bit on a disk names another object, and that one's source is deleted."""
    sound, expected = manifest_path.read_bytes(), list(manifest.rows(manifest_path))
    with manifest.open_manifest(manifest_path) as parquet:
        group = parquet.metadata.row_group(0)
        pages = [group.column(number) for number in range(group.num_columns)]
    refusals = 0
    for place in range(4, max(page.data_page_offset + page.total_compressed_size for page in pages)):
        data = bytearray(sound)
        data[place] ^= 0x10
        try:
            assert list(manifest.rows(bytes(data))) == expected
        except InvalidRequest:
            refusals += 1
    assert refusals > sum(page.total_compressed_size for page in pages) // 2


def test_exports_hold_what_the_manifest_holds(manifest_path: Path) -> None:
    """Else a retention system that reads CSV deletes by other rows than one that reads Parquet."""
    expected = list(manifest.rows(manifest_path))
    exports = {name: b"".join(export.write(manifest_path)) for name, export in manifest.EXPORTS.items()}
    assert [json.loads(line) for line in exports[".ndjson"].splitlines()] == expected
    assert exports[".parquet"] == manifest_path.read_bytes()
    options = pa_csv.ConvertOptions(column_types=manifest.SCHEMA, strings_can_be_null=True)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    again = pa_csv.read_csv(io.BytesIO(exports[".csv"]), convert_options=options, parse_options=parse)
    assert again.select(["path", "label", "bytes", "sha256"]).to_pylist() == [
        {name: row[name] for name in ("path", "label", "bytes", "sha256")} for row in expected
    ]


def test_every_export_has_a_media_type_of_its_own() -> None:
    """Else a caller who asks the service for one form gets the other."""
    assert len({export.media_type for export in manifest.EXPORTS.values()}) == len(manifest.EXPORTS)


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    """Else a wrong file name ends in a traceback, or verifies as an empty manifest."""
    (tmp_path / "text").write_text("hello")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    for name, message in (("none", "no such file"), ("text", "not readable"), ("other.parquet", "not a manifest")):
        with pytest.raises(InvalidRequest, match=message):
            list(manifest.rows(tmp_path / name))
