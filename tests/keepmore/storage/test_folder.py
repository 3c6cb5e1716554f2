"""What is particular to the store in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepmore.storage.folder import FolderStore


def test_addresses_do_not_depend_on_where_a_command_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever renames the folder in which they ran a command loses all images of its manifests."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert FolderStore(Path("../store")).uri("a") == (tmp_path / "store" / "a").as_uri()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    assert FolderStore(Path("../link/../store")).uri("a") == (tmp_path / "elsewhere" / "store" / "a").as_uri()
    assert FolderStore(Path("../work/store")).uri("a") == (tmp_path / "work" / "store" / "a").as_uri()
