"""What may be read: allowed prefixes, addresses, credentials."""

from __future__ import annotations

import json
import pickle
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import Retry, Timeout
from urllib3.exceptions import HTTPError

from keepmore.datasets.reader import SourceReader
from keepmore.errors import AddressRefused, EndpointMissing, InvalidRequest, InvalidUri, SourceNotAllowed
from keepmore.net.access import Access, S3Endpoint
from keepmore.net.http import guarded_http, is_public, public_addresses
from tests.servers import serving, web

ANONYMOUS = {"url": "http://minio", "access_key": "", "secret_key": ""}
SECRET = "hunter2-hunter2"
NEVER = Retry(0)


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://photos", "s3://photos"),
        ("s3://photos", "s3://photos/a/b.jpg"),
        ("s3://photos/train/", "s3://photos/train/a#b?c%20d.jpg"),
        ("s3://photos/train", "s3://photos/train/x.tar#offset=1&length=2&path=a"),
        ("s3://", "s3://any/thing"),
        ("https://", "https://any.host/thing"),
        ("https://h.example/data", "HTTPS://H.example:443/data/a.jpg?token=1"),
        ("https://h.example/da%74a", "https://h.example/data/a.jpg"),
    ],
)
def test_what_lies_below_an_allowed_prefix_may_be_read(prefix: str, uri: str) -> None:
    """Else an operator's own data is refused."""
    Access(allowed=("s3://else", prefix)).check(uri)


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("s3://photos", "s3://photos-private/a.jpg"),
        ("s3://photos/train", "s3://photos/train2/a.jpg"),
        ("s3://photos/train", "s3://photos/Train/a.jpg"),
        ("s3://photos/train", "s3://photos/"),
        ("https://h.example/data", "https://h.example.evil.com/data/a.jpg"),
        ("https://h.example/data", "https://h.example:8443/data/a.jpg"),
        ("https://h.example/data", "http://h.example/data/a.jpg"),
        ("https://h.example/data", "https://h.example/database"),
        ("https://h.example/data", "https://h.example/data%2Fa.jpg"),
        ("https://", "http://h.example/"),
        ("s3://", "file:///etc/passwd"),
    ],
)
def test_what_lies_beside_an_allowed_prefix_may_not(prefix: str, uri: str) -> None:
    """Else a table on the web reads a neighbour's bucket, or a file of the machine."""
    with pytest.raises(SourceNotAllowed, match=r"may not be read here.*KEEPMORE_ALLOWED_SOURCES") as excinfo:
        Access(allowed=(prefix,)).check(uri)
    assert prefix in str(excinfo.value)


@given(st.lists(st.text("ab.%2eE/\\", max_size=4), max_size=5))
def test_no_path_climbs_out_of_a_prefix(parts: list[str]) -> None:
    """Else ".." in one of its disguises leaves the allowed bucket."""
    access = Access(allowed=("https://h.example/a/b",))
    uri = "https://h.example/a/b/" + "/".join(parts)
    try:
        access.check(uri)
    except (InvalidUri, SourceNotAllowed):
        return
    assert ".." not in uri.replace("%2e", ".").replace("%2E", ".").replace("\\", "/").split("/")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://photos/../private/x",
        "s3://photos/a/%2e%2e/x",
        "https://h.example/a/..%2f..%2fetc",
        "https://h.example/a/%252e%252e/x",
        "https://h.example/a/..\\x",
        "https://h.example/a\nb",
        "https://h.example\\@evil.com/",
        "https://evil.com\\.h.example/",
        "https:///x",
        "https://h.example:port/x",
        "s3:///x",
        "s3://a?b/x",
        "file://host/etc/passwd",
        "file:///a%00b",
        "no uri",
    ],
)
def test_tricks_are_refused_whatever_is_allowed(uri: str) -> None:
    """Else what was checked and what is read are two places."""
    with pytest.raises(InvalidUri):
        Access().check(uri)


@pytest.mark.parametrize("scheme", ["https", "s3", "ftp", "HTTP"])
@pytest.mark.parametrize(
    "rest", [f"me:{SECRET}@host/x.tar", f"{SECRET}@host", f"me:{SECRET}@host?x", f"a@{SECRET}@h/x"]
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(scheme: str, rest: str) -> None:
    """Else a password ends up in a job record, a manifest and a log."""
    with pytest.raises(InvalidUri, match="credentials") as excinfo:
        Access().check(f"{scheme}://{rest}")
    assert SECRET not in str(excinfo.value)


def test_links_are_followed_before_a_file_is_allowed(tmp_path: Path) -> None:
    """Else a link inside an allowed folder, or "..", reads any file of the machine."""
    allowed, outside = tmp_path / "data", tmp_path / "secret"
    for folder in (allowed, outside):
        folder.mkdir()
        (folder / "1.jpg").write_bytes(b"picture")
    (allowed / "link").symlink_to(outside)
    (tmp_path / "also").symlink_to(allowed)
    access = Access(allowed=(allowed.as_uri(),))
    access.check((allowed / "1.jpg").as_uri())
    access.check((tmp_path / "also/1.jpg").as_uri())
    access.check((allowed / "not/yet there.jpg").as_uri())
    access.check(f"file://{allowed}/x/../1.jpg")
    for uri in (f"file://{allowed}/../secret/1.jpg", (allowed / "link/1.jpg").as_uri(), f"file://{allowed}2/1.jpg"):
        with pytest.raises(SourceNotAllowed):
            access.check(uri)
    with SourceReader(100, access) as reader:
        assert reader.read((allowed / "1.jpg").as_uri()) == b"picture"
        with pytest.raises(SourceNotAllowed):
            reader.read((outside / "1.jpg").as_uri())
    with SourceReader(100, access.trusting(outside.as_uri())) as reader:
        assert reader.read((outside / "1.jpg").as_uri()) == b"picture"


def test_the_environment_says_what_may_be_read() -> None:
    """Else credentials have to stand in requests."""
    sources = [{"url": "https://a.example", "access_key": "a", "secret_key": SECRET, "buckets": ["photos-*"]}]
    access = Access.from_environment(
        {
            "KEEPMORE_S3_SOURCES": json.dumps(sources),
            "KEEPMORE_S3_ENDPOINT": "http://minio:9000",
            "KEEPMORE_S3_ACCESS_KEY": "k",
            "KEEPMORE_S3_SECRET_KEY": SECRET,
            "KEEPMORE_S3_REGION": "eu-west-1",
            "KEEPMORE_ALLOWED_SOURCES": "s3://photos-1, https://",
            "KEEPMORE_PRIVATE_ADDRESSES": "0",
        }
    )
    assert access.endpoint("photos-1").url == "https://a.example"
    assert access.endpoint("other") == S3Endpoint("http://minio:9000", "k", SECRET, "eu-west-1")
    assert (access.allowed, access.private_addresses) == (("s3://photos-1", "https://"), False)
    assert Access.from_environment({}) == Access()
    assert pickle.loads(pickle.dumps(access)) == access
    assert SECRET not in repr(access)
    with pytest.raises(EndpointMissing, match="KEEPMORE_S3_ENDPOINT"):
        Access().endpoint("other")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"KEEPMORE_S3_SOURCES": '[{"secret_key": "' + SECRET}, "KEEPMORE_S3_SOURCES"),
        ({"KEEPMORE_S3_SOURCES": json.dumps([{"secret": SECRET}])}, "KEEPMORE_S3_SOURCES"),
        ({"KEEPMORE_S3_SOURCES": json.dumps({"secret_key": SECRET})}, "KEEPMORE_S3_SOURCES"),
        ({"KEEPMORE_S3_ENDPOINT": "minio:9000"}, "KEEPMORE_S3_ENDPOINT .*: write it as https://host:port"),
        ({"KEEPMORE_S3_ENDPOINT": "http://minio", "KEEPMORE_S3_ACCESS_KEY": "k"}, "give both the access key and the"),
        ({"KEEPMORE_S3_ENDPOINT": "http://minio", "KEEPMORE_S3_SECRET_KEY": SECRET}, "give both the access key and"),
        ({"KEEPMORE_S3_ENDPOINT": "http://minio", "KEEPMORE_S3_REGION": "x y"}, "'x y' is no region"),
        (
            {"KEEPMORE_S3_SOURCES": json.dumps([ANONYMOUS | {"region": 1}])},
            "1 is no region",
        ),
        ({"KEEPMORE_S3_SOURCES": json.dumps([ANONYMOUS | {"buckets": "photos-*"}])}, "buckets are a list of patterns"),
        ({"KEEPMORE_S3_SOURCES": json.dumps([ANONYMOUS | {"buckets": [1]}])}, "buckets are a list of patterns"),
        ({"KEEPMORE_S3_SOURCES": json.dumps([ANONYMOUS | {"access_key": 5}])}, "both keys are texts"),
        (
            {"KEEPMORE_ALLOWED_SOURCES": f"https://me:{SECRET}@host"},
            "KEEPMORE_ALLOWED_SOURCES: .* contains credentials",
        ),
        ({"KEEPMORE_ALLOWED_SOURCES": "ftp://"}, "KEEPMORE_ALLOWED_SOURCES: a prefix begins with file://"),
        ({"KEEPMORE_S3_ENDPOINT": "http://minio:9000/path"}, "without a path"),
        ({"KEEPMORE_S3_ENDPOINT": f"http://me:{SECRET}@minio"}, "credentials"),
        ({"KEEPMORE_ALLOWED_SOURCES": "photos"}, "KEEPMORE_ALLOWED_SOURCES: this is not a URI"),
        ({"KEEPMORE_PRIVATE_ADDRESSES": "no"}, "KEEPMORE_PRIVATE_ADDRESSES"),
        ({"KEEPMORE_S3_ENDPOINT": "http://minio:9000", "KEEPMORE_S3_ROLE": "yes"}, "KEEPMORE_S3_ROLE"),
        (
            {"KEEPMORE_S3_ENDPOINT": "http://minio:9000", "KEEPMORE_S3_ROLE": "1", "KEEPMORE_S3_ACCESS_KEY": "k"},
            "it has a role and keys; remove one",
        ),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], message: str) -> None:
    """Else a service starts with half of its settings, or prints a secret."""
    with pytest.raises(InvalidRequest, match=message) as excinfo:
        Access.from_environment(environ)
    assert SECRET not in str(excinfo.value)


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


def test_every_hop_of_a_redirect_is_checked(tmp_path: Path) -> None:
    """Else an allowed server sends the reader on to one that is not."""
    (tmp_path / "1.jpg").write_bytes(b"picture")
    with web(tmp_path) as config, web(tmp_path) as other:

        def away(to: str) -> str:
            return f"{config.url}/redirect?to={quote(to)}"

        with SourceReader(100, Access(allowed=(config.url,))) as reader:
            assert reader.read(away("/1.jpg")) == b"picture"
            assert reader.read(away(away("1.jpg"))) == b"picture"
            for target in (f"{other.url}/1.jpg", f"file://{tmp_path}/1.jpg", "ftp://h/x", "s3://bucket/x"):
                with pytest.raises(SourceNotAllowed):
                    reader.read(away(target))
        assert other.requests == []
        with SourceReader(100) as reader:
            assert reader.read(away(f"{other.url}/1.jpg")) == b"picture"
            with pytest.raises(SourceNotAllowed, match="only http and https are followed"):
                reader.read(away(f"file://{tmp_path}/1.jpg"))


def test_no_region_is_the_default_one() -> None:
    """Else a setting that worked ends every command, even those that use no S3."""
    sources = json.dumps(
        [ANONYMOUS, ANONYMOUS | {"region": None}, ANONYMOUS | {"region": "", "access_key": None, "secret_key": None}]
    )
    access = Access.from_environment({"KEEPMORE_S3_SOURCES": sources, "KEEPMORE_S3_ENDPOINT": "http://minio"})
    assert {endpoint.region for endpoint in access.endpoints} == {"us-east-1"}
