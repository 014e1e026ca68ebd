"""The file of a Unix socket: whose it is, who may connect, and what is never touched."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from komas.errors import SettingError
from komas.web import socket_file
from komas.web.socket_file import LONGEST, SocketFile, is_alive, listen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets there")
NOBODY = 65_534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder)


@contextmanager
def _listening(path: Path, mode: int = 0o660) -> Iterator[SocketFile]:
    file = listen(path, mode, 10)
    with file.listener:
        yield file


@contextmanager
def _as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_of_the_file_says_who_may_connect(mode: int, folder: Path) -> None:
    """Whatever the umask is."""
    path = folder / "s"
    old = os.umask(0o077)
    try:
        with _listening(path, mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert is_alive(path)
    finally:
        os.umask(old)


def test_what_a_dead_server_left_behind_is_replaced(folder: Path) -> None:
    """A kill leaves the file."""
    path = folder / "s"
    with _listening(path):
        pass
    assert not is_alive(path)
    with _listening(path):
        assert is_alive(path)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_is_in_use_is_not_taken(kind: int, folder: Path) -> None:
    """Hypercorn removed it, and the server that ran was reached by nobody any more."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind == socket.SOCK_STREAM:
            other.listen(0)
        before = path.lstat().st_ino
        with pytest.raises(OSError, match="another server listens there") as caught:
            listen(path, 0o660, 10)
        assert caught.value.errno == errno.EADDRINUSE
        assert path.lstat().st_ino == before


def test_a_server_whose_queue_is_full_is_alive(folder: Path) -> None:
    """It is busy, and not dead."""
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        try:
            for client in clients:
                client.setblocking(False)
                client.connect_ex(str(path))
            assert is_alive(path)
        finally:
            for client in clients:
                client.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "link to a socket", "pipe"])
def test_what_is_no_socket_is_never_deleted(kind: str, folder: Path) -> None:
    """Somebody may have mistyped a path."""
    path, target = folder / "s", folder / "t"
    match kind:
        case "file":
            path.write_text("dear diary")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            target.write_text("dear diary")
            path.symlink_to(target)
    if kind == "link to a socket":
        target.unlink()
        with _listening(target):
            pass
    before = path.lstat()
    with pytest.raises(SettingError, match=r"unix:/.*/s cannot be made: a .* is there, which is not touched"):
        listen(path, 0o660, 10)
    assert path.lstat() == before
    assert kind != "file" or path.read_text() == "dear diary"


def test_a_path_may_be_so_long_and_no_longer(folder: Path) -> None:
    """The system says no more than that the argument is invalid."""
    room = LONGEST - len(os.fsencode(folder)) - 1
    with _listening(folder / ("s" * room)) as file:
        file.remove()
    with pytest.raises(SettingError, match=rf"the path has {LONGEST + 1} bytes, and a Unix socket's at most {LONGEST}"):
        listen(folder / ("s" * (room + 1)), 0o660, 10)
    with pytest.raises(SettingError, match="bytes"):
        listen(folder / ("я" * (room // 2 + 1)), 0o660, 10)
    assert list(folder.iterdir()) == []


def test_where_there_is_no_folder_it_is_said(folder: Path) -> None:
    """It is not made: whose it should be is not known."""
    with pytest.raises(SettingError, match="cannot be made: its folder is not there"):
        listen(folder / "run" / "s", 0o660, 10)
    (folder / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be made: Not a directory"):
        listen(folder / "file" / "s", 0o660, 10)


def test_without_the_right_to_make_it_that_is_said(folder: Path) -> None:
    """Nor is a socket replaced that may be another user's."""
    folder.chmod(0o755)
    with _as_nobody(), pytest.raises(SettingError, match="may not read its folder, or make files there"):
        listen(folder / "s", 0o660, 10)
    folder.chmod(0o777)
    with _listening(folder / "s", 0o600):
        pass
    with _as_nobody(), pytest.raises(SettingError, match="may not ask whether it is in use"):
        listen(folder / "s", 0o660, 10)
    assert (folder / "s").is_socket()


def test_only_our_own_file_is_removed(folder: Path) -> None:
    """Another server's may be there by now."""
    path = folder / "s"
    with _listening(path) as ours:
        path.unlink()
        with _listening(path) as other:
            ours.remove()
            assert path.is_socket()
            other.remove()
            assert not path.exists()
            other.remove()


def test_a_folder_that_stays_locked_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another program keeps is said."""
    import fcntl

    monkeypatch.setattr(socket_file, "LOCK_RETRY_S", 0)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(SettingError, match="another program has locked this folder"):
            listen(folder / "s", 0o660, 10)
    finally:
        os.close(descriptor)
    with _listening(folder / "s") as file:
        file.remove()


def test_of_two_that_start_together_one_has_the_socket(folder: Path) -> None:
    """Each took the other's, which did not listen yet, for that of a dead server."""
    path = folder / "s"
    for _ in range(20):
        with _listening(path):
            pass  # what a dead server leaves
        start = threading.Barrier(2)
        files: list[SocketFile] = []
        refusals: list[int | None] = []

        def begin(start: threading.Barrier, files: list[SocketFile], refusals: list[int | None]) -> None:
            start.wait()
            try:
                files.append(listen(path, 0o660, 10))
            except OSError as error:
                refusals.append(error.errno)

        threads = [threading.Thread(target=begin, args=(start, files, refusals)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for file in files:
            file.listener.close()
        assert (len(files), refusals) == (1, [errno.EADDRINUSE])
