"""Which store a place names."""

from __future__ import annotations

from pathlib import Path

from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.storage.base import Store
from keepmore.storage.folder import FolderStore


def open_store(place: str, access: Access) -> Store:
    """The store at `place`: s3://bucket/prefix, or a folder. Raises EndpointMissing, InvalidUri, StoreUnwritable."""
    if not place.lower().startswith("s3://"):
        return FolderStore(Path(place).expanduser())
    # Imported here because minio takes longer to import than all else that a command needs.
    from keepmore.storage.s3 import S3Store

    uri = uris.parse(place)
    return S3Store(access.endpoint(uri.bucket), uri.bucket, uri.key, access.retries)
