"""The console script. The command is imported within `try`: however early Ctrl-C comes, there is no traceback."""

from __future__ import annotations

import sys

from keepmore.cli import EXIT_INTERRUPTED


def main() -> None:
    try:
        from keepmore.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("keepmore: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
