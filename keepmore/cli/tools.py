"""Commands beside jobs: draw images, bring images to where a service reads them, try a service."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click

from keepmore.cli.console import Console
from keepmore.cli.options import json_option, writable
from keepmore.config import packages_of
from keepmore.datasets.address import absolute_uri
from keepmore.datasets.entry import Skipped
from keepmore.errors import DatasetNotFound, InvalidRequest
from keepmore.net import uri as uris
from keepmore.net.access import Access
from keepmore.storage.open import open_store

UPLOADED_AT_ONCE = 64


@click.command(short_help="Write a labelled set of drawn JPEGs.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--train-images", type=click.IntRange(1), default=240, show_default=True, help="Images per class to select from."
)
@click.option(
    "--test-images", type=click.IntRange(1), default=60, show_default=True, help="Images per class to test on."
)
@click.option("--seed", type=int, default=0, show_default=True)
def sample(folder: Path, train_images: int, test_images: int, seed: int) -> None:
    """Write a labelled set of photograph-like JPEGs to FOLDER/train and FOLDER/test, the same for the same seed."""
    with packages_of("local"):
        from keepmore.synthetic.dataset import write_sample
    with writable(folder), Console(as_json=False).counting("draw", None) as on_row:
        write_sample(
            folder,
            train_per_class=train_images,
            test_per_class=test_images,
            seed=seed,
            processes=os.cpu_count() or 1,
            on_image=lambda done, total: on_row(1, 0, total),
        )


@click.command(short_help="Copy the images of a folder to a service.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("place", metavar="PLACE")
def upload(folder: Path, place: str) -> None:
    """Copy the images of FOLDER to PLACE, s3://bucket/prefix, where a service can read them.

    Their paths stay the same, so that a job over either gives the same manifests. Started again, it copies all again.
    """
    from keepmore.datasets.listing import list_images

    if not place.startswith("s3://"):
        raise InvalidRequest(f"{place}: name an S3 place, s3://bucket/prefix; a folder needs no upload")
    # The limits on what callers of a service may read do not apply to uploads.
    access = replace(Access.from_environment(os.environ), allowed=None)
    store, skipped, copied = open_store(place, access), Skipped(), 0
    console = Console(as_json=False)
    with console.counting("upload", None) as on_row:
        entries = list_images(absolute_uri(str(folder)), skipped, access)
        while batch := list(islice(entries, UPLOADED_AT_ONCE)):
            images = {entry.path: Path(uris.parse(entry.uri).local_path).read_bytes() for entry in batch}
            store.put_all(images)
            copied += len(images)
            on_row(len(images), sum(map(len, images.values())))
    if not copied:
        raise DatasetNotFound(f"{folder}: holds no image (skipped: {skipped}); check the path")
    console.say(f"{copied:,} images are in {place}" + (f"; skipped: {skipped}" if skipped else ""))


@click.command("try", short_help="Let a service run a small job and check it.")
@click.option("--server", envvar="KEEPMORE_SERVER", required=True, metavar="URL", help="Also KEEPMORE_SERVER.")
@click.option("--api-key", envvar="KEEPMORE_API_KEY", metavar="KEY", help="Also KEEPMORE_API_KEY.")
@click.option("--dataset", required=True, metavar="PLACE", help="s3://bucket/prefix for the images, beside the store.")
@click.option("--timeout", "timeout_s", type=float, default=300, show_default=True, help="Seconds for the job.")
@json_option
def try_service(server: str, api_key: str | None, dataset: str, timeout_s: float, as_json: bool) -> None:
    """Let a service run a small job over synthetic images, and count its manifests again: does all of it work?

    The images are put into PLACE with the credentials of KEEPMORE_S3_*, and deleted at the end.
    """
    from keepmore.client import Client

    with packages_of("local"):
        from keepmore.cli.smoke_test import try_out
    console = Console(as_json)
    access = Access.from_environment(os.environ)
    console.result(try_out(Client(server, api_key), dataset, access, timeout_s, console.error))


COMMANDS = (sample, upload, try_service)
