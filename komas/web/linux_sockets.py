"""The TCP sockets of a Linux machine and the processes that hold them, from ``/proc``.

psutil lists these, too, but names one holder for a socket that several processes share, and says nothing of a file that
is a socket and in no list: a connection whose client has reset it, and which its process has not closed yet.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from komas.web.local_programs import Endpoint, Sockets, TcpSocket

PROC: Final = Path("/proc")
# Every kind that a socket file may be of; man 5 proc. A kernel without one of them has no such file.
_LISTS: Final = (
    "tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "unix", "netlink", "packet",
)  # fmt: skip
_INODE_COLUMN: Final = {"unix": 6, "packet": 8}
_INODE_COLUMN_OF_OTHERS: Final = 9
_LISTEN, _TIME_WAIT, _CLOSE = "0A", "06", "07"  # include/net/tcp_states.h
_SOCKET_FILE: Final = "socket:["
IPV4_BYTES: Final = 4


def look_at_linux(proc: Path = PROC) -> Sockets:
    """The sockets now; raises ``OSError`` or ``ValueError`` where ``/proc`` cannot be read."""
    before = _socket_files(proc)
    lists = {name: _rows(proc / "net" / name) for name in _LISTS}
    inodes = {inode for name, rows in lists.items() for inode in _inodes(name, rows)}
    suspects = frozenset(pid for pid, files in before.items() if not files <= inodes)
    # A socket that was closed meanwhile is in no list either, but its file is gone, too: a client's, or any other.
    unlisted = frozenset(pid for pid in suspects if before[pid] - inodes & _files_of(proc / str(pid)))
    holders = defaultdict[str, set[int]](set)
    for pid, files in before.items():
        for inode in files:
            holders[inode].add(pid)
    tcp = [_tcp_socket(row, holders) for name in ("tcp", "tcp6") for row in lists[name] if _is_of_interest(row)]
    low, high = (proc / "sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
    return Sockets(tcp, unlisted=unlisted, unsure=suspects - unlisted, outgoing_ports=range(int(low), int(high) + 1))


def _rows(file: Path) -> list[list[str]]:
    try:
        text = file.read_text("latin-1")
    except FileNotFoundError:
        return []
    return [line.split() for line in text.splitlines()[1:]]


def _inodes(name: str, rows: list[list[str]]) -> Iterator[str]:
    column = _INODE_COLUMN.get(name, _INODE_COLUMN_OF_OTHERS)
    return (row[column] for row in rows if len(row) > column)


def _socket_files(proc: Path) -> dict[int, set[str]]:
    """The inodes of the sockets of each process that we may look at."""
    pids = [name for name in os.listdir(proc) if name.isdecimal()]  # noqa: PTH208 - thousands of paths cost a look twice
    return {int(pid): files for pid in pids if (files := _files_of(proc / pid))}


def _files_of(process: Path) -> set[str]:
    folder = f"{process}/fd"
    inodes = set[str]()
    with suppress(PermissionError, FileNotFoundError, ProcessLookupError):  # another user's, or it has ended
        for name in os.listdir(folder):  # noqa: PTH208 - as above
            with suppress(FileNotFoundError):
                target = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - as above
                if target.startswith(_SOCKET_FILE):
                    inodes.add(target[len(_SOCKET_FILE) : -1])
    return inodes


def _is_of_interest(row: list[str]) -> bool:
    return row[3] not in (_TIME_WAIT, _CLOSE)


def _tcp_socket(row: list[str], holders: dict[str, set[int]]) -> TcpSocket:
    pids = frozenset(holders.get(row[_INODE_COLUMN_OF_OTHERS], ()))
    return TcpSocket(_endpoint(row[1]), _endpoint(row[2]), pids, is_listening=row[3] == _LISTEN)


def _endpoint(text: str) -> Endpoint:
    """``0100007F:1F90`` is 127.0.0.1:8000: 32-bit words in the machine's own byte order, and the port."""
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    family = socket.AF_INET if len(raw) == IPV4_BYTES else socket.AF_INET6
    return socket.inet_ntop(family, raw), int(port, 16)
