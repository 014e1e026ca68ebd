"""Which address a client is counted by."""

from __future__ import annotations

import pytest

from komas.model.addresses import SHOWN, UNIX_PEER, Proxies, counted, parse_network

EDGE, INNER, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.7"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:50001", "203.0.113.9"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:443", "203.0.113.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::7]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::7]:50001", "2001:db8:1:2::/64"),
        ("2001:DB8:1:3::7", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unknown", "unknown"),
        ("_hidden", "_hidden"),
        ("203.0.113.256", "203.0.113.256"),
        ("x" * 1000, "x" * SHOWN),
    ],
)
def test_what_one_customer_can_vary_is_not_counted(text: str, address: str) -> None:
    """Ports, ways of writing, and the 64 bits that are each customer's own."""
    assert counted(text) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (CLIENT, [], CLIENT),
        (CLIENT, ["1.1.1.1"], CLIENT),
        ("2001:db8::7", ["1.1.1.1"], "2001:db8::/64"),
        (INNER, [], INNER),
        (INNER, [""], INNER),
        (INNER, [CLIENT], CLIENT),
        (INNER, [f"6.6.6.6, {CLIENT}"], CLIENT),
        (INNER, [f"{CLIENT}, {EDGE}"], CLIENT),
        (INNER, [CLIENT, EDGE], CLIENT),
        (INNER, [f"6.6.6.6,{CLIENT}:50001,{EDGE}:40000"], CLIENT),
        (INNER, [f"{EDGE}, 6.6.6.6, {CLIENT}"], CLIENT),
        (INNER, [f"{CLIENT}, ::ffff:{EDGE}"], CLIENT),
        (INNER, ["[2001:db8:1:2::7]:443"], "2001:db8:1:2::/64"),
        (INNER, [f"{EDGE}, {EDGE}"], EDGE),
        (INNER, [f"{CLIENT}, "], CLIENT),
        (INNER, [f"{CLIENT}, unknown"], "unknown"),
        ("", [CLIENT], CLIENT),
        ("", [f"6.6.6.6, {CLIENT}, {EDGE}"], CLIENT),
        ("", [f"{CLIENT}, 192.0.2.8"], "192.0.2.8"),
        ("", [], UNIX_PEER),
        ("", [" , "], UNIX_PEER),
    ],
)
def test_the_list_is_believed_past_trusted_proxies_from_its_end(peer: str, forwarded: list[str], address: str) -> None:
    """What is to the left of the first other address may be written by anybody."""
    assert Proxies([EDGE, INNER]).client(peer, forwarded) == address
    assert Proxies(["10.0.0.0/24"]).client(peer, forwarded) == address


def test_without_proxies_nobody_is_believed() -> None:
    """Not even a program of this machine."""
    assert Proxies([]).client("127.0.0.1", [CLIENT]) == "127.0.0.1"


def test_without_proxies_the_peer_of_a_unix_socket_is_believed() -> None:
    """Who may open the file was let in."""
    assert Proxies([]).client("", [CLIENT]) == CLIENT
    assert Proxies([]).client("", [], [f"for={CLIENT}"]) == CLIENT
    assert Proxies([]).client("", []) == UNIX_PEER


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (CLIENT, ["for=1.1.1.1"], CLIENT),
        (INNER, [f"for={CLIENT}"], CLIENT),
        (INNER, [f"for=6.6.6.6, For={CLIENT};proto=https"], CLIENT),
        (INNER, [f'for="{CLIENT}:50001"', f"for={EDGE}"], CLIENT),
        (INNER, ['for="[2001:db8:1:2::7]:4711"'], "2001:db8:1:2::/64"),
        (INNER, ["for=unknown"], "unknown"),
        (INNER, ["for=6.6.6.6, proto=https"], INNER),
        (INNER, [f"for=6.6.6.6, proto=https, for={EDGE}"], EDGE),
        (INNER, ['for="6.6.6.6', f"for={CLIENT}"], f"contradicted by {INNER}"),
    ],
)
def test_forwarded_is_believed_likewise(peer: str, forwarded: list[str], address: str) -> None:
    """Up to the proxy that does not say who called it."""
    assert Proxies([EDGE, INNER]).client(peer, [], forwarded) == address


@pytest.mark.parametrize(
    ("peer", "x_forwarded_for", "forwarded", "address"),
    [
        (INNER, [CLIENT], [f"for={CLIENT}"], CLIENT),
        (INNER, [f"6.6.6.6, {CLIENT}:1"], [f'for=7.7.7.7, for="{CLIENT}:2"'], CLIENT),
        (INNER, [CLIENT], ["proto=https"], CLIENT),
        (INNER, [CLIENT], ["for=6.6.6.6"], f"contradicted by {INNER}"),
        (INNER, ["6.6.6.6"], [f"for={CLIENT}"], f"contradicted by {INNER}"),
        (INNER, [CLIENT], ["nonsense"], f"contradicted by {INNER}"),
        ("", [CLIENT], ["for=6.6.6.6"], f"contradicted by {UNIX_PEER}"),
        (CLIENT, ["1.1.1.1"], ["for=6.6.6.6"], CLIENT),
    ],
)
def test_who_is_named_in_two_ways_cannot_choose_between_them(
    peer: str, x_forwarded_for: list[str], forwarded: list[str], address: str
) -> None:
    """A proxy that writes one header passes on the other as its client wrote it."""
    assert Proxies([EDGE, INNER]).client(peer, x_forwarded_for, forwarded) == address


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("::1", "::1"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_a_proxy_is_an_address_or_a_network(text: str, network: str) -> None:
    """Written as it is compared."""
    assert parse_network(text) == network


@pytest.mark.parametrize(
    "text", ["", "nginx", "10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "10.0.0.1:80"]
)
def test_what_is_no_proxy_is_refused(text: str) -> None:
    """An address with a mask that cuts it is a mistake, and everybody is nobody to trust."""
    with pytest.raises(ValueError):
        parse_network(text)
