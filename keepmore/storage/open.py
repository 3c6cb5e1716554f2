"""Opening the store at an address."""

from __future__ import annotations

from pathlib import Path

from keepmore.errors import InvalidUri
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore


def open_store(address: str, access: Access) -> Store:
    """The store at s3://bucket/prefix or in a folder, as a path or file:// URI. Raises EndpointMissing, InvalidUri,
    StoreUnwritable."""
    if not address.strip():
        raise InvalidUri("the store has no name; write a folder or s3://bucket/prefix, or leave --store out")
    if is_folder(address):
        return FolderStore(folder_of(address))
    # Imported here because minio takes longer to import than everything else that a command needs.
    from keepmore.storage.s3 import S3Store

    uri = uris.parse(address)
    return S3Store(access.endpoint(uri.bucket), uri.bucket, uri.key, access.retries)


def is_folder(address: str) -> bool:
    """Whether the store at an address is in a folder, as those are that are not in S3."""
    return not address.lower().startswith("s3://")


def check_writable(store: Store) -> None:
    """Raises StoreUnwritable or StoreFull for a folder in which nothing can be written; of S3, only a write tells."""
    if isinstance(store, FolderStore):
        store.check_writable()


def folder_of(address: str) -> Path:
    """The folder that a path or file:// URI names. Raises InvalidUri for other addresses."""
    scheme, colon, rest = address.partition(":")
    if not colon or not (rest.startswith("//") or scheme.lower() in ("s3", "file")):
        return Path(address).expanduser()
    path = uris.parse(address).local_path if address.lower().startswith("file:///") else ""
    shown = f"{scheme}://..." if "@" in address else address  # it may hold a password
    if not path or ".." in path.split("/") or set(address) & {"?", "#"}:
        raise InvalidUri(
            f"the store {shown!r} is none that can be used; write a folder as a path or file:///path, without .., ? "
            "and # in it, or s3://bucket/prefix"
        )
    return Path(path)
