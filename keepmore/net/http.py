"""Connections to addresses that users name: which machines may be reached at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.response import HTTPResponse
from urllib3.util.connection import allowed_gai_family

from keepmore.errors import AddressRefused, InvalidUri
from keepmore.net.access import RETRIES
from keepmore.net.retry import retry_policy

CONNECT_S, READ_S = 10, 30
THREADS = 8
NAT64 = IPv6Network("64:ff9b::/96")


def guarded_http(
    private_addresses: bool, retries: Retry | None = None, timeout: Timeout | None = None, threads: int = THREADS
) -> PoolManager:
    """An HTTP client that reaches private, loopback and link-local addresses only if `private_addresses`.

    It connects to the address that was checked, whatever the name resolves to a moment later; every redirect opens a
    connection of its own and is checked like the first. Requests raise AddressRefused and InvalidUri. Redirects are not
    followed unless requested. The timeout for reading applies to the headers of an answer as a whole.
    """
    http = PoolManager(
        maxsize=threads,
        retries=retry_policy(RETRIES) if retries is None else retries,
        timeout=timeout or Timeout(connect=CONNECT_S, read=READ_S),
    )
    http.pool_classes_by_scheme = (
        {"http": _TimelyPool, "https": _TimelyTLSPool}
        if private_addresses
        else {"http": _GuardedPool, "https": _GuardedTLSPool}
    )
    return http


def public_addresses(host: str, port: int) -> list[str]:
    """Addresses of `host` that the whole internet can reach.

    Raises AddressRefused, InvalidUri for an impossible host name, and socket.gaierror if the name is not found.
    """
    try:
        answers = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    except UnicodeError as error:
        raise InvalidUri(
            f"{host} is not a host name: there must be 1 to 63 valid characters between its dots; check it"
        ) from error
    addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    public = [address for address in addresses if is_public(address)]
    if not public:
        raise AddressRefused(
            f"{host} is at {', '.join(addresses)}: connections to private, loopback and link-local addresses are not "
            "allowed; set KEEPMORE_PRIVATE_ADDRESSES=1 to allow them"
        )
    return public


def is_public(address: str) -> bool:
    """Whether `address` is on the public internet; IPv4 addresses embedded in IPv6 are checked, too."""
    if "%" in address:
        return False  # an address with a zone belongs to one link
    plain = _unwrapped(ip_address(address))
    if isinstance(plain, IPv6Address) and plain.is_site_local:
        return False  # private networks before fc00::/7 (RFC 3879); Python calls it global
    return plain.is_global and not (plain.is_multicast or plain.is_reserved or plain.is_unspecified)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (address, address))[1]


class _Timely(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        with _time_limit(self.timeout or READ_S, self.sock):
            return super().getresponse()


@contextmanager
def _time_limit(limit_s: float, sock: socket.socket) -> Iterator[None]:
    """Raises TimeoutError unless the block, which reads `sock`, ends in time.

    A socket's own timeout restarts with every byte: headers sent byte by byte would hold a worker for days.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which spoils the reading thread's object

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise TimeoutError(f"no complete answer within {limit_s:g} s")


class _TimelyTLS(_Timely, HTTPSConnection):
    pass


class _TimelyPool(HTTPConnectionPool):
    ConnectionCls = _Timely


class _TimelyTLSPool(HTTPSConnectionPool):
    ConnectionCls = _TimelyTLS


class _Guarded(_Timely):
    """Resolves its host once, and connects to that address. TLS still verifies the name."""

    def _new_conn(self) -> socket.socket:
        name = self._dns_host
        try:
            addresses = public_addresses(name, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        try:
            for address in addresses[:-1]:
                self._dns_host = address
                with suppress(NewConnectionError, ConnectTimeoutError):
                    return super()._new_conn()
            self._dns_host = addresses[-1]
            return super()._new_conn()
        finally:
            self._dns_host = name


class _GuardedTLS(_Guarded, HTTPSConnection):
    pass


class _GuardedPool(HTTPConnectionPool):
    ConnectionCls = _Guarded


class _GuardedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedTLS
