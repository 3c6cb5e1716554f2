"""What orchestrators ask a process; that of workers and the clock is asked in tests/e2e/test_faults.py."""

from __future__ import annotations

import subprocess
import sys
from http.server import SimpleHTTPRequestHandler

from tests.servers import free_ports, serving


def _check(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "keepmore_services.liveness", url], capture_output=True, text=True, check=False
    )


def test_a_server_that_answers_lives_and_one_that_does_not_is_named() -> None:
    """Else an API that hangs gets callers for ever, or one that works is started again and again."""
    with serving(SimpleHTTPRequestHandler) as url:
        assert _check(url).returncode == 0
        lost = _check(f"{url}/no-such-page")
        assert (lost.returncode, "404" in lost.stderr) == (1, True)
    closed_url = f"http://127.0.0.1:{free_ports(1)[0]}"
    dead = _check(closed_url)
    assert (dead.returncode, closed_url in dead.stderr, "Traceback" in dead.stderr) == (1, True, False)
