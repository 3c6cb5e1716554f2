"""Reads every object of a manifest again: anybody who deletes originals wants to know that the kept images are
there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from keepmore.codec.sandbox import IsolatedDecoder
from keepmore.datasets.reader import SourceReader
from keepmore.errors import ImageError, InvalidRequest
from keepmore.net.access import Access
from keepmore.selection import manifest
from keepmore.selection.manifest import Metadata, Problem, Totals
from keepmore.spec.job import Limits

BATCH_ROWS = 64


def verify(
    file: Path, limits: Limits, on_row: Callable[[int, int], None], access: Access | None = None
) -> Iterator[Problem]:
    """Read every object again and compare its size, checksum and decodability; then the totals and the digest.

    `on_row` is called with the number and the bytes of the rows as they are checked.
    """
    try:
        yield from _verify(file, limits, on_row, access or Access())
    except InvalidRequest as error:
        yield Problem("", "unreadable_manifest", error.message)


def _verify(file: Path, limits: Limits, on_row: Callable[[int, int], None], access: Access) -> Iterator[Problem]:
    digest, images, size = manifest.Digest(), 0, 0
    reading = SourceReader(limits.max_bytes, access)
    with manifest.open_manifest(file) as parquet, reading as reader, IsolatedDecoder() as decoder:
        metadata = manifest.metadata(parquet)
        for batch in manifest.batches(parquet, BATCH_ROWS):
            digest.add(batch)
            for row in batch.to_pylist():
                images += 1
                size += row["bytes"]
                yield from _check_row(row, reader, decoder, limits)
                on_row(1, row["bytes"])
    yield from _check_totals(metadata, Totals(images, size, digest.hexdigest()))


def _check_row(
    row: Mapping[str, Any], reader: SourceReader, decoder: IsolatedDecoder, limits: Limits
) -> Iterator[Problem]:
    """`row` has the columns of manifest.SCHEMA."""
    try:
        data = reader.read(row["object_uri"])
        difference = manifest.check_bytes(data, row["bytes"], row["sha256"])
        if difference is None:
            image = decoder.decode(data, limits.max_pixels)
            if image.size != (row["width"], row["height"]):
                difference = f"decodes to {image.width} x {image.height} pixels, not {row['width']} x {row['height']}"
        if difference:
            yield Problem(row["path"], "differs", f"{row['object_uri']} {difference}")
    except (ImageError, InvalidRequest) as error:
        yield Problem(row["path"], error.code, error.message)


def _check_totals(metadata: Metadata, totals: Totals) -> Iterator[Problem]:
    for field in fields(Totals):
        stated, actual = getattr(metadata.totals, field.name), getattr(totals, field.name)
        if stated != actual:
            yield Problem("", "altered", f"the manifest states {field.name} {stated}, its rows give {actual}")
    limit = metadata.budget_bytes
    if limit is not None and totals.bytes > limit:
        yield Problem("", "over_budget", f"{totals.bytes:,} bytes are over the budget of {limit:,}")
