"""Who has a place, and who gives way."""

from __future__ import annotations

import pytest

from komas.web.hypercorn.places import Places

HERE, THERE, PROXY = "192.0.2.1", "192.0.2.2", "10.0.0.1"


class Client:
    """A connection."""

    def __init__(self) -> None:
        self.is_open = True

    def give_way(self) -> None:
        """Close."""
        self.is_open = False


def _places(most: int = 100, most_per_address: int = 2) -> Places[Client]:
    return Places(most, most_per_address, [PROXY])


def _busy(places: Places[Client], peer: str, count: int) -> list[Client]:
    """So many connections that have a request, or an endless response."""
    clients = [Client() for _ in range(count)]
    for client in clients:
        assert places.enter(client, peer) is None
        places.note_busy(client)
    return clients


def test_one_address_has_so_many_connections() -> None:
    """The next is refused, with a reason, counted, and others are not concerned."""
    places = _places()
    here = _busy(places, HERE, 2)
    assert places.enter(Client(), HERE) == "2 connections of 192.0.2.1 are open"
    assert places.enter(Client(), THERE) is None
    places.leave(here[0])
    assert places.enter(Client(), HERE) is None
    assert (places.statistics().present, places.statistics().refused) == (3, 1)


@pytest.mark.parametrize(
    ("peers", "fits"),
    [
        (["2001:db8::1", "2001:db8::2", "2001:db8::3"], False),  # one customer of a provider
        (["::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"], False),
        (["127.0.0.1", "127.0.0.1", "127.0.0.1"], False),
        ([PROXY, PROXY, PROXY], True),  # its clients share its address
        (["", "", ""], True),  # a Unix socket
    ],
)
def test_addresses_are_counted_as_everywhere(peers: list[str], fits: bool) -> None:  # noqa: FBT001 - a table
    """IPv6 by its network, proxies that are trusted and Unix sockets not at all."""
    places = _places()
    for peer in peers[:2]:
        _busy(places, peer, 1)
    assert (places.enter(Client(), peers[2]) is None) is fits


def test_an_idle_connection_of_the_same_address_gives_way() -> None:
    """The one that has been idle longest, and none of another address."""
    places = _places(most_per_address=3)
    other, *mine = (Client() for _ in range(4))
    places.enter(other, THERE)
    for client in mine:
        places.enter(client, HERE)
    places.note_busy(mine[0])
    places.note_idle(mine[0])  # it had a request: by now it is the last of them
    assert places.enter(Client(), HERE) is None
    assert [client.is_open for client in (other, *mine)] == [True, True, False, True]


def test_the_longest_idle_connection_of_all_gives_way() -> None:
    """Also those that wait for their first request; those with a request stay."""
    places = _places(most=3)
    busy, idle = _busy(places, HERE, 1), [Client(), Client()]
    for client in idle:
        places.enter(client, THERE)
    assert places.enter(Client(), PROXY) is None
    assert [client.is_open for client in (*busy, *idle)] == [True, False, True]
    assert (places.statistics().present, places.statistics().gave_way) == (3, 1)


def test_trusted_proxies_are_bounded_by_the_places_of_all() -> None:
    """There is an end to everything."""
    places = _places(most=3)
    _busy(places, PROXY, 3)
    assert places.enter(Client(), PROXY) == "3 connections are open"


def test_room_is_made_as_far_as_there_are_idle_connections() -> None:
    """As when open files are short."""
    places = _places()
    busy, idle = _busy(places, PROXY, 2), [Client(), Client()]
    for client in idle:
        places.enter(client, HERE)
    assert places.make_room(8) == 2
    assert [client.is_open for client in (*busy, *idle)] == [True, True, False, False]


def test_who_leaves_twice_is_counted_once() -> None:
    """A connection that gave way leaves by itself later on; so does one that was refused."""
    places = _places()
    gone, refused = Client(), Client()
    places.enter(gone, HERE)
    places.make_room(1)
    _busy(places, HERE, 2)
    places.enter(refused, HERE)
    for client in (gone, refused):
        places.note_idle(client)
        places.leave(client)
    assert places.statistics().present == 2
    assert places.enter(Client(), HERE) is not None
    assert len(list(places)) == 2
