"""The console script. The command is imported within `try`: however early Ctrl-C comes, there is no traceback."""

from __future__ import annotations

import signal
import sys

from keepmore.cli import EXIT_INTERRUPTED


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # orchestrators end a command as Ctrl-C does
    try:
        from keepmore.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("keepmore: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
