"""A road to a server that can be cut: what clients do then is theirs, and no history of the server is lost."""

from __future__ import annotations

import math
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

HALF_S: Final = 1.0


class Relay:
    """A port that leads to another one."""

    def __init__(self, listener: socket.socket, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.port: int = listener.getsockname()[1]
        self.carried = 0
        self._listener = listener
        self._target = port
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def lead_to(self, port: int) -> None:
        """Lead somewhere else from the next connection on."""
        self._target = port

    def cut(self) -> None:
        """End all connections at once, without a word."""
        cut, self._open = self._open, []
        for each in cut:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lead nowhere any more; returns when all is closed."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # who accepts does not hear of a close
        self._accepting.join()
        self.cut()
        for each in self._threads:
            each.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.carried += 1
                self._threads.append(threading.Thread(target=self._carry, args=(client,), daemon=True))
                self._threads[-1].start()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            self._open += [client, server]
            if self._tls is not None:
                with self._tls.wrap_socket(server, server_hostname="localhost") as secured:
                    _pump(client, secured)
                return
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _pump(client: socket.socket, secured: ssl.SSLSocket) -> None:
    """Carry both ways in one thread, for TLS is not for two.

    A client that sends no more, or has left, which looks alike from here, may hear for ``HALF_S`` more; one that the
    server has said farewell to is carried on until it has its end, too.
    """
    with suppress(OSError), selectors.DefaultSelector() as selector:
        secured.setblocking(False)
        for each in (client, secured):
            selector.register(each, selectors.EVENT_READ)
        until = math.inf
        while (left_s := until - time.monotonic()) > 0:
            ready = [key.fileobj for key, _ in selector.select(None if until == math.inf else left_s)]
            if client in ready:
                if not (data := client.recv(2**16)):
                    selector.unregister(client)
                    until = time.monotonic() + HALF_S
                    continue
                secured.setblocking(True)
                secured.sendall(data)
                secured.setblocking(False)
            if secured not in ready:
                continue
            with suppress(ssl.SSLWantReadError):
                while data := secured.recv(2**16):
                    client.sendall(data)
                selector.unregister(secured)
                client.shutdown(socket.SHUT_WR)


@contextmanager
def relaying(port: int, tls: ssl.SSLContext | None = None) -> Iterator[Relay]:
    """A relay while the block lasts; it may speak TLS to the server, for clients that do not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(listener, port, tls)
        try:
            yield relay
        finally:
            relay.close()
