"""What may be read: allowed prefixes and credentials."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmore.datasets.reader import SourceReader
from keepmore.errors import EndpointMissing, InvalidRequest, InvalidUri, SourceNotAllowed
from keepmore.net.access import Access, S3Endpoint
from tests.servers import web

ANONYMOUS = {"url": "http://minio", "access_key": "", "secret_key": ""}
SECRET = "hunter2-hunter2"


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
        ({"KEEPMORE_S3_ACCESS_KEY": "k"}, "KEEPMORE_S3_ACCESS_KEY and KEEPMORE_S3_SECRET_KEY: give both, or neither"),
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
        *(
            ({"KEEPMORE_ALLOWED_SOURCES": word}, "KEEPMORE_ALLOWED_SOURCES: this is not a URI")
            for word in ("file", "s3", "HTTPS")  # a name, where somebody meant a folder
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
