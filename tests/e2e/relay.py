"""A road to a server that can be cut: what clients do then is theirs, and no history of the server is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay:
    """A port that leads to another one."""

    def __init__(self, listener: socket.socket, port: int) -> None:
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


@contextmanager
def relaying(port: int) -> Iterator[Relay]:
    """A relay while the block lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(listener, port)
        try:
            yield relay
        finally:
            relay.close()
