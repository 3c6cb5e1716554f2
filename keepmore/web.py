"""Connections to addresses that users name: which machines may be reached at all."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from keepmore.access import RETRIES
from keepmore.errors import AddressRefused
from keepmore.ranged import patient

CONNECT_S, READ_S = 10, 30
THREADS = 8
NAT64 = IPv6Network("64:ff9b::/96")


def guarded_http(
    private_addresses: bool, retries: Retry | None = None, timeout: Timeout | None = None, threads: int = THREADS
) -> PoolManager:
    """An HTTP client that reaches private, loopback and link-local addresses only if it may.

    The address that is connected to is the one that was checked, whatever the name resolves to a moment later; every
    redirect makes a connection of its own and is checked like the first. Raises AddressRefused from a request.
    Redirects are not followed unless asked for.
    """
    http = PoolManager(
        maxsize=threads,
        retries=patient(RETRIES) if retries is None else retries,
        timeout=timeout or Timeout(connect=CONNECT_S, read=READ_S),
    )
    if not private_addresses:
        http.pool_classes_by_scheme = {"http": _GuardedPool, "https": _GuardedTLSPool}
    return http


def public_addresses(host: str, port: int) -> list[str]:
    """Addresses of `host` that the whole internet can reach. Raises AddressRefused, socket.gaierror for no answer."""
    answers = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    public = [address for address in found if is_public(address)]
    if not public:
        raise AddressRefused(
            f"{host} is at {', '.join(found)}: private, loopback and link-local addresses are not connected to; "
            "set KEEPMORE_PRIVATE_ADDRESSES=1 if they may be"
        )
    return public


def is_public(address: str) -> bool:
    """Whether a packet to `address` leaves for the internet, wherever IPv6 carries it in disguise."""
    if "%" in address:
        return False  # an address with a zone belongs to one link
    plain = _unwrapped(ip_address(address))
    return plain.is_global and not (plain.is_multicast or plain.is_reserved or plain.is_unspecified)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (address, address))[1]


class _Guarded(HTTPConnection):
    """Resolves its host once, and connects to what it found. TLS still verifies the name."""

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
