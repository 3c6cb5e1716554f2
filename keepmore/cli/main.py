"""The `keepmore` command. Imports little: what a command needs is imported when it runs."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any

import click

from keepmore import __version__
from keepmore.cli import jobs, manifests, tools
from keepmore.cli.options import EXIT_FAILED, EXIT_USAGE
from keepmore.errors import DatasetError, InvalidRequest, JobNotFound, KeepmoreError, SubsetNotFound, TrainingNotFound

WRONG_REQUESTS = (InvalidRequest, DatasetError, JobNotFound, SubsetNotFound, TrainingNotFound)


class _Commands(click.Group):
    """The commands of this package, and those that installed services add."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *(point.name for point in _entry_points())})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        own = super().get_command(context, name)
        if own:
            return own
        return next((point.load() for point in _entry_points() if point.name == name), None)


def _entry_points() -> Any:
    return entry_points(group="keepmore.commands")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="keepmore")
def cli() -> None:
    """Keep more training images in the same storage.

    Exit codes: 0 done; 1 failed (the message says why, and whether `keepmore resume` helps); 2 the request is wrong;
    3 `verify` found problems; 130 interrupted.
    """


for command in (*jobs.COMMANDS, *manifests.COMMANDS, *tools.COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Run the command: errors become a message and an exit code, never a traceback. Raises KeyboardInterrupt."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeepmoreError as error:
        click.echo(f"keepmore: {error}", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, WRONG_REQUESTS) else EXIT_FAILED)
    except OSError as error:  # trouble of the machine: a full temporary folder, a name that is too long
        place = f"{error.filename}: " if error.filename is not None else ""
        click.echo(f"keepmore: {place}{error.strerror or error}", err=True)
        sys.exit(EXIT_FAILED)
