"""Whether a process of the service still runs: `python -m keepmore_services.liveness`, exit code 0 or 1.

A worker, trainer or clock marks a file of its own whenever its loop comes round; a file older than STALE_S means that
it hangs. With a URL, its answer counts instead. Imports little: it is run every few seconds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

MARK = Path(tempfile.gettempdir()) / "keepmore-alive"
EVERY_S = 5.0
STALE_S = 60.0
TIMEOUT_S = 4.0


def mark() -> None:
    """The loop of this process has come round."""
    MARK.touch()


def trouble() -> str | None:
    """Why the process whose loop marks the file counts as hung; None while it does not."""
    try:
        age_s = time.time() - MARK.stat().st_mtime
    except FileNotFoundError:
        return f"{MARK} is not there: nothing runs here, or it has not come up yet"
    return f"{MARK} is {age_s:.0f} s old, more than {STALE_S:.0f}: the process hangs" if age_s > STALE_S else None


def trouble_at(url: str) -> str | None:
    """Why the server at `url` counts as hung; None while it answers."""
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=TIMEOUT_S):
            return None
    except OSError as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    problem = trouble_at(sys.argv[1]) if sys.argv[1:] else trouble()
    if problem:
        print(problem, file=sys.stderr)
    sys.exit(1 if problem else 0)
