"""The scratch disk: what goes when there is no more room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keepmore.errors import InvalidRequest
from keepmore.scratch import Scratch


def _entry(root: Path, name: str, size: int, used: int) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(bytes(size))
    os.utime(folder, (used, used))
    return folder


def test_what_was_longest_unused_goes_first(tmp_path: Path) -> None:
    """Else the images of the training under way are decoded again for the next arm."""
    scratch = Scratch(str(tmp_path), most_bytes=1000)
    old, new = _entry(tmp_path, "a", 400, 2), _entry(tmp_path, "b", 400, 1)
    assert scratch.make_room(200)
    assert old.exists()
    assert new.exists()
    assert scratch.found("b") == new
    assert scratch.make_room(500)
    assert not old.exists()
    assert new.exists()


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    """Else decoding the test images removes the training images, and a fine-tuning ends before its first step."""
    scratch = Scratch(str(tmp_path), most_bytes=1000)
    needed, other = _entry(tmp_path, "a", 600, 1), _entry(tmp_path, "b", 300, 2)
    assert not scratch.make_room(500, [needed])
    assert needed.exists()
    assert other.exists(), "nothing is removed in vain"
    assert scratch.make_room(400, [needed])
    assert needed.exists()
    assert not other.exists()


def test_its_size_is_a_size() -> None:
    """Else a misspelt setting fills the disk."""
    assert Scratch.from_environment({"KEEPMORE_SCRATCH_BYTES": "2GB"}).most_bytes == 2 * 10**9
    assert Scratch.from_environment({"KEEPMORE_SCRATCH_BYTES": ""}).most_bytes is None
    with pytest.raises(InvalidRequest, match="KEEPMORE_SCRATCH_BYTES: 'much' is no size"):
        Scratch.from_environment({"KEEPMORE_SCRATCH_BYTES": "much"})
