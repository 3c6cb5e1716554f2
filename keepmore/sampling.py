"""Orders of images by a hash of seed and path, the longest prefix that fits, and held-out images. Pure.

A subset is the longest prefix of an order whose bytes fit the budget, so subsets of a growing budget nest, and ten
million images cost one cumulative sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keepmore.errors import BudgetTooSmall


def path_hash(path: str) -> int:
    """A 64-bit hash of an image's path, independent of the seed: the first half of a rank."""
    return int.from_bytes(blake2b(path.encode(), digest_size=8).digest(), "little")


def ranks(path_hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """One rank per image, shape (n,): a hash of seed and path, so that an order stays the same as the dataset grows.

    The finaliser of SplitMix64 (Steele, Lea and Flood 2014) over the path's hash, twice, with the seed in between.
    """
    with np.errstate(over="ignore"):
        return _mix(_mix(path_hashes) + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


SizeKeys = Callable[[NDArray[np.integer[Any]]], NDArray[np.integer[Any]]]

# Every order that a selection may have: by ascending keys, which it makes of the images' bytes, or else of their ranks.
ORDERS: Mapping[str, SizeKeys | None] = {"random": None, "smallest": lambda bytes_: bytes_}


def size_keys(order: str) -> SizeKeys | None:
    """What makes keys of bytes, so that the order differs between distances; None where the keys are ranks."""
    if order not in ORDERS:
        raise ValueError(f"there is no order {order!r}")
    return ORDERS[order]


def in_order(keys: NDArray[Any], classes: NDArray[np.int32] | None = None) -> NDArray[np.int64]:
    """Indices by ascending key, shape (n,), ties by index. With `classes`, one image of each class in turn.

    A turn holds the next image of every class that has one left, by ascending key within the turn.
    """
    order = _stable_argsort(keys)
    if classes is None or len(order) == 0:
        return order
    numbers = classes[order] - classes.min()
    by_class = _stable_argsort(numbers)
    sizes = np.bincount(numbers)
    # In class order, an image's turn is its place among its own class.
    turns = np.arange(len(order))
    turns -= np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[_sorted_pairs(turns, by_class)]


def _stable_argsort(keys: NDArray[Any]) -> NDArray[np.int64]:
    """`np.argsort(keys, kind="stable")`, several times as fast: a radix sort for keys below 2^16, and the sort of one
    array where a key and its index fit one 64-bit integer."""
    key_bits = int(keys.max()).bit_length() if len(keys) and keys.min() >= 0 else 64
    if key_bits <= 16:
        return np.argsort(keys.astype(np.uint16), kind="stable")
    if key_bits + len(keys).bit_length() > 63:
        return np.argsort(keys, kind="stable")
    return _sorted_pairs(keys, np.arange(len(keys)))


def _sorted_pairs(firsts: NDArray[Any], seconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The second members of pairs sorted by both; `seconds` are indices, and both members fit 63 bits together."""
    bits = len(seconds).bit_length()
    pairs = firsts.astype(np.int64)
    pairs <<= bits
    pairs |= seconds
    pairs.sort()
    pairs &= (1 << bits) - 1
    return pairs


def select(bytes_: NDArray[np.integer[Any]], order: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Indices of the longest prefix of `order` whose bytes fit `budget`, shape (k,), k >= 1.

    Raises BudgetTooSmall, with the size that is needed, when not even the first image fits.
    """
    if len(order) == 0:
        raise BudgetTooSmall("there is no image to select from: every image of the pool failed; see the errors list")
    running_bytes = np.cumsum(bytes_[order], dtype=np.int64)
    count = int(np.searchsorted(running_bytes, budget, side="right"))
    if count == 0:
        raise BudgetTooSmall(
            f"{budget:,} bytes do not hold the first image of the order, "
            f"which takes {int(running_bytes[0]):,} bytes; raise the budget",
            field="budget",
        )
    return order[:count]


def held_out(ranks_: NDArray[np.uint64], classes: NDArray[np.int32], fraction: float) -> dict[int, np.uint64]:
    """The largest rank held out, by class: the lowest-ranked `fraction` of each class, rounded, is held out.

    A class of two or more images has at least one in either split; a class of one image stays in the pool.
    """
    by_class = np.lexsort((ranks_, classes))
    numbers, starts, counts = np.unique(classes[by_class], return_index=True, return_counts=True)
    cutoffs = {}
    for number, start, size in zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True):
        count = min(max(round(size * fraction), 1), size - 1)
        if count > 0:
            cutoffs[number] = ranks_[by_class[start + count - 1]]
    return cutoffs
