"""Features in the store, found again by the checksum of what they were made from."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepmore.errors import StoreError
from keepmore.storage.base import Store

# The names in a file and, if any was asked for, the features in it.
_Read = tuple[NDArray[np.bytes_], NDArray[np.float16] | None]


class FeatureCache:
    """The features below `prefix`, in files of many images each. A file's name is its content's, so that any number of
    processes may add at once.
    """

    def __init__(self, store: Store, prefix: str, held: bool = False) -> None:
        """`held`: keep in memory what was read, for whoever asks a hundred times: the names in every file, and the
        features of those that were asked for."""
        self._store = store
        self.prefix = prefix
        self._held: dict[str, _Read] | None = {} if held else None

    def find(self, names: NDArray[np.bytes_]) -> tuple[NDArray[np.bool_], NDArray[np.float16]]:
        """Which of `names`, shape (images,), are there, and the features of these in their order, (found, width)."""
        there = np.zeros(len(names), np.bool_)
        vectors: NDArray[np.float16] = np.empty((len(names), 0), np.float16)
        for key in self._store.keys(self.prefix):
            for places, found in self._in_file(key, names):
                if vectors.shape[1] != found.shape[1]:
                    vectors = np.empty((len(names), found.shape[1]), np.float16)
                there[places], vectors[places] = True, found
        return there, vectors[there]

    def _in_file(self, key: str, names: NDArray[np.bytes_]) -> list[tuple[NDArray[np.intp], NDArray[np.float16]]]:
        found = None if self._held is None else self._held.get(key)
        if found is None or (found[1] is None and np.isin(names, found[0]).any()):
            found = self._read(key, names)
        if self._held is not None:
            self._held[key] = found
        own, vectors = found
        return [] if vectors is None else _matching(own, vectors, names)

    def _read(self, key: str, names: NDArray[np.bytes_]) -> _Read:
        try:
            with self._store.open(key) as file, np.load(file, allow_pickle=False) as arrays:
                own = arrays["names"]  # read alone: most files hold nothing that is asked for
                return own, arrays["vectors"] if np.isin(names, own).any() else None
        except (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise StoreError(f"{key} is damaged ({error}); delete it: what it holds is then made again") from error

    def add(self, names: NDArray[np.bytes_], vectors: NDArray[np.float16], about: dict[str, Any]) -> None:
        """Put `vectors`, shape (images, width), under their `names`; `about` says what made them."""
        unique, first = np.unique(names, return_index=True)
        if len(unique):
            buffer = io.BytesIO()
            np.savez(buffer, names=unique, vectors=vectors[first], about=np.array(json.dumps(about)))
            data = buffer.getvalue()
            self._store.put(f"{self.prefix}{hashlib.sha256(data).hexdigest()[:32]}.npz", data)


def _matching(
    own: NDArray[np.bytes_], vectors: NDArray[np.float16], names: NDArray[np.bytes_]
) -> list[tuple[NDArray[np.intp], NDArray[np.float16]]]:
    """The places of `names` that are among `own`, ascending, and their vectors."""
    at = np.minimum(np.searchsorted(own, names), len(own) - 1)
    places = np.flatnonzero(own[at] == names)
    return [(places, vectors[at[places]])] if len(places) else []
