"""The commands about manifests: verify and export."""

from __future__ import annotations

import errno
import filecmp
import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path

import click

from keepmore.cli.backend import open_backend
from keepmore.cli.console import Console
from keepmore.cli.options import EXIT_PROBLEMS, Place, json_option, place_options, writable
from keepmore.config import packages_of
from keepmore.errors import InvalidRequest
from keepmore.net.access import Access
from keepmore.spec.job import Limits
from keepmore.storage.open import folder_of, is_folder


@click.command(short_help="Check every object of a manifest.")
@click.argument("reference", metavar="MANIFEST")
@click.option("--max-pixels", type=int, default=64_000_000, show_default=True, help="Cap on one image.")
@click.option("--max-bytes", type=int, default=100_000_000, show_default=True, help="Cap on one image's file.")
@place_options
@json_option
def verify(reference: str, max_pixels: int, max_bytes: int, place: Place, as_json: bool) -> None:
    """Read every object of MANIFEST again: sizes, checksums, decodability, totals and digest. Exit 3 on a problem.

    MANIFEST is a file, or JOB/DISTANCE, or JOB/SUBSET/DISTANCE; a spread or a fit by its name: JOB/spread-0.5-15.
    """
    from keepmore.selection import manifest

    with packages_of("local"):
        from keepmore.selection.verify import verify as problems_of
    console = Console(as_json)
    with open_backend(place).manifest(reference) as file:
        with manifest.open_manifest(file) as parquet:
            about = manifest.metadata(parquet)
        with console.counting("verify", about.totals.images) as on_row:
            # The limits on what callers of a service may read do not apply to a check of its manifests.
            access = replace(Access.from_environment(os.environ), allowed=None)
            problems = list(problems_of(file, Limits(max_pixels, max_bytes), on_row, access))
    console.verified(reference, about, problems)
    sys.exit(EXIT_PROBLEMS if problems else 0)


@click.command(short_help="Write a manifest as Parquet, CSV or NDJSON.")
@click.argument("reference", metavar="MANIFEST")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there with other content.")
@place_options
def export(reference: str, out: Path, overwrite: bool, place: Place) -> None:
    """Write MANIFEST (a file, JOB/DISTANCE or JOB/SUBSET/DISTANCE) to OUT as .ndjson, .csv or .parquet."""
    from keepmore.selection import manifest

    written_as = next((suffix for suffix in manifest.EXPORTS if out.name.endswith(suffix)), None)
    if written_as is None:
        raise InvalidRequest(f"{out}: name the file {', '.join(manifest.EXPORTS)}")
    store = folder_of(place.store) if place.is_local and is_folder(place.store) else None
    if store and Path(os.path.realpath(out)).is_relative_to(os.path.realpath(store)):
        raise InvalidRequest(
            f"{out} lies in the store {place.store}, whose manifests stay as they are; name another place"
        )
    # A name that nobody else has: a file of the user's is neither written to nor removed.
    temporary = out.with_name(f".keepmore-{secrets.token_hex(8)}.partial")
    with open_backend(place).manifest(reference) as file, writable(out), temporary.open("xb") as target:
        try:
            target.writelines(manifest.EXPORTS[written_as].write(file))
            target.close()
            if overwrite:
                temporary.replace(out)
            elif not _create(temporary, out) and not (out.is_file() and filecmp.cmp(temporary, out, shallow=False)):
                raise InvalidRequest(
                    f"{out} is there already, with other content; name another file, or --overwrite it"
                )
        finally:
            temporary.unlink(missing_ok=True)


def _create(temporary: Path, out: Path) -> bool:
    """Give the file the name `out`; False if there is something of that name."""
    try:
        os.link(temporary, out)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.lexists(out):  # this file system has no hard links: a file that appears just now is replaced
            return False
        temporary.rename(out)
    return True


COMMANDS = (verify, export)
