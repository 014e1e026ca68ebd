"""The sockets of a Linux machine, from a ``/proc`` of the test's own."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from komas.web.linux_sockets import look_at_linux

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

KOMAS, CURL, PROXY = 1, 2, 3
DOOR, PEER = ("127.0.0.1", 8000), ("127.0.0.1", 40001)
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000     0        0"
OURS = f"   1: 0100007F:1F40 0100007F:9C41 01 {REST} 101 1 0 20 4 30 10 -1\n"
THEIRS = f"   2: 0100007F:9C41 0100007F:1F40 01 {REST} 201 1 0 20 4 30 10 -1\n"
CLIENT = f"   3: 010200C0:0050 0763CBC6:15B3 01 {REST} 202 1 0 20 4 30 10 -1\n"
OURS_IN_SIX = f"   1: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:9C41 01 {REST} 101 1 0\n"


def _proc(folder: Path, tcp: str, files: dict[int, list[str]], **lists: str) -> Path:
    (folder / "net").mkdir()
    (folder / "net" / "tcp").write_text(HEAD + tcp)
    for name, text in lists.items():
        (folder / "net" / name).write_text(text)
    ports = folder / "sys/net/ipv4/ip_local_port_range"
    ports.parent.mkdir(parents=True)
    ports.write_text("32768\t60999\n")
    for pid, targets in files.items():
        (folder / str(pid) / "fd").mkdir(parents=True)
        for number, target in enumerate(targets):
            (folder / str(pid) / "fd" / str(number)).symlink_to(target)
    return folder


@pytest.mark.parametrize(
    ("tcp", "files", "expected"),
    [
        pytest.param(OURS + THEIRS, ["socket:[201]", "/dev/null", "pipe:[7]"], True, id="a program"),
        pytest.param(OURS + THEIRS, ["socket:[201]", "socket:[300]", "socket:[301]"], True, id="with other sockets"),
        pytest.param(OURS + THEIRS + CLIENT, ["socket:[201]", "socket:[202]"], False, id="with a client"),
        pytest.param(OURS + THEIRS, ["socket:[201]", "socket:[202]"], False, id="whose client has left"),
        pytest.param(OURS + THEIRS, [], False, id="that may not be looked at"),
        pytest.param(THEIRS, ["socket:[201]"], False, id="our end is gone"),
    ],
)
def test_who_is_let_in(tcp: str, files: list[str], expected: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a table
    """Processes without sockets, and lists that this kernel does not have, are no trouble."""
    unix = "Num RefCount Protocol Flags Type St Inode Path\n0: 00000003 00000000 00000000 0001 03 300 /run/x\n"
    netlink = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n0 0 0 0 0 0 0 2 0 301\n"
    proc = _proc(tmp_path, tcp, {KOMAS: ["socket:[101]"], CURL: files, 9: ["/dev/null"]}, unix=unix, netlink=netlink)
    assert look_at_linux(proc).speaks_for_itself(PEER, DOOR, KOMAS) is expected


@pytest.mark.parametrize(("closed", "is_sure"), [((), True), (("1",), False), (("1", "0"), False)])
def test_a_socket_that_is_closed_during_the_look_leaves_it_unsure(
    closed: tuple[str, ...],
    is_sure: bool,  # noqa: FBT001 - a table
    tmp_path: Path,
) -> None:
    """A relay whose client resets its connection closes that one, and perhaps ours, within the moment of the look."""
    proc = _proc(tmp_path, "", {KOMAS: ["socket:[101]"], PROXY: ["socket:[201]", "socket:[202]"]})
    (proc / "net" / "tcp").unlink()
    os.mkfifo(proc / "net" / "tcp")  # opened by the look when it has seen the files of the processes

    def write() -> None:
        with (proc / "net" / "tcp").open("w") as tcp:
            for name in closed:
                (proc / str(PROXY) / "fd" / name).unlink()
            tcp.write(HEAD + OURS + THEIRS + ("" if closed else CLIENT))

    writer = threading.Thread(target=write)
    writer.start()
    seen = look_at_linux(proc)
    writer.join()
    assert seen.is_sure(PEER, DOOR) is is_sure


def test_an_end_that_two_processes_share_belongs_to_both(tmp_path: Path) -> None:
    """A relay that hands its upstream to a child is still one."""
    files = {KOMAS: ["socket:[101]"], CURL: ["socket:[201]"], PROXY: ["socket:[201]", "socket:[202]"]}
    assert not look_at_linux(_proc(tmp_path, OURS + THEIRS + CLIENT, files)).speaks_for_itself(PEER, DOOR, KOMAS)


def test_an_ipv4_connection_may_be_in_the_list_of_ipv6(tmp_path: Path) -> None:
    """Of a server bound to both."""
    proc = _proc(tmp_path, THEIRS, {KOMAS: ["socket:[101]"], CURL: ["socket:[201]"]}, tcp6=HEAD + OURS_IN_SIX)
    assert look_at_linux(proc).speaks_for_itself(PEER, DOOR, KOMAS)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Which the caller takes for a no."""
    with pytest.raises(OSError, match=str(tmp_path)):
        look_at_linux(tmp_path / "none")
