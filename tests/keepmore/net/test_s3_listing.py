"""Names in ascending order, whatever a server's own order is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.net.s3_listing import Listing, OutOfOrder, ascending

parts = st.text("ab-.0 ~é", min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
names = st.lists(st.lists(parts, min_size=1, max_size=4).map("/".join), max_size=30, unique=True)


@dataclass(frozen=True, slots=True)
class Name:
    key: str


def _by_bytes(keys: list[str]) -> Listing[Name]:
    return lambda prefix, start: (Name(k) for k in sorted(keys) if k.startswith(prefix) and k > start)


def _by_walk(keys: list[str], skips: bool) -> Listing[Name]:
    """As a tree is walked. `skips`: SeaweedFS skips the folder that a start names; others only begin behind it."""

    def listing(prefix: str, start: str) -> Iterator[Name]:
        for key in sorted(keys, key=lambda key: key.split("/")):
            passed = skips and bool(start) and key.startswith(start + "/")
            if key.startswith(prefix) and key.split("/") > start.split("/") and not passed:
                yield Name(key)

    return listing


@given(keys=names, prefix=st.text("ab/-.", max_size=3), after=st.text("ab-.0/", max_size=5), batch=st.integers(1, 6))
@pytest.mark.parametrize("kind", ["bytes", "walk", "walk that skips"])
def test_names_come_in_order(kind: str, keys: list[str], prefix: str, after: str, batch: int) -> None:
    """Else a class `cat-big` beside `cat` lists behind it, and the index of a dataset is refused or short of images."""
    listing = _by_bytes(keys) if kind == "bytes" else _by_walk(keys, skips=kind.endswith("skips"))
    listed_keys = [name.key for name in ascending(listing, prefix, after, batch)]
    assert listed_keys == sorted(key for key in keys if key.startswith(prefix) and key > after)


def test_a_server_without_any_order_is_refused() -> None:
    """Else images that such a server lists late are dropped without a word."""
    with pytest.raises(OutOfOrder, match="'b' is listed after 'd'"):
        list(ascending(lambda prefix, start: iter([Name("c"), Name("d"), Name("b")]), "", batch=2))
