"""A TCP proxy that counts what passes, and holds back answers or breaks connections on request."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Stands before a server. `received_bytes`: bytes that came back from it."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._target = (place.hostname or "", place.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received_bytes = 0
        self.connections = 0
        self.down = False
        self.delay_s = 0.0  # how much later every piece of an answer arrives
        self.cuts: list[int] = []  # each breaks one connection after so many bytes have come back
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Break every connection, and refuse new ones until `restore`."""
        self.down = True
        for one in list(self._open):
            _end(one)

    def restore(self) -> None:
        self.down = False

    def drop_for(self, seconds: float) -> None:
        self.drop()
        threading.Timer(seconds, self.restore).start()

    def close(self) -> None:
        self.drop()
        _end(self._listener)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self.down:
                    _end(client)
                    continue
                server = socket.create_connection(self._target)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        cut = self.cuts.pop(0) if back and self.cuts else None
        with suppress(OSError):
            while data := source.recv(65536):
                if back:
                    time.sleep(self.delay_s)
                    self.received_bytes += len(data)
                    if cut is not None:
                        data, cut = data[:cut], cut - len(data)
                target.sendall(data)
                if cut is not None and cut <= 0:
                    break
        for one in (source, target):
            self._open.discard(one)
            _end(one)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxy_for(url: str) -> Iterator[Proxy]:
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
