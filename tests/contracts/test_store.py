"""What every store must do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepmore.errors import NotFound, StoreError
from keepmore.store import FolderStore, Store

MAKERS: dict[str, Callable[[Path], Store]] = {"folder": FolderStore}

key_parts = st.text("abc-.0Z_", min_size=1, max_size=6).filter(lambda part: part not in (".", "..", ".tmp"))
key_lists = st.lists(st.lists(key_parts, min_size=1, max_size=4).map("/".join), max_size=12, unique=True)


@pytest.fixture(params=list(MAKERS))
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MAKERS[request.param](tmp_path / "store")


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
        won = list(pool.map(lambda n: any_store.create("jobs/1.json", bytes([n])), range(32)))
    assert sum(won) == 1
    assert any_store.get("jobs/1.json") == bytes([won.index(True)])


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


@given(keys=key_lists, prefix=st.text("abc/-.", max_size=3), after=st.text("abc/-.Z", max_size=4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_keys_are_those_with_the_prefix_in_order(
    maker: Callable[[Path], Store],
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[str],
    prefix: str,
    after: str,
) -> None:
    """Else a merge misses parts, or a page of jobs shows some twice."""
    keys = [key for key in keys if not any(other.startswith(key + "/") for other in keys)]
    found = maker(tmp_path_factory.mktemp("keys"))
    for key in keys:
        found.put(key, b"")
    assert list(found.keys(prefix, after)) == sorted(k for k in keys if k.startswith(prefix) and k > after)


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
        writing = [pool.submit(any_store.put, "jobs/1.json", value) for value in values]
        read = [any_store.get("jobs/1.json") for _ in range(50)]
        for done in writing:
            done.result()
    assert set(read) <= set(values)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../b", "a//b", "./a", "a/", "a\0b"])
def test_a_key_cannot_leave_the_store(any_store: Store, key: str) -> None:
    """Else a crafted name reads or overwrites files outside the store."""
    for call in (any_store.get, lambda k: any_store.put(k, b"")):
        with pytest.raises(StoreError):
            call(key)
