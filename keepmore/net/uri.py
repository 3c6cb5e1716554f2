"""URIs as users write them: parsed, checked for deception, and compared by folders."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from keepmore.errors import InvalidUri

SCHEMES = ("file", "s3", "http", "https")
DEFAULT_PORTS = {"http": 80, "https": 443}
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ODD_HOST = re.compile(r"[\s\\%\"<>^`{|}]")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
DECODE_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Uri:
    """A checked URI. `path` is as written: percent-encoded for file and http(s), the plain key (with "/") for s3.

    `host` is the bucket for s3. A fragment of file and http(s) is not part of it.
    """

    text: str
    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def bucket(self) -> str:
        return self.host

    @property
    def key(self) -> str:
        """An S3 key, unchanged: percent-encoding, "#" and "?" have no meaning in it."""
        return self.path.removeprefix("/")

    @property
    def local_path(self) -> str:
        """The path that a file URI names."""
        return os.fsdecode(unquote_to_bytes(self.path))


# A request's dataset is checked in a dozen places, each of which checks something else.
@lru_cache(maxsize=1024)
def parse(text: str) -> Uri:
    """Raises InvalidUri for credentials, control characters, "." or ".." as a part, and what is not a URI.

    Messages never repeat credentials.
    """
    scheme, colon, rest = text.partition("://")
    scheme = scheme.lower()
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if not colon or not SCHEME.fullmatch(scheme):
        raise InvalidUri("this is not a URI; write file://, s3:// or https:// before it")
    if "@" in authority:
        raise InvalidUri(
            f"a {scheme}:// URI contains credentials (name:password@); remove them: those of S3 belong in "
            "KEEPMORE_S3_ACCESS_KEY and KEEPMORE_S3_SECRET_KEY"
        )
    if CONTROL.search(text) or ODD_HOST.search(authority):
        raise InvalidUri(f"{text!r} contains a character that a URI must not have; percent-encode or remove it")
    if scheme == "s3":
        if not BUCKET.fullmatch(authority):
            raise InvalidUri(
                f"{text!r} names no bucket; write s3://bucket/prefix, with a name of 3 to 63 letters, digits, dots, "
                "hyphens and underscores"
            )
        uri = Uri(text, "s3", authority, None, rest[len(authority) :])
    else:
        uri = _split(text, scheme)
    if uri.scheme == "file":
        if "\0" in uri.local_path:
            raise InvalidUri(f"{text!r} contains a NUL character (%00), which no file name has; remove it")
    elif climbs(uri.path):
        raise InvalidUri(f'{text!r} has a part "." or "..", which could leave the allowed prefixes; remove it')
    return uri


def absolute_path(path: str) -> str:
    """`path` from the root and without "..". Only the file system knows what that leads to after a symbolic link; links
    that no ".." follows keep their names."""
    parts = (path if os.path.isabs(path) else os.path.join(os.getcwd(), path)).split("/")
    if ".." in parts:
        after = len(parts) - parts[::-1].index("..")
        parts = [os.path.realpath("/".join(parts[:after])), *parts[after:]]
    return os.path.abspath("/".join(parts))


def climbs(path: str) -> bool:
    """Whether "." or ".." is a part of `path`, however often percent-encoded and whichever slash stands beside it."""
    for _ in range(DECODE_ROUNDS):
        if any(part in ("..", ".") for part in re.split(r"[/\\]", path)):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        path = decoded
    return True  # no honest name is encoded so often


def covers(prefix: str, uri: Uri) -> bool:
    """Whether `uri` is `prefix` or lies below it, compared part by part: s3://photos does not cover s3://photos-private.

    A prefix that is a scheme only ("https://") covers every host. Links below file:// are followed first.
    """
    if prefix.lower().removesuffix("://") in SCHEMES:
        return uri.scheme == prefix.lower().removesuffix("://")
    root = parse(prefix)
    if (root.scheme, root.host, root.port) != (uri.scheme, uri.host, uri.port):
        return False
    root_parts = _parts(root)
    return _parts(uri)[: len(root_parts)] == root_parts


def _parts(uri: Uri) -> list[str]:
    if uri.scheme == "file":
        return [part for part in os.path.realpath(uri.local_path).split("/") if part]
    parts = uri.path.split("/")[1:]
    if parts and parts[-1] == "":
        parts.pop()
    return parts if uri.scheme == "s3" else [unquote(part) for part in parts]


def _split(text: str, scheme: str) -> Uri:
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT_PORTS.get(scheme)
        host = parts.hostname or ""
    except ValueError as error:
        raise InvalidUri(f"{text!r} is not a valid URI ({error}); correct it") from error
    if scheme == "file" and host not in ("", "localhost"):
        raise InvalidUri(f"{text!r} names the machine {host}; write file:///path for a file on this machine")
    if scheme in DEFAULT_PORTS and not host:
        raise InvalidUri(f"{text!r} names no host; write {scheme}://host/path")
    return Uri(text, scheme, "" if scheme == "file" else host, port, parts.path)
