"""The feature cache: features are found again by content, whichever job put them there."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keepmore.errors import StoreError
from keepmore.storage.folder import FolderStore
from keepmore.training.feature_cache import FeatureCache
from keepmore.training.results import LoadedModel

PREFIX = "features/backbone/0/"
MODEL = LoadedModel("drawn", "none", None, {}, "cpu", "float32")


def _names(numbers: list[int]) -> NDArray[np.bytes_]:
    return np.array([hashlib.sha256(str(number).encode()).digest() for number in numbers], "S32")


def _vectors(numbers: list[int]) -> NDArray[np.float16]:
    return np.array([[number, -number, number / 2] for number in numbers], np.float16).reshape(-1, 3)


@given(
    st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=6),
    st.lists(st.integers(0, 80), max_size=40),
    st.booleans(),
)
@settings(max_examples=40)
def test_what_was_put_there_is_found_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], query: list[int], in_memory: bool
) -> None:
    """Else an image is trained on with the features of another one, or its features are made again for ever."""
    store = FolderStore(tmp_path_factory.mktemp("features"))
    feature_cache = FeatureCache(store, PREFIX, in_memory)
    for numbers in batches:
        feature_cache.add(_names(numbers), _vectors(numbers), MODEL)
    contents = {number for numbers in batches for number in numbers}
    for _ in range(2):
        there, vectors = feature_cache.find(_names(query))
        assert there.tolist() == [number in contents for number in query]
        expected = [number for number in query if number in contents]
        assert np.array_equal(vectors.reshape(-1, 3), _vectors(expected))


def test_names_that_end_in_zeros_are_names_like_others(store: FolderStore) -> None:
    """Else one image in 256 is lost, because arrays of bytes are written without zeros at their end."""
    names = np.array([b"a" * 31 + b"\0", b"a" * 30 + b"\0\0", b"a" * 32], "S32")
    feature_cache = FeatureCache(store, PREFIX)
    feature_cache.add(names[:2], _vectors([1, 2]), MODEL)
    there, vectors = feature_cache.find(names)
    assert there.tolist() == [True, True, False]
    assert np.array_equal(vectors, _vectors([1, 2]))


def test_the_same_features_are_kept_once(store: FolderStore) -> None:
    """Else every redelivered step fills the disk with another copy."""
    for _ in range(2):
        FeatureCache(store, PREFIX).add(_names([3, 1, 2, 3]), _vectors([3, 1, 2, 3]), MODEL)
    assert len(list(store.keys(PREFIX))) == 1


def test_two_processes_add_at_once_and_nothing_is_lost(store: FolderStore, tmp_path: Path) -> None:
    """Else two trainers that share a backbone overwrite each other's features."""
    program = (
        "import sys; from pathlib import Path\n"
        "from keepmore.training.feature_cache import FeatureCache; from keepmore.storage.folder import FolderStore\n"
        "from tests.keepmore.training.test_feature_cache import _names, _vectors, PREFIX, MODEL\n"
        "cache = FeatureCache(FolderStore(Path(sys.argv[1])), PREFIX)\n"
        "for start in range(int(sys.argv[2]), 400, 10):\n"
        "    cache.add(_names([*range(start, start + 20)]), _vectors([*range(start, start + 20)]), MODEL)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "store"), start], stderr=subprocess.PIPE)
        for start in ("0", "5")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    numbers = list(range(405))
    there, vectors = FeatureCache(store, PREFIX).find(_names(numbers))
    assert there.all()
    assert np.array_equal(vectors, _vectors(numbers))


@given(st.integers(0, 10**6), st.one_of(st.none(), st.integers(0, 255)))
def test_a_damaged_file_is_named_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int | None
) -> None:
    """Else a flipped bit on the disk ends a training with a traceback, or trains on other features in silence."""
    store = FolderStore(tmp_path_factory.mktemp("damaged"))
    numbers = list(range(8))
    FeatureCache(store, PREFIX).add(_names(numbers), _vectors(numbers), MODEL)
    (key,) = store.keys(PREFIX)
    data = bytearray(store.get(key))
    place %= len(data)
    if value is None:
        del data[place:]
    else:
        data[place] = value
    store.put(key, bytes(data))
    message = ""
    try:
        there, vectors = FeatureCache(store, PREFIX).find(_names(numbers))
    except StoreError as error:
        message = error.message
    whole = not message and bool(there.all()) and np.array_equal(vectors, _vectors(numbers))
    assert whole or (key in message and "delete it: its features are then made again" in message)


def test_a_cache_in_memory_reads_each_file_once_and_sees_new_ones(store: FolderStore) -> None:
    """Else a hundred pilots read the same features a hundred times, or miss what was made since the first."""
    FeatureCache(store, PREFIX).add(_names([1, 2]), _vectors([1, 2]), MODEL)
    feature_cache = FeatureCache(store, PREFIX, in_memory=True)
    assert feature_cache.find(_names([1, 2]))[0].all()
    (key,) = store.keys(PREFIX)
    store.put(key, b"damaged, but in memory")
    assert feature_cache.find(_names([2]))[1].tolist() == _vectors([2]).tolist()
    with pytest.raises(StoreError, match="is damaged"):
        FeatureCache(store, PREFIX).find(_names([2]))
    store.delete(key)
    FeatureCache(store, PREFIX).add(_names([5]), _vectors([5]), MODEL)
    assert feature_cache.find(_names([5]))[0].all()


def test_a_cache_in_memory_opens_no_file_again_that_has_nothing_for_it(store: FolderStore) -> None:
    """Else a hundred pilots open what all other jobs left, each time: minutes, in a store that many share."""
    FeatureCache(store, PREFIX).add(_names([1]), _vectors([1]), MODEL)
    (other,) = store.keys(PREFIX)
    FeatureCache(store, PREFIX).add(_names([2]), _vectors([2]), MODEL)
    feature_cache = FeatureCache(store, PREFIX, in_memory=True)
    assert feature_cache.find(_names([2]))[0].all()
    data = store.get(other)
    store.put(other, b"damaged, but known to hold nothing")
    assert feature_cache.find(_names([2]))[0].all()
    store.put(other, data)
    assert feature_cache.find(_names([1, 2]))[0].all(), "asked for more, it looks"
