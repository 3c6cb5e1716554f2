"""API keys: who may read, who may write. Only hashes of keys are stored here."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from http import HTTPStatus

from keepmore.errors import InvalidRequest
from keepmore_api.problems import Refused

READ, WRITE = "read", "write"
KEY_PREFIX = "km_"
FORM = "name:read:sha256 or name:read+write:sha256, several with commas between; `keepmore key NAME` makes one"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_ENTRY = re.compile(r"([A-Za-z0-9._-]+):(read|write|read\+write|write\+read):([0-9a-f]{64})")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="keepmore"'}


@dataclass(frozen=True, slots=True)
class ApiKey:
    name: str
    scopes: frozenset[str]
    sha256: str


ANYONE = ApiKey("anyone", frozenset((READ, WRITE)), "")


def parse(setting: str) -> tuple[ApiKey, ...]:
    """Keys from their setting; raises InvalidRequest for an invalid entry, without repeating it."""
    keys = []
    for number, entry in enumerate(filter(None, (part.strip() for part in setting.split(","))), 1):
        match = _ENTRY.fullmatch(entry)
        if not match:
            raise InvalidRequest(f"KEEPMORE_API_KEYS: entry {number} is not a key; write {FORM}")
        keys.append(ApiKey(match[1], frozenset(match[2].split("+")), match[3]))
    return tuple(keys)


def new_key(name: str, scopes: str) -> tuple[str, str]:
    """A new key, and the entry of the setting that admits it; raises InvalidRequest for an invalid name."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a key's name; use letters, digits, dots, dashes and underscores")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, f"{name}:{scopes}:{_sha256(key)}"


class Gate:
    """Admits callers. Without keys everyone may do everything: whoever starts the service is responsible for that."""

    def __init__(self, keys: tuple[ApiKey, ...]) -> None:
        self._keys = keys

    @property
    def is_open(self) -> bool:
        return not self._keys

    def admit(self, authorization: str | None, scope: str) -> ApiKey:
        """The caller's key; raises Refused, 401 without a valid key and 403 for one that lacks `scope`."""
        if self.is_open:
            return ANYONE
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            detail = (
                "an API key is needed; send it as the header Authorization: Bearer KEY "
                "(the command keepmore: --api-key KEY, or KEEPMORE_API_KEY)"
            )
            raise Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, _CHALLENGE)
        digest = _sha256(secret.strip())
        match = None
        for key in self._keys:  # all of them, so that the time taken reveals nothing
            if hmac.compare_digest(key.sha256, digest):
                match = key
        if match is None:
            detail = "this API key is not known; ask whoever runs the service for one"
            raise Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", detail, _CHALLENGE)
        if scope not in match.scopes:
            detail = f"the key {match.name} may not {scope}; ask for one with the scope {scope}"
            raise Refused(HTTPStatus.FORBIDDEN, "forbidden", detail)
        return match


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
