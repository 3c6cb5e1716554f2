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
    if not address.lower().startswith("s3://"):
        return FolderStore(_folder(address))
    # Imported here because minio takes longer to import than everything else that a command needs.
    from keepmore.storage.s3 import S3Store

    uri = uris.parse(address)
    return S3Store(access.endpoint(uri.bucket), uri.bucket, uri.key, access.retries)


def _folder(address: str) -> Path:
    scheme, colon, rest = address.partition(":")
    if colon and scheme.lower() == "file" and rest.startswith("//"):
        return Path(uris.parse(address).local_path)
    if colon and (rest.startswith("//") or scheme.lower() == "s3"):
        raise InvalidUri(f"the store {address!r} is neither a folder nor s3://bucket/prefix; write one of them")
    return Path(address).expanduser()
