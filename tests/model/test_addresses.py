"""Which address a client is counted by."""

from __future__ import annotations

import pytest

from komas.model.addresses import SHOWN, Proxies, counted, parse_network

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
        ("", [CLIENT], ""),
    ],
)
def test_the_list_is_believed_past_trusted_proxies_from_its_end(peer: str, forwarded: list[str], address: str) -> None:
    """What is to the left of the first other address may be written by anybody."""
    assert Proxies([EDGE, INNER]).client(peer, forwarded) == address
    assert Proxies(["10.0.0.0/24"]).client(peer, forwarded) == address


def test_without_proxies_nobody_is_believed() -> None:
    """Not even a program of this machine."""
    assert Proxies([]).client("127.0.0.1", [CLIENT]) == "127.0.0.1"


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
