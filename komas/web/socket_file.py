"""The file of a Unix socket: made for those who may connect, and removed by whoever made it.

What a server left behind that died is replaced; what a living one has is not, and nothing is ever deleted that is no
socket. From the look at what is there to our own file the folder is locked: of two servers that start at the same time
one would take the other's.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from komas.errors import SettingError

UNIX: Final = "unix:"
LONGEST: Final = 107 if sys.platform == "linux" else 103  # bytes of a path (unix(7)); macOS and BSD have four less
LOCK_TRIES: Final = 40
LOCK_RETRY_S: Final = 0.05

_DEAD: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM})
_WORDS: Final = {
    errno.ENOENT: "its folder is not there",
    errno.EACCES: "this user may not read its folder, or make files there",
    errno.EROFS: "its folder is read-only",
}


class SocketFile:
    """The file of one socket that listens."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self.path = path
        self.listener = listener
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove it, if it is still ours."""
        with suppress(OSError, SettingError), _alone_in(self.path.parent):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def listen(path: Path, mode: int, backlog: int) -> SocketFile:
    """Listen on a path, for those whom the file's mode lets connect.

    Raises ``OSError`` (``EADDRINUSE``) where another server does, ``SettingError`` where nobody can.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise SettingError(f"bind: {UNIX}{path}: this system has no Unix sockets for Python")
    if (length := len(os.fsencode(path))) > LONGEST:
        raise SettingError(f"bind: {UNIX}{path}: the path has {length} bytes, and a Unix socket's at most {LONGEST}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone_in(path.parent):
            _make_way(path)
            listener.bind(str(path))
            try:
                path.chmod(mode)  # nobody is let in before listen()
                listener.listen(backlog)
                listener.setblocking(False)
                return SocketFile(path, listener)
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise
        raise _cannot(path, _WORDS.get(error.errno or 0) or error.strerror or str(error)) from error
    except BaseException:
        listener.close()
        raise


def is_alive(path: Path) -> bool:
    """Whether somebody listens there; raises ``PermissionError`` where we may not ask."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in _NOT_ALLOWED:
                raise
            return error.errno not in _DEAD  # a socket of another type, or one with a long queue, is somebody's
    return True


def _make_way(path: Path) -> None:
    """Remove the file of a server that died."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a file that is no socket"
        raise _cannot(path, f"{kind} is there, which is not touched: move it, or give another path")
    try:
        is_taken = is_alive(path)
    except OSError as error:
        raise _cannot(path, "a socket is there that this user may not ask whether it is in use") from error
    if is_taken:
        raise OSError(errno.EADDRINUSE, "another server listens there", str(path))
    path.unlink()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    import fcntl  # noqa: PLC0415 - not there on Windows

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for attempt in range(LOCK_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == LOCK_TRIES - 1:
                    raise SettingError(f"bind: {UNIX}{folder}/...: another program has locked this folder") from None
                time.sleep(LOCK_RETRY_S)
        yield
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _cannot(path: Path, reason: str) -> SettingError:
    return SettingError(f"bind: {UNIX}{path} cannot be made: {reason}", field="bind")
