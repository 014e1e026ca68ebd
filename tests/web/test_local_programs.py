"""Who holds the other end of a loopback connection: a program that speaks for itself, or one that relays."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from komas.web.local_programs import REST, Endpoint, LocalPrograms, Sockets, TcpSocket

KOMAS, CURL, PROXY, CHILD, DOUBLE = 1, 2, 3, 4, 5  # processes
DOOR = ("127.0.0.1", 8000)
PEER = ("127.0.0.1", 40001)
OUTGOING = range(32768, 61000)


def _listener(port: int, *pids: int, address: str = "127.0.0.1") -> TcpSocket:
    return TcpSocket((address, port), ("0.0.0.0", 0), frozenset(pids), is_listening=True)


def _pair(one: Endpoint, two: Endpoint, ones: set[int], twos: set[int]) -> list[TcpSocket]:
    return [TcpSocket(one, two, frozenset(ones)), TcpSocket(two, one, frozenset(twos))]


BASE = [_listener(8000, KOMAS), _listener(8080, PROXY)]
OUTSIDER = TcpSocket(("192.0.2.1", 8080), ("198.51.100.7", 5555), frozenset({PROXY}))


@pytest.mark.parametrize(
    ("sockets", "expected"),
    [
        pytest.param(_pair(PEER, DOOR, {CURL}, {KOMAS}), True, id="curl"),
        pytest.param([*_pair(PEER, DOOR, {PROXY}, {KOMAS}), OUTSIDER], False, id="a proxy with a client"),
        pytest.param(
            [*_pair(PEER, DOOR, {PROXY}, {KOMAS}), *_pair(("127.0.0.1", 50000), ("127.0.0.1", 8080), {CURL}, {PROXY})],
            False,
            id="a proxy with a client of this machine",
        ),
        pytest.param(
            [*_pair(PEER, DOOR, {CHILD}, {KOMAS}), TcpSocket(OUTSIDER.local, OUTSIDER.remote, frozenset({CHILD}))],
            False,
            id="a fork of the process that listens",
        ),
        pytest.param(
            [
                *_pair(PEER, DOOR, {PROXY, CHILD}, {KOMAS}),
                TcpSocket(OUTSIDER.local, OUTSIDER.remote, frozenset({CHILD})),
            ],
            False,
            id="an end that two processes share, one of which has a client",
        ),
        pytest.param(
            [*_pair(PEER, DOOR, {CURL}, {KOMAS}), TcpSocket(("192.0.2.1", 80), ("198.51.100.7", 5), frozenset({CURL}))],
            False,
            id="a client that came in through a listener which is closed by now",
        ),
        pytest.param(_pair(PEER, DOOR, {PROXY}, {KOMAS}), True, id="it listens on loopback, and has no client"),
        pytest.param(
            [*_pair(PEER, DOOR, {PROXY}, {KOMAS}), _listener(80, PROXY, address="0.0.0.0")],
            False,
            id="it listens beyond loopback",
        ),
        pytest.param(
            [*_pair(PEER, DOOR, {CURL}, {KOMAS}), *_pair(("192.0.2.1", 40002), ("198.51.100.7", 443), {CURL}, set())],
            True,
            id="it has a connection of its own to another server",
        ),
        pytest.param(
            [
                _listener(9443, DOUBLE),
                *_pair(PEER, DOOR, {DOUBLE}, {KOMAS}),
                *_pair(("127.0.0.1", 50001), ("127.0.0.1", 9443), {KOMAS}, {DOUBLE}),
            ],
            True,
            id="a double of the exchange, to which we are connected",
        ),
        pytest.param(_pair(PEER, DOOR, set(), {KOMAS}), False, id="a program that we may not look at"),
        pytest.param([TcpSocket(DOOR, PEER, frozenset({KOMAS}))], False, id="gone, or in another namespace"),
        pytest.param([TcpSocket(PEER, DOOR, frozenset({CURL}))], False, id="our end is gone: it was reset"),
        pytest.param([], False, id="nothing of it is shown"),
        pytest.param(
            [
                TcpSocket(PEER, DOOR, frozenset({CURL})),
                TcpSocket(("::ffff:127.0.0.1", 8000), ("::ffff:127.0.0.1", 40001), frozenset({KOMAS})),
            ],
            True,
            id="a socket for both kinds of addresses",
        ),
    ],
)
def test_a_program_that_accepts_connections_does_not_speak_for_itself(
    sockets: list[TcpSocket],
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    """By what its processes hold at that moment."""
    seen = Sockets([*BASE, *sockets], outgoing_ports=OUTGOING)
    assert seen.speaks_for_itself(PEER, DOOR, KOMAS) is expected


def test_a_program_with_a_socket_in_no_list_does_not_speak_for_itself() -> None:
    """A relay keeps the socket of a client that has reset its connection, and still calls us."""
    sockets = [*BASE, *_pair(PEER, DOOR, {PROXY}, {KOMAS})]
    assert Sockets(sockets, outgoing_ports=OUTGOING).speaks_for_itself(PEER, DOOR, KOMAS)
    unlisted = Sockets(sockets, unlisted=frozenset({PROXY}), outgoing_ports=OUTGOING)
    assert not unlisted.speaks_for_itself(PEER, DOOR, KOMAS)


@pytest.mark.parametrize(("looks", "expected"), [("?+", True), ("?-", False), ("????+", True), ("?????+", False)])
async def test_a_program_that_closes_a_socket_meanwhile_is_looked_at_again(looks: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """It may have been a client's, that left; a few times, for honest programs close sockets, too."""
    to_come = iter(looks)

    def look() -> Sockets:
        what = next(to_come)
        client = [OUTSIDER] if what == "-" else []
        sockets = [*BASE, *_pair(PEER, DOOR, {PROXY}, {KOMAS}), *client]
        return Sockets(sockets, unsure=frozenset({PROXY} if what == "?" else {}), outgoing_ports=OUTGOING)

    assert await LocalPrograms(look).speaks_for_itself(PEER, DOOR) is expected


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ValueError("not a table")])
async def test_a_look_that_fails_keeps_everybody_out(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """With a reason in the log, once; where the system never shows anything it proves nothing."""

    def fail() -> Sockets:
        raise error

    programs = LocalPrograms(fail, may_be_blind=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not await programs.speaks_for_itself(PEER, DOOR)
    assert [record.getMessage() for record in caplog.records] == [
        f"the programs that call cannot be seen on this system: {error!r}"
    ]
    assert await LocalPrograms(fail, may_be_blind=True).speaks_for_itself(PEER, DOOR)


async def test_one_look_serves_all_who_ask_meanwhile_and_none_is_older_than_the_question() -> None:
    """Strangers can cause looks: a hundred at once cost two."""
    looks: list[float] = []

    def look() -> Sockets:
        looks.append(0)
        return Sockets(())

    programs = LocalPrograms(look)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(programs.speaks_for_itself, PEER, DOOR)
    assert 1 <= len(looks) <= 2
    before = len(looks)
    assert not await programs.speaks_for_itself(PEER, DOOR)
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
        await programs.speaks_for_itself(PEER, DOOR)
    for one in range(2):
        assert begun[one + 1] - ended[one] >= REST * (ended[one] - begun[one])
