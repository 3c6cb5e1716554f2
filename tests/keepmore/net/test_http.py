"""Connections to addresses that users name: which machines may be reached at all."""

from __future__ import annotations

import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from urllib3 import Retry, Timeout
from urllib3.exceptions import HTTPError

from keepmore.datasets.reader import SourceReader
from keepmore.errors import AddressRefused, InvalidUri
from keepmore.net.access import Access
from keepmore.net.http import guarded_http, is_public, public_addresses
from tests.servers import serving, web

NEVER = Retry(0)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "feff::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:1:2:3:4:80ff:fffe",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Else a table on the web reads the cloud's metadata service, or a database next door."""
    assert not is_public(address)


def test_addresses_that_are_public() -> None:
    """Else nothing on the web can be read."""
    for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "169.254.169.254",
        "10.0.0.1",
    ],
)
def test_no_spelling_of_a_private_address_is_connected_to(host: str) -> None:
    """Else one of the many ways to write 127.0.0.1 reaches a service of the machine itself."""
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(0.05)
        http = guarded_http(private_addresses=False, retries=NEVER)
        with pytest.raises(AddressRefused, match="KEEPMORE_PRIVATE_ADDRESSES"):
            http.request("GET", f"http://{host}:{port}/")
        with pytest.raises(AddressRefused):
            http.request("GET", f"https://{host}:{port}/")
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64 + ".org"])
def test_what_no_host_can_be_called_is_named(host: str) -> None:
    """Else a slip in an address is answered as a defect of the service."""
    with pytest.raises(InvalidUri, match=host):
        public_addresses(host, 443)
    with pytest.raises(InvalidUri, match=host):
        guarded_http(private_addresses=False, retries=NEVER).request("GET", f"http://{host}/")


class _Slow(BaseHTTPRequestHandler):
    """Sends the headers of its answer byte by byte."""

    def do_GET(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.alone
def test_an_answer_that_comes_byte_by_byte_is_given_up() -> None:
    """Else a server holds a worker for days, and whoever waits for a subset waits with it."""
    http = guarded_http(private_addresses=True, retries=NEVER, timeout=Timeout(connect=5, read=0.5))
    with serving(_Slow) as url:
        start_s = time.monotonic()
        with pytest.raises(HTTPError, match="timed out"):
            http.request("GET", url)
        assert time.monotonic() - start_s < 3


def test_private_addresses_are_read_where_they_may_be(tmp_path: Path) -> None:
    """Else a team cannot read its own server."""
    (tmp_path / "1.jpg").write_bytes(b"picture")
    with web(tmp_path) as config, SourceReader(100) as reader:
        assert reader.read(f"{config.url}/1.jpg") == b"picture"
    with web(tmp_path) as config, SourceReader(100, Access(private_addresses=False)) as reader:
        with pytest.raises(AddressRefused):
            reader.read(f"{config.url}/1.jpg")
        assert config.requests == []
