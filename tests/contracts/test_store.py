"""What every store must do, whatever it is made of."""

from __future__ import annotations

import io
import random
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmore.errors import NotFound, StoreError
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore
from keepmore.storage.s3 import S3Store

Maker = Callable[[], Store]
KINDS = ("folder", "s3")
EXAMPLES = {"folder": 60, "s3": 20}

key_parts = st.text("abc-.0Z_", min_size=1, max_size=6).filter(lambda part: part not in (".", "..", ".tmp"))
key_lists = st.lists(st.lists(key_parts, min_size=1, max_size=4).map("/".join), max_size=12, unique=True)


@pytest.fixture(params=KINDS)
def maker(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    """Makes empty stores of one kind."""
    if request.param == "folder":
        return lambda: FolderStore(tmp_path / secrets.token_hex(8))
    server = request.getfixturevalue("s3")
    return lambda: S3Store(server.endpoint, server.bucket, f"contract/{secrets.token_hex(8)}")


@pytest.fixture
def any_store(maker: Maker) -> Store:
    return maker()


def test_put_then_get_gives_the_same_bytes(any_store: Store) -> None:
    """Else stored images come back as something else."""
    any_store.put("objects/ab/x.jxl", b"\0\xffbytes")
    assert any_store.get("objects/ab/x.jxl") == b"\0\xffbytes"


def test_put_replaces(any_store: Store) -> None:
    """Else a job's final state is never seen."""
    any_store.put("jobs/1.json", b"old")
    any_store.put("jobs/1.json", b"new")
    assert any_store.get("jobs/1.json") == b"new"


def test_put_all_writes_every_object(any_store: Store) -> None:
    """Else a chunk's manifest rows point at nothing."""
    objects = {f"objects/{n}": bytes([n]) * n for n in range(20)}
    any_store.put_all(objects)
    assert {key: any_store.get(key) for key in objects} == objects


def test_create_writes_once(any_store: Store) -> None:
    """Else two jobs that draw one id overwrite each other."""
    assert any_store.create("jobs/1.json", b"first")
    assert not any_store.create("jobs/1.json", b"second")
    assert any_store.get("jobs/1.json") == b"first"


def test_create_has_one_winner_of_many(any_store: Store) -> None:
    """Else two requests with one idempotency key both think that they made the job."""
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: any_store.create("jobs/1.json", bytes([n])), range(32)))
    assert sum(results) == 1
    assert any_store.get("jobs/1.json") == bytes([results.index(True)])


def test_a_missing_key_is_not_found(any_store: Store) -> None:
    """Else callers cannot tell a missing object from a broken store."""
    for read in (any_store.get, any_store.open):
        with pytest.raises(NotFound, match="work/nothing"):
            read("work/nothing")
    assert not any_store.exists("work/nothing")


def test_a_folder_of_keys_is_no_key(any_store: Store) -> None:
    """Else a prefix passes for a finished step."""
    any_store.put("work/1/index.json", b"{}")
    assert not any_store.exists("work/1")
    with pytest.raises(NotFound):
        any_store.get("work/1")


@pytest.mark.parametrize("maker", KINDS, indirect=True)
def test_keys_are_those_with_the_prefix_in_order(maker: Maker, request: pytest.FixtureRequest) -> None:
    """Else a merge misses parts, or a page of jobs shows some twice."""

    @given(keys=key_lists, prefix=st.text("abc/-.", max_size=3), after=st.text("abc/-.Z", max_size=4))
    @settings(max_examples=EXAMPLES[request.node.callspec.params["maker"]])
    def check(keys: list[str], prefix: str, after: str) -> None:
        keys = [key for key in keys if not any(other.startswith(key + "/") for other in keys)]
        store = maker()
        store.put_all(dict.fromkeys(keys, b""))
        assert list(store.keys(prefix, after)) == sorted(k for k in keys if k.startswith(prefix) and k > after)

    check()


@pytest.mark.parametrize("maker", KINDS, indirect=True)
def test_keys_in_a_folder(maker: Maker, request: pytest.FixtureRequest) -> None:
    """Else an image's stored encodings are overlooked, or those of another image are taken for them."""

    @given(keys=key_lists, folder=key_parts)
    @settings(max_examples=EXAMPLES[request.node.callspec.params["maker"]])
    def check(keys: list[str], folder: str) -> None:
        keys = [key for key in keys if not any(other.startswith(key + "/") for other in keys)]
        store = maker()
        store.put_all(dict.fromkeys(keys, b""))
        folders = {key.rpartition("/")[0] for key in keys if "/" in key} | {folder}
        for one in folders:
            assert store.keys_in(one) == {key for key in keys if key.startswith(one + "/")}

    check()


def test_keys_are_asked_for_in_a_folder_that_can_be(any_store: Store) -> None:
    """Else a slip in a path lists the whole store, or a folder outside it."""
    for wrong in ("", "a/", "../a", "a//b"):
        with pytest.raises(StoreError, match="is not a store key"):
            any_store.keys_in(wrong)


def test_more_keys_than_one_answer_holds(any_store: Store) -> None:
    """Else a job of a million images loses the parts behind the first thousand."""
    keys = [f"{folder}{n % 7}{'-' if n % 2 else '/'}{n:04d}" for folder in ("a/", "a-", "") for n in range(800)]
    any_store.put_all(dict.fromkeys(keys, b""))
    assert list(any_store.keys("")) == sorted(keys)
    assert list(any_store.keys("a", "a-3")) == sorted(key for key in keys if key > "a-3" and key[0] == "a")


def test_delete_takes_a_key_away(any_store: Store) -> None:
    """Else a cancelled job's mark stays for ever, or deleting twice ends in an error."""
    any_store.put_all({"work/1/a": b"", "work/1/b": b""})
    any_store.delete("work/1/a")
    any_store.delete("work/1/a")
    any_store.delete("work/1/none/there")
    any_store.delete("work/1")
    assert list(any_store.keys("")) == ["work/1/b"]


@pytest.mark.parametrize("size", [0, 1, 100_000, 20_000_000])
def test_any_size_comes_back(any_store: Store, size: int) -> None:
    """Else an index too large for one request, or an empty list of errors, cannot be kept."""
    data = random.Random(size).randbytes(size)
    with any_store.writer("big") as file:
        file.write(data[: size // 2])
        file.write(data[size // 2 :])
    assert any_store.get("big") == data
    with any_store.open("big") as file:
        assert file.read() == data
        for place in (size // 3, 0, size - 7, size // 2):
            file.seek(max(place, 0))
            assert file.read(1000) == data[max(place, 0) :][:1000]
        assert file.seek(0, io.SEEK_END) == size
        assert file.read(1) == b""


def test_odd_names_are_kept(any_store: Store) -> None:
    """Else a key with a space, a percent sign or a letter beyond ASCII cannot be read back."""
    keys = ["a b", "a%20b", "späße 猫.jpg", "a#b?c&d+e", "'\"<>`"]
    any_store.put_all({f"odd/{key}": key.encode() for key in keys})
    assert list(any_store.keys("odd/")) == sorted(f"odd/{key}" for key in keys)
    assert [any_store.get(f"odd/{key}") for key in keys] == [key.encode() for key in keys]


def test_parquet_reads_a_part_through_open(any_store: Store) -> None:
    """Else reading two columns of an index means reading all of it."""
    table = pa.table({"a": list(range(1000)), "b": ["x"] * 1000})
    with any_store.writer("work/1/index.parquet") as file:
        pq.write_table(table, file)
    with any_store.open("work/1/index.parquet") as file:
        assert pq.read_table(file, columns=["a"])["a"].to_pylist() == list(range(1000))


def test_a_writer_that_fails_leaves_nothing(any_store: Store) -> None:
    """Else a crash in a merge leaves half an index that looks whole."""
    with pytest.raises(ZeroDivisionError), any_store.writer("work/1/index.parquet") as file:
        file.write(b"%d" % (1 // 0))
    assert not any_store.exists("work/1/index.parquet")
    assert list(any_store.keys("")) == []


def test_readers_never_see_half_a_value(any_store: Store) -> None:
    """Else a poll reads a job record that does not parse."""
    values = [bytes([n]) * 200_000 for n in range(8)]
    any_store.put("jobs/1.json", values[0])
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(any_store.put, "jobs/1.json", value) for value in values]
        results = [any_store.get("jobs/1.json") for _ in range(50)]
        for future in futures:
            future.result()
    assert set(results) <= set(values)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "a//b", "./a", "a/", "a\0b"])
def test_a_key_cannot_leave_the_store(any_store: Store, key: str) -> None:
    """Else a crafted name reads or overwrites files outside the store."""
    for call in (any_store.get, lambda k: any_store.put(k, b"")):
        with pytest.raises(StoreError):
            call(key)
