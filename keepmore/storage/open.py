"""Opening the store at an address."""

from __future__ import annotations

from pathlib import Path

from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore


def open_store(address: str, access: Access) -> Store:
    """The store at s3://bucket/prefix or in a folder. Raises EndpointMissing, InvalidUri, StoreUnwritable."""
    if not address.lower().startswith("s3://"):
        return FolderStore(Path(address).expanduser())
    # Imported here because minio takes longer to import than everything else that a command needs.
    from keepmore.storage.s3 import S3Store

    uri = uris.parse(address)
    return S3Store(access.endpoint(uri.bucket), uri.bucket, uri.key, access.retries)
