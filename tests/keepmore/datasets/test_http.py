"""Datasets on the web: what a server has to offer, and what they may point at."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keepmore.datasets.address import check_dataset
from keepmore.datasets.reader import SourceReader
from keepmore.errors import SourceNotAllowed, UnsupportedDataset
from keepmore.net.access import Access
from tests.conftest import tar_file
from tests.keepmore.datasets.remote import list_dataset as _list
from tests.keepmore.datasets.remote import read_images as _read
from tests.keepmore.datasets.remote import write_table as _table
from tests.servers import WebServer, web


def test_a_tar_needs_a_server_with_ranges(tmp_path: Path) -> None:
    """Else reading one image of a tar means fetching all of it, every time."""
    tar_file(tmp_path / "d.tar", {"a/1.jpg": b"1"})
    with web(tmp_path, ranges=False) as web_server, pytest.raises(UnsupportedDataset, match="HTTP ranges"):
        _list(f"{web_server.url}/d.tar", Access())


def test_a_table_on_the_web_reads_no_files_of_this_machine(
    tmp_path: Path, web_server: WebServer, access: Access
) -> None:
    """Else whoever writes a table reads /etc/passwd, or the bucket of another team."""
    (tmp_path / "1.jpg").write_bytes(b"picture")
    _table(tmp_path / "t.csv", [("file:///etc/passwd", "a"), ("s3://keepmore/x.jpg", "a"), ("1.jpg", "a")])
    narrow = replace(access, allowed=(web_server.url,))
    entries, _ = _list(f"{web_server.url}/t.csv", narrow)
    with SourceReader(1000, narrow) as reader:
        assert [reader.read(entry.uri) for entry in entries if entry.path == "1.jpg"] == [b"picture"]
        for entry in entries:
            if entry.path != "1.jpg":
                with pytest.raises(SourceNotAllowed):
                    reader.read(entry.uri)
    with pytest.raises(SourceNotAllowed):
        check_dataset((tmp_path / "t.csv").as_uri(), narrow)


def test_a_passing_fault_of_a_server_is_waited_for(tmp_path: Path, web_server: WebServer) -> None:
    """Else one overloaded minute of a server fails a thousand images."""
    (tmp_path / "1.jpg").write_bytes(b"picture")
    web_server.failures = [503, 500]
    with SourceReader(1000) as reader:
        assert reader.read(f"{web_server.url}/1.jpg") == b"picture"


def test_reading_in_order_takes_few_requests(tmp_path: Path, web_server: WebServer) -> None:
    """Else every image of a tar costs a round trip, and a job over the web takes days."""
    tar_file(tmp_path / "d.tar", {f"{n:03d}.jpg": random.Random(n).randbytes(50_000) for n in range(200)})
    entries, _ = _list(f"{web_server.url}/d.tar", Access())
    assert len(web_server.requests) < 20
    web_server.requests.clear()
    web_server.sent_bytes = 0
    assert len(_read(entries, Access())) == 200
    assert len(web_server.requests) < 20
    assert web_server.sent_bytes < 12_000_000
    _let_finish(web_server)
    web_server.sent_bytes = 0
    _read(entries[150:151], Access())
    assert web_server.sent_bytes < 400_000


def _let_finish(web_server: WebServer) -> None:
    """Wait until the server has noticed that nobody reads on."""
    sent_bytes = -1
    while sent_bytes != web_server.sent_bytes:
        sent_bytes = web_server.sent_bytes
        time.sleep(0.3)
