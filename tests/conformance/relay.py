"""A relay of TCP between a client and komas: it cuts in the middle of a message, is away, or answers by itself."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 2**16


class Connection:
    """One connection of a client, and what went over it."""

    def __init__(self) -> None:
        self.sent = bytearray()  # by the client
        self.received = bytearray()
        self.is_cut = False  # the next bytes for the client are cut in half, and the connection with them


class Relay:
    """Listens on a free port of 127.0.0.1 for a server on another."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.connections: list[Connection] = []
        self.port = 0
        self._answers: deque[Callable[[bytes], bytes]] = deque()
        self.listen()

    def listen(self) -> None:
        """Let clients in; on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def leave(self) -> None:
        """Refuse whoever comes; connections that are open stay so."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def cut(self) -> None:
        """Cut open connections in the middle of what the server sends next."""
        for connection in self.connections:
            connection.is_cut = True

    def answer(self, respond: Callable[[bytes], bytes]) -> None:
        """Let the next connection get an answer to its request, as from a proxy, and its end."""
        self._answers.append(respond)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        connection = Connection()
        self.connections.append(connection)
        with client, suppress(OSError):
            if self._answers:
                connection.sent += client.recv(CHUNK_BYTES)
                connection.received += self._answers.popleft()(bytes(connection.sent))
                client.sendall(connection.received)
                client.shutdown(socket.SHUT_WR)
                while client.recv(CHUNK_BYTES):
                    continue
                return
            with socket.create_connection(("127.0.0.1", self.server_port)) as server:
                upward = threading.Thread(target=_pass_on_to_server, args=(client, server, connection), daemon=True)
                upward.start()
                _pass_on_to_client(server, client, connection)
                upward.join()


def _pass_on_to_server(client: socket.socket, server: socket.socket, connection: Connection) -> None:
    with suppress(OSError):
        while data := client.recv(CHUNK_BYTES):
            connection.sent += data
            server.sendall(data)
    with suppress(OSError):
        server.shutdown(socket.SHUT_WR)


def _pass_on_to_client(server: socket.socket, client: socket.socket, connection: Connection) -> None:
    with suppress(OSError):
        while data := server.recv(CHUNK_BYTES):
            is_cut = connection.is_cut
            passed = data[: len(data) // 2] if is_cut else data
            connection.received += passed
            client.sendall(passed)
            if is_cut:
                server.shutdown(socket.SHUT_RDWR)
                client.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)


@contextmanager
def relaying(server_port: int = 0) -> Iterator[Relay]:
    """A relay while the block lasts; its server's port may be told later, and anew."""
    relay = Relay(server_port)
    try:
        yield relay
    finally:
        relay.leave()
