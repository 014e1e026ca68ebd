"""Who holds the other end of a loopback connection: a program that speaks for itself, or one that relays."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from komas.web.local_programs import REST, Endpoint, LocalPrograms, Sockets

KOMAS, CURL, PROXY, DOUBLE = 1, 2, 3, 4  # processes
DOOR = ("127.0.0.1", 8000)


class Row(msgspec.Struct):
    """A TCP socket as the system lists it."""

    laddr: tuple[()] | Endpoint
    raddr: tuple[()] | Endpoint
    status: str
    pid: int | None


def _listener(port: int, pid: int | None) -> Row:
    return Row(("0.0.0.0", port), (), "LISTEN", pid)


def _pair(one: Endpoint, two: Endpoint, pids: tuple[int | None, int | None], status: str = "ESTABLISHED") -> list[Row]:
    return [Row(one, two, status, pids[0]), Row(two, one, status, pids[1])]


BASE = [_listener(8000, KOMAS), _listener(80, PROXY)]
OUTSIDER = Row(("192.0.2.1", 80), ("198.51.100.7", 5555), "ESTABLISHED", PROXY)


@pytest.mark.parametrize(
    ("rows", "peer", "expected"),
    [
        (_pair(("127.0.0.1", 40001), DOOR, (CURL, KOMAS)), ("127.0.0.1", 40001), True),
        ([*_pair(("127.0.0.1", 40002), DOOR, (PROXY, KOMAS)), OUTSIDER], ("127.0.0.1", 40002), False),
        # Its client has said all that it says, and waits for the answer.
        (
            [
                *_pair(("127.0.0.1", 40002), DOOR, (PROXY, KOMAS)),
                msgspec.structs.replace(OUTSIDER, status="CLOSE_WAIT"),
            ],
            ("127.0.0.1", 40002),
            False,
        ),
        # A listening port of the parent's: socat and sshd fork for each client.
        (
            [
                *_pair(("127.0.0.1", 40002), DOOR, (9, KOMAS)),
                msgspec.structs.replace(OUTSIDER, pid=9),
            ],
            ("127.0.0.1", 40002),
            False,
        ),
        # A proxy whose client is on this machine, too.
        (
            [
                *_pair(("127.0.0.1", 40002), DOOR, (PROXY, KOMAS)),
                *_pair(("127.0.0.1", 50000), ("127.0.0.1", 80), (CURL, PROXY)),
            ],
            ("127.0.0.1", 40002),
            False,
        ),
        # It listens, and has nobody: a notebook, a test.
        ([*_pair(("127.0.0.1", 40003), DOOR, (PROXY, KOMAS))], ("127.0.0.1", 40003), True),
        # A double of the exchange, to which we are connected, may call us.
        (
            [
                _listener(9443, DOUBLE),
                *_pair(("127.0.0.1", 40004), DOOR, (DOUBLE, KOMAS)),
                *_pair(("127.0.0.1", 50001), ("127.0.0.1", 9443), (KOMAS, DOUBLE)),
            ],
            ("127.0.0.1", 40004),
            True,
        ),
        # Another user's program cannot be looked at.
        (_pair(("127.0.0.1", 40005), DOOR, (None, KOMAS)), ("127.0.0.1", 40005), False),
        # In another namespace, or gone: our end is there, and nobody holds the other.
        ([Row(DOOR, ("127.0.0.1", 40006), "ESTABLISHED", KOMAS)], ("127.0.0.1", 40006), False),
        # The system shows nothing at all.
        ([], ("127.0.0.1", 40007), True),
        # A socket for both kinds of addresses.
        (
            [
                Row(("127.0.0.1", 40008), DOOR, "ESTABLISHED", CURL),
                Row(("::ffff:127.0.0.1", 8000), ("::ffff:127.0.0.1", 40008), "ESTABLISHED", KOMAS),
            ],
            ("::ffff:127.0.0.1", 40008),
            True,
        ),
    ],
)
def test_who_relays_does_not_speak_for_itself(rows: list[Row], peer: Endpoint, expected: bool) -> None:  # noqa: FBT001 - a table
    """By what it holds at that moment."""
    assert Sockets([*BASE, *rows] if rows else []).speaks_for_itself(peer, DOOR, KOMAS) is expected


async def test_one_look_serves_all_who_ask_meanwhile_and_none_is_older_than_the_question() -> None:
    """Strangers can cause looks: a hundred at once cost two."""
    looks: list[float] = []

    def look() -> Sockets:
        looks.append(0)
        return Sockets(())

    programs = LocalPrograms(look)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(programs.speaks_for_itself, DOOR, DOOR)
    assert 1 <= len(looks) <= 2
    before = len(looks)
    assert await programs.speaks_for_itself(DOOR, DOOR)
    assert len(looks) == before + 1


async def test_looks_leave_most_of_the_time_to_others() -> None:
    """As long as a look takes, four times as long is none taken."""
    clock = trio.current_time
    begun: list[float] = []
    ended: list[float] = []

    def look() -> Sockets:
        begun.append(trio.from_thread.run_sync(clock))
        trio.from_thread.run(trio.sleep, 0.01)
        ended.append(trio.from_thread.run_sync(clock))
        return Sockets(())

    programs = LocalPrograms(look)
    for _ in range(3):
        await programs.speaks_for_itself(DOOR, DOOR)
    for one in range(2):
        assert begun[one + 1] - ended[one] >= REST * (ended[one] - begun[one])
