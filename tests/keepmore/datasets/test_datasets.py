"""From a URI to images."""

from __future__ import annotations

import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import Entry, Skipped
from keepmore.datasets.listing import list_images
from keepmore.datasets.reader import SourceReader
from keepmore.errors import (
    DatasetChanged,
    DatasetNotFound,
    DuplicateImage,
    InvalidTable,
    SourceNotFound,
    SourceTooLarge,
    UnreadableImage,
    UnsupportedDataset,
)
from tests.conftest import tar_file

PIXEL = b"bytes of a picture"


def _list(path: Path) -> tuple[list[Entry], Skipped]:
    skipped = Skipped()
    return list(list_images(absolute_uri(str(path)), skipped)), skipped


def _read(entry: Entry) -> bytes:
    with SourceReader(10_000) as reader:
        return reader.read(entry.uri, entry.size, entry.version)


def _tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PIXEL + name.encode())
    return root


def test_a_folder_is_listed_by_path_with_its_first_folder_as_label(tmp_path: Path) -> None:
    """Else the order, and with it the digest, depends on the file system, or images get wrong labels."""
    root = _tree(tmp_path / "d", "b/2.jpg", "b/1.JPEG", "a-b/x.png", "a/deep/er/y.webp", "a.jpg", "a/z.jpg")
    entries, _ = _list(root)
    assert [(e.path, e.label) for e in entries] == [
        ("a-b/x.png", "a-b"),
        ("a.jpg", None),
        ("a/deep/er/y.webp", "a"),
        ("a/z.jpg", "a"),
        ("b/1.JPEG", "b"),
        ("b/2.jpg", "b"),
    ]
    assert [e.path for e in entries] == sorted(e.path for e in entries)
    assert all(_read(e) == PIXEL + e.path.encode() for e in entries)


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    """Else a user cannot tell a dataset of raw files from an empty one."""
    root = _tree(tmp_path / "d", "a/1.jpg", "a/.hidden.jpg", ".git/2.jpg", "a/readme.txt", "a/noending")
    entries, skipped = _list(root)
    assert [e.path for e in entries] == ["a/1.jpg"]
    assert skipped == {"hidden": 2, "not an image": 2}


def test_links_do_not_leave_the_root(tmp_path: Path) -> None:
    """Else a link in an uploaded dataset reads any file of the machine."""
    _tree(tmp_path / "outside", "secret.jpg")
    root = _tree(tmp_path / "d", "a/1.jpg")
    (root / "a/out.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (root / "a/in.jpg").symlink_to(root / "a/1.jpg")
    (root / "a/broken.jpg").symlink_to(root / "a/none.jpg")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    entries, skipped = _list(root)
    assert [e.path for e in entries] == ["a/1.jpg", "a/in.jpg"]
    assert skipped == {"link that leaves the dataset": 1, "broken link": 1, "link to a folder": 2}


def test_a_named_pipe_is_skipped_and_never_read(tmp_path: Path) -> None:
    """Else one pipe in a dataset hangs the job for ever."""
    root = _tree(tmp_path / "d", "1.jpg")
    os.mkfifo(root / "2.jpg")
    entries, skipped = _list(root)
    assert [e.path for e in entries] == ["1.jpg"]
    assert skipped == {"not a regular file": 1}
    with pytest.raises(UnreadableImage, match="not a regular file"):
        _read(Entry("2.jpg", (root / "2.jpg").as_uri(), None))


@pytest.mark.parametrize("name", ["späße 猫.jpg", "a#b?c%20d.jpg", "new\nline.jpg", "q'uo\"te.jpg"])
def test_odd_names_survive_the_way_through_a_uri(tmp_path: Path, name: str) -> None:
    """Else an image with an odd name is reported missing, or another one is read in its place."""
    entries, _ = _list(_tree(tmp_path / "d", f"a/{name}"))
    assert entries[0].path == f"a/{name}"
    assert _read(entries[0]) == PIXEL + f"a/{name}".encode()
    tar, _ = _list(tar_file(tmp_path / "d.tar", {f"a/{name}": PIXEL}))
    assert tar[0].path == f"a/{name}"
    assert _read(tar[0]) == PIXEL


def test_a_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    """Else files from an old archive end a job with a decoding error."""
    root = tmp_path / "d"
    root.mkdir()
    with open(os.fsencode(root) + b"/\xff.jpg", "wb") as file:
        file.write(PIXEL)
    entries, _ = _list(root)
    assert entries[0].path == "\\xff.jpg"
    assert _read(entries[0]) == PIXEL


def test_a_tar_is_a_tree(tmp_path: Path) -> None:
    """Else a packed dataset has other labels, or another order, than the folder it was made from."""
    members = {"./b/2.jpg": b"two", "a/1.jpg": b"one", "a/.x.jpg": b"", "../up.jpg": b"", "notes.txt": b""}
    entries, skipped = _list(tar_file(tmp_path / "d.tar", members))
    assert [(e.path, e.label, e.size, _read(e)) for e in entries] == [
        ("a/1.jpg", "a", 3, b"one"),
        ("b/2.jpg", "b", 3, b"two"),
    ]
    assert skipped == {"hidden": 1, "name that leaves the dataset": 1, "not an image": 1}


def test_webdataset_labels(tmp_path: Path) -> None:
    """Else every image of a WebDataset shard is unlabelled, and nothing can be trained."""
    members = {
        "0001.jpg": b"a",
        "0001.cls": b"7\n",
        "0002.cls": b"dog",
        "0002.jpg": b"b",
        "sub/3.left.png": b"c",
        "sub/3.json": json.dumps({"label": "cat", "more": 1}).encode(),
        "4.jpg": b"d",
    }
    entries, _ = _list(tar_file(tmp_path / "d.tar", members))
    assert [(e.path, e.label) for e in entries] == [
        ("0001.jpg", "7"),
        ("0002.jpg", "dog"),
        ("4.jpg", None),
        ("sub/3.left.png", "cat"),
    ]


def test_a_stray_label_file_takes_no_labels_away(tmp_path: Path) -> None:
    """Else one metadata file in a packed folder makes every image unlabelled, and nothing can be trained."""
    members = {"cat/1.jpg": b"a", "dog/2.jpg": b"b", "dog/2.json": b'{"width": 1}', "meta.json": b"[not json"}
    entries, skipped = _list(tar_file(tmp_path / "d.tar", members))
    assert [e.label for e in entries] == ["cat", "dog"]
    assert skipped == {"label without an image": 1}


def test_a_damaged_tar_loses_nothing_in_silence(tmp_path: Path) -> None:
    """Else half of an archive vanishes from a job, and is deleted as "not kept"."""
    tar = tar_file(tmp_path / "d.tar", {f"a/{n}.jpg": b"x" * 600 for n in range(6)})
    whole = tar.read_bytes()
    for broken in (whole[:4608] + b"?" + whole[4609:], whole[: 3 * 1536 + 100]):
        tar.write_bytes(broken)
        with pytest.raises(UnsupportedDataset, match=r"damaged at byte 4,608|unexpected end"):
            _list(tar)
    tar.write_bytes(whole[: 3 * 1536])
    assert len(_list(tar)[0]) == 3, "an end without blocks of zeros is usual and sound"


def test_hard_links_in_a_tar_are_images(tmp_path: Path) -> None:
    """Else GNU tar's way of packing a file that has two names loses one of them."""
    _tree(tmp_path / "d", "a/1.jpg")
    (tmp_path / "d/a/2.jpg").hardlink_to(tmp_path / "d/a/1.jpg")
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        for name in ("a/1.jpg", "a/2.jpg"):
            archive.add(tmp_path / "d" / name, name)
    entries, _ = _list(tmp_path / "d.tar")
    assert [(e.path, _read(e)) for e in entries] == [(name, PIXEL + b"a/1.jpg") for name in ("a/1.jpg", "a/2.jpg")]


def test_an_empty_label_is_none(tmp_path: Path) -> None:
    """Else images without a label become a class without a name, which no model can be trained on."""
    (tmp_path / "t.jsonl").write_text('\ufeff{"uri": "1.jpg", "label": ""}\n')
    (tmp_path / "t.csv").write_text("uri, label\n1.jpg,x\n2.jpg,\n")
    assert [e.label for e in _list(tmp_path / "t.jsonl")[0]] == [None]
    assert [e.label for e in _list(tmp_path / "t.csv")[0]] == ["x", None]


def test_broken_tars_are_named(tmp_path: Path) -> None:
    """Else a compressed or damaged tar lists as empty."""
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"this is no tar" * 100)
    with pytest.raises(UnsupportedDataset, match=r"bad\.tar: not an uncompressed tar"):
        _list(bad)
    twice = tar_file(tmp_path / "twice.tar", {"a/1.jpg": b"1", "./a/1.jpg": b"2"})
    with pytest.raises(DuplicateImage, match=r"a/1\.jpg occurs twice"):
        _list(twice)
    with pytest.raises(InvalidTable, match=r"0\.json: not readable as a label"):
        _list(tar_file(tmp_path / "label.tar", {"0.jpg": b"", "0.json": b"{"}))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_name_images(tmp_path: Path, kind: str) -> None:
    """Else a catalogue of images cannot be used, or its relative names are looked up in the wrong place."""
    _tree(tmp_path, "images/1.jpg", "images/2.jpg")
    rows = [("images/2.jpg", "dog"), ((tmp_path / "images/1.jpg").as_uri(), None)]
    entries, _ = _list(_table(tmp_path / f"t.{kind}", rows))
    assert [(e.path, e.label) for e in entries] == [(rows[1][0], None), ("images/2.jpg", "dog")]
    assert [_read(e) for e in entries] == [PIXEL + b"images/1.jpg", PIXEL + b"images/2.jpg"]


def _table(path: Path, rows: list[tuple[str, str | None]]) -> Path:
    if path.suffix == ".csv":
        path.write_text("label,more,uri\n" + "".join(f"{label or ''},x,{uri}\n" for uri, label in rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"uri": uri, "label": label}) + "\n\n" for uri, label in rows))
    else:
        pq.write_table(pa.table({"uri": [uri for uri, _ in rows], "label": [label for _, label in rows]}), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_two_rows_with_one_uri_are_refused(tmp_path: Path, kind: str) -> None:
    """Else one image counts twice against the budget, with two labels."""
    with pytest.raises(DuplicateImage, match=r"1\.jpg is in two rows"):
        _list(_table(tmp_path / f"t.{kind}", [("1.jpg", "a"), ("2.jpg", "a"), ("1.jpg", "b")]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "file,label\na.jpg,x\n", "file, label: uri is missing"),
        ("t.csv", "", "the file is empty"),
        ("t.csv", "uri,label\na.jpg,x\n,y\n", "row 2 has no uri"),
        ("t.csv", "uri,label\na.jpg\n", "Expected 2 columns"),
        ("t.jsonl", '{"uri": "a.jpg"}\n{"label": "x"}\n', "line 2 has no uri that is a string"),
        ("t.jsonl", '{"uri": "a.jpg"\n', "line 1 is not JSON"),
        ("t.jsonl", '{"uri": 5}\n', "line 1 has no uri that is a string"),
        ("t.jsonl", '{"uri": "a", "label": "\\ud800"}\n', "surrogates not allowed"),
        ("t.jsonl", '{"uri": "a.jpg"}\n{"uri": ""}\n', "row 2 has no uri"),
        ("t.parquet", "no parquet", "not readable as Parquet"),
    ],
)
def test_broken_tables_say_what_is_missing(tmp_path: Path, name: str, content: str, message: str) -> None:
    """Else a user searches a table of a million rows for the one that is wrong."""
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidTable, match=message):
        _list(tmp_path / name)


@pytest.mark.parametrize("row_group", [3, 100])
def test_embedded_images_as_hugging_face_writes_them(tmp_path: Path, row_group: int) -> None:
    """Else a dataset from the hub has numbers for labels, or reads one row's image for another's."""
    images = [{"bytes": f"image {n}".encode() * 50, "path": f"{n}.jpg" if n % 2 else None} for n in range(40)]
    names = ["cat", "dog"]
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    table = pa.table({"image": images, "label": [n % 2 for n in range(40)]})
    table = table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=row_group)
    entries, _ = _list(tmp_path / "d.parquet")
    assert [(e.path, e.label) for e in entries[:2]] == [("000000000", "cat"), ("000000001-1.jpg", "dog")]
    with SourceReader(10_000) as reader:
        for n in (0, 1, 2, 17, 18, 39, 5, 38):
            assert reader.read(entries[n].uri, entries[n].size, entries[n].version) == f"image {n}".encode() * 50


def test_a_uri_that_names_nothing(tmp_path: Path) -> None:
    """Else a typing error ends as an empty job that passes for a success."""
    with pytest.raises(DatasetNotFound, match="there is nothing at"):
        _list(tmp_path / "none")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(UnsupportedDataset, match=r"a \.zip cannot be read; use a folder"):
        _list(tmp_path / "x.zip")
    with pytest.raises(UnsupportedDataset, match="ftp://host cannot be read"):
        absolute_uri("ftp://host/x")


def test_reading_names_what_is_wrong_with_one_image(tmp_path: Path) -> None:
    """Else an image that is missing or too large stops the job or fills the memory."""
    _tree(tmp_path, "1.jpg")
    uri = (tmp_path / "1.jpg").as_uri()
    with SourceReader(5) as reader:
        with pytest.raises(SourceTooLarge, match=r"23 bytes is over the limit of 5 .*--max-bytes"):
            reader.read(uri)
        with pytest.raises(SourceNotFound, match="no such file"):
            reader.read((tmp_path / "2.jpg").as_uri())
        with pytest.raises(UnreadableImage, match="not a regular file"):
            reader.read("file:///dev/zero")
        for odd in (f"{uri}#row=abc", f"{uri}#row=1", "file:///a%00b"):
            with pytest.raises(UnreadableImage, match="cannot be read"):
                reader.read(odd)


def test_what_is_no_file_is_closed_again(tmp_path: Path) -> None:
    """Else a table whose rows name folders takes the process's files, and the store is blamed."""
    before = len(os.listdir("/proc/self/fd"))
    with SourceReader(5) as reader:
        for _ in range(20):
            with pytest.raises(UnreadableImage, match="not a regular file"):
                reader.read(tmp_path.as_uri())
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_dataset_that_changed_since_it_was_listed_is_noticed(tmp_path: Path) -> None:
    """Else rows describe other images than those that were listed, and the digest is worth nothing."""
    entries, _ = _list(_tree(tmp_path / "d", "1.jpg", "2.jpg"))
    (tmp_path / "d/1.jpg").write_bytes(b"other")
    (tmp_path / "d/2.jpg").unlink()
    for entry, message in zip(entries, ("had 23 bytes when it was listed and has 5 now", "is gone"), strict=True):
        with pytest.raises(DatasetChanged, match=f"{message}.*resume the job"):
            _read(entry)
    tar, _ = _list(tar_file(tmp_path / "d.tar", {"1.jpg": b"one"}))
    os.utime(tmp_path / "d.tar", (1, 1))
    with pytest.raises(DatasetChanged, match="modified after it was listed"):
        _read(tar[0])


def test_a_tree_lists_in_flat_memory(tmp_path: Path) -> None:
    """Else listing a million files takes gigabytes. (All of them: `benchmarks/memory.py`.)"""
    for folder in range(20):
        (tmp_path / f"{folder:02d}").mkdir()
        for n in range(200):
            (tmp_path / f"{folder:02d}" / f"{n:04d}.jpg").touch()
    tracemalloc.start()
    count = sum(1 for _ in list_images(absolute_uri(str(tmp_path)), Skipped()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    assert peak < 400_000


def test_a_link_keeps_its_name_however_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a table in the cache of a hub, a link to a file without a suffix, is refused by its relative path."""
    for name in ("cwd", "snapshot", "blobs", "other/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "blobs" / "3f9a").write_text("uri,label\n")
    (tmp_path / "snapshot" / "train.csv").symlink_to("../blobs/3f9a")
    (tmp_path / "cwd" / "link").symlink_to(tmp_path / "other" / "deep")
    monkeypatch.chdir(tmp_path / "cwd")
    assert absolute_uri("../snapshot/train.csv") == (tmp_path / "snapshot" / "train.csv").as_uri()
    assert absolute_uri("link/../x.tar") == (tmp_path / "other" / "x.tar").as_uri()
