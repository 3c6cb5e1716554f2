"""What a process may read, and with which credentials. Plain data: it is passed to worker processes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from keepmore.errors import EndpointMissing, InvalidRequest, InvalidUri, SourceNotAllowed
from keepmore.net import uri as uris

REGION = "us-east-1"
REGION_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
RETRIES = 10  # last through an outage of about 30 seconds


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """A server that speaks S3, the credentials for it, and the buckets it has, as shell patterns.

    `role`: the credentials are those of the role that the cloud gave this process, instead of keys.
    """

    url: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = REGION
    buckets: tuple[str, ...] = ("*",)
    role: bool = False

    def __post_init__(self) -> None:
        where = "S3 endpoint (KEEPMORE_S3_ENDPOINT or KEEPMORE_S3_SOURCES)"
        try:
            parsed = uris.parse(self.url)
        except InvalidUri as error:  # its message does not repeat credentials
            raise InvalidRequest(f"{where}: write it as https://host:port ({error.reason})") from None
        where = f"{where} {self.url}"
        if parsed.scheme not in uris.DEFAULT_PORTS or parsed.path.strip("/"):
            raise InvalidRequest(f"{where}: write it as https://host:port, without a path")
        if self.role and (self.access_key or self.secret_key):
            raise InvalidRequest(f"{where}: it has a role and keys; remove one of them")
        if not (isinstance(self.access_key, str) and isinstance(self.secret_key, str)):
            raise InvalidRequest(f"{where}: both keys are texts")
        if bool(self.access_key) != bool(self.secret_key):
            raise InvalidRequest(f"{where}: give both the access key and the secret key, or neither")
        if not self.buckets or not all(isinstance(pattern, str) and pattern for pattern in self.buckets):
            raise InvalidRequest(f'{where}: buckets are a list of patterns, such as ["photos-*"]')
        if not isinstance(self.region, str) or not REGION_NAME.fullmatch(self.region):
            raise InvalidRequest(f"{where}: {self.region!r} is no region; write one such as {REGION}")


@dataclass(frozen=True, slots=True)
class Access:
    """`allowed`: URI prefixes that may be read; None: all. `private_addresses`: whether http(s) may reach the network
    that this machine is in; it does not apply to the endpoints, which the operator configured. `retries`: how often a
    request is repeated, with growing pauses, before its server counts as unavailable.
    """

    endpoints: tuple[S3Endpoint, ...] = ()
    allowed: tuple[str, ...] | None = None
    private_addresses: bool = True
    retries: int = RETRIES

    def check(self, uri: str) -> None:
        """Raises SourceNotAllowed for what may not be read, InvalidUri for a malformed or deceptive URI."""
        parsed = uris.parse(uri)
        if self.allowed is None or any(uris.covers(prefix, parsed) for prefix in self.allowed):
            return
        raise SourceNotAllowed(
            f"{uri} may not be read here: it is not below {' or '.join(self.allowed) or 'any allowed prefix'}; "
            "add its prefix to KEEPMORE_ALLOWED_SOURCES"
        )

    def endpoint(self, bucket: str) -> S3Endpoint:
        """The first endpoint that has `bucket`. Raises EndpointMissing."""
        for endpoint in self.endpoints:
            if any(fnmatchcase(bucket, pattern) for pattern in endpoint.buckets):
                return endpoint
        raise EndpointMissing(
            f"no S3 endpoint is known for the bucket {bucket}; set KEEPMORE_S3_ENDPOINT, KEEPMORE_S3_ACCESS_KEY and "
            "KEEPMORE_S3_SECRET_KEY, or name the bucket in KEEPMORE_S3_SOURCES"
        )

    def trusting(self, prefix: str) -> Access:
        """This access, and everything below `prefix`: how a process reads the objects of its own store."""
        return self if self.allowed is None else replace(self, allowed=(*self.allowed, prefix))

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> Access:
        """The access that KEEPMORE_* variables describe. Raises InvalidRequest naming the variable that is wrong."""
        endpoints = _sources(environ.get("KEEPMORE_S3_SOURCES", ""))
        keys = (environ.get("KEEPMORE_S3_ACCESS_KEY", ""), environ.get("KEEPMORE_S3_SECRET_KEY", ""))
        url = environ.get("KEEPMORE_S3_ENDPOINT", "")
        if not url and bool(keys[0]) != bool(keys[1]):
            raise InvalidRequest("KEEPMORE_S3_ACCESS_KEY and KEEPMORE_S3_SECRET_KEY: give both, or neither")
        if url:
            role = _flag(environ, "KEEPMORE_S3_ROLE", "0")
            endpoints += (S3Endpoint(url, *keys, environ.get("KEEPMORE_S3_REGION") or REGION, role=role),)
        private_addresses = _flag(environ, "KEEPMORE_PRIVATE_ADDRESSES", "1")
        allowed = environ.get("KEEPMORE_ALLOWED_SOURCES")
        if allowed is None:
            return Access(endpoints, None, private_addresses)
        prefixes = tuple(prefix.strip() for prefix in allowed.split(",") if prefix.strip())
        starts = [f"{scheme}://" for scheme in uris.SCHEMES]
        for prefix in prefixes:
            try:
                if prefix.lower() not in starts and f"{uris.parse(prefix).scheme}://" not in starts:
                    raise InvalidUri(f"a prefix begins with {', '.join(starts)}")
            except InvalidUri as error:
                raise InvalidRequest(f"KEEPMORE_ALLOWED_SOURCES: {error.reason}") from None  # no secrets
        return Access(endpoints, prefixes, private_addresses)


EVERYTHING = Access()


def _flag(environ: Mapping[str, str], name: str, default: str) -> bool:
    value = environ.get(name) or default
    if value not in ("0", "1"):
        raise InvalidRequest(f"{name} is {value!r}; write 1 or 0")
    return value == "1"


def _sources(text: str) -> tuple[S3Endpoint, ...]:
    try:
        sources: Any = json.loads(text or "[]")
        endpoints = []
        for source in sources:
            patterns = source.get("buckets", ["*"])
            buckets = tuple(patterns) if isinstance(patterns, list) else ()  # a text is no list of its letters
            region = source.get("region") or REGION
            keys = {name: "" for name in ("access_key", "secret_key") if source.get(name, "") is None}
            endpoints.append(S3Endpoint(**{**source, **keys, "buckets": buckets, "region": region}))
        return tuple(endpoints)
    except (ValueError, TypeError, AttributeError):
        # The value holds secrets: neither it nor the parser's error is repeated.
        raise InvalidRequest(
            'KEEPMORE_S3_SOURCES is not a JSON list of objects {"url", "access_key", "secret_key", "region", "buckets"}'
        ) from None
