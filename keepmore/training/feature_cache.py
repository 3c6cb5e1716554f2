"""Features in the store, by the checksum of the objects that they were computed from."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from keepmore.errors import StoreError
from keepmore.storage.base import Store
from keepmore.training.results import LoadedModel


@dataclass(frozen=True, slots=True)
class _File:
    """The names in a file and, if any of these was requested, the features in it."""

    names: NDArray[np.bytes_]
    vectors: NDArray[np.float16] | None


class FeatureCache:
    """The features below `prefix`, in files of many images each. A file is named by its content, so that any number of
    processes may add at once.
    """

    def __init__(self, store: Store, prefix: str, in_memory: bool = False) -> None:
        """`in_memory`: keep the files that were read in memory, for repeated reads: the names in every file, and the
        features of the files that had a requested one."""
        self._store = store
        self.prefix = prefix
        self._files: dict[str, _File] | None = {} if in_memory else None

    def find(self, names: NDArray[np.bytes_]) -> tuple[NDArray[np.bool_], NDArray[np.float16]]:
        """Which of `names`, shape (images,), are there, and the features of these in their order, (found, width)."""
        there = np.zeros(len(names), np.bool_)
        vectors: NDArray[np.float16] = np.empty((len(names), 0), np.float16)
        for key in self._store.keys(self.prefix):
            file = self._file(key, names)
            if file.vectors is None:
                continue
            rows = np.minimum(np.searchsorted(file.names, names), len(file.names) - 1)
            places = np.flatnonzero(file.names[rows] == names)
            if len(places) == 0:
                continue
            if vectors.shape[1] != file.vectors.shape[1]:
                vectors = np.empty((len(names), file.vectors.shape[1]), np.float16)
            there[places], vectors[places] = True, file.vectors[rows[places]]
        return there, vectors[there]

    def _file(self, key: str, names: NDArray[np.bytes_]) -> _File:
        """The file under `key`, with its features if it has one of `names`; raises StoreError where it is damaged."""
        entry = self._files.get(key) if self._files is not None else None
        if entry and (entry.vectors is not None or not np.isin(names, entry.names).any()):
            return entry
        try:
            with self._store.open(key) as source, np.load(source, allow_pickle=False) as arrays:
                own = arrays["names"]  # read alone: most files have none of the requested ones
                file = _File(own, arrays["vectors"] if np.isin(names, own).any() else None)
        except (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise StoreError(f"{key} is damaged ({error}); delete it: its features are then made again") from error
        if self._files is not None:
            self._files[key] = file
        return file

    def add(self, names: NDArray[np.bytes_], vectors: NDArray[np.float16], model: LoadedModel) -> None:
        """Add `vectors`, shape (images, width), under their `names`; they were computed by `model` without its head."""
        unique, first = np.unique(names, return_index=True)
        if len(unique):
            buffer = io.BytesIO()
            np.savez(buffer, names=unique, vectors=vectors[first], about=np.array(json.dumps(asdict(model))))
            data = buffer.getvalue()
            self._store.put(f"{self.prefix}{hashlib.sha256(data).hexdigest()[:32]}.npz", data)
