"""Calls to a receiver that is not as it should be; what a good one receives is in the tests of the service."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from keepmore.jobs.job import Job, State
from keepmore.jobs.webhooks import Notifier
from keepmore.spec.job import Request
from tests.servers import serving

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
BLOCK = bytes(1 << 20)
MOST_BLOCKS = 200  # a test that reads an answer without an end would not fail, but hang


class _Talker(BaseHTTPRequestHandler):
    """Takes the call and answers as much as anybody reads; `blocks`: how much that was."""

    blocks: ClassVar[int] = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        while _Talker.blocks < MOST_BLOCKS:
            self.wfile.write(BLOCK)
            _Talker.blocks += 1

    def log_message(self, *_: object) -> None:
        return None


def test_an_answer_without_an_end_is_not_read() -> None:
    """Else whoever receives a webhook fills the memory of a worker, and its other steps die with it."""
    with serving(_Talker) as url:
        job = Job("j", Request("file:///d", (4,), webhook=url), "2026-01-01T00:00:00Z", state=State.SUCCEEDED)
        assert Notifier(SECRET, private_addresses=True)._call(job, datetime.now(UTC)).status == 200
    assert _Talker.blocks < MOST_BLOCKS / 2
