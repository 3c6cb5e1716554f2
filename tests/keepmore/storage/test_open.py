"""Opening the store at an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepmore.errors import EndpointMissing, InvalidUri
from keepmore.net.access import Access
from keepmore.storage.folder import FolderStore
from keepmore.storage.open import open_store


def test_a_folder_is_a_path_or_a_uri(tmp_path: Path) -> None:
    """Else what is kept goes to a folder called file: in whatever folder the command ran."""
    for address in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri(), f"FILE://{tmp_path}/a%20b"):
        store = open_store(address, Access())
        assert isinstance(store, FolderStore)
        assert store.root == tmp_path / "a b"


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket/x",
        "https://host/x",
        "s3:/bucket/x",
        "S3:bucket",
        "file:",
        "file:x",
        "file:/x",
        "file://",
        "file:///x/../y",
        "file:///x?y=1",
        "file:///x#y",
    ],
)
def test_an_address_of_no_store_is_named(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a folder gets that name, and the bucket stays empty."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidUri, match="is none that can be used; write a folder"):
        open_store(address, Access())
    assert not list(tmp_path.iterdir())
    with pytest.raises(EndpointMissing):
        open_store("s3://bucket", Access())
    for empty in ("", " "):
        with pytest.raises(InvalidUri, match="the store has no name"):
            open_store(empty, Access())
