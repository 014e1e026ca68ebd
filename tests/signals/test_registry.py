"""Who is connected: counted from the handshake on, and gone without a trace."""

from __future__ import annotations

from contextlib import ExitStack

from komas.model.signals import Vip
from komas.settings import Settings
from komas.signals.registry import ConnectionRegistry


def test_limits_in_all_for_each_address_and_each_user() -> None:
    """One more is turned away; one that leaves makes room."""
    registry = ConnectionRegistry(Settings(max_sockets=3, max_sockets_per_address=2, max_sockets_per_user=1))
    with ExitStack() as stack:
        assert stack.enter_context(registry.socket("a"))
        with registry.socket("a") as has_room:
            assert has_room
            with registry.socket("a") as has_room_for_more:
                assert not has_room_for_more
        assert stack.enter_context(registry.socket("a"))
        assert stack.enter_context(registry.socket("b"))
        with registry.socket("c") as has_room:
            assert not has_room
        assert stack.enter_context(registry.user("1", print))
        with registry.user("1", print) as has_room:
            assert not has_room
        assert registry.statistics().users == 1
        assert registry.statistics().refused == {"sockets": 1, "sockets_per_address": 1, "sockets_per_user": 1}
    assert (registry.statistics().sockets, registry.statistics().users) == (0, 0)
    with registry.socket("a") as has_room:
        assert has_room


def test_a_name_tells_whose_socket_it_is() -> None:
    """Socket 1 of one process was disconnected in place of socket 1 of another, which is behind the same proxy."""
    registry = ConnectionRegistry(Settings(), "0a")
    disconnected: list[str] = []

    class Session:
        user_id, address, since_ms, behind = 1, "", 0, 0

        def disconnect(self) -> None:
            disconnected.append("it")

    assert registry.show(Session()) == "0a-1"
    assert not registry.disconnect("0b-1")
    assert registry.disconnect("0a-1")
    registry.hide("0a-1")
    assert disconnected == ["it"]
    assert not registry.disconnect("0a-1")
    foreign = {
        name
        for name in ("0a-1", "0b-1", "0a1-1", "0b", "0b-", "0b-x", "0B-1", "", "0b-1\n")
        if registry.is_foreign(name)
    }
    assert foreign == {"0b-1", "0a1-1"}


def test_all_of_a_users_sockets_hear_and_no_others() -> None:
    """Also when one of them leaves because of what it hears."""
    registry = ConnectionRegistry(Settings())
    heard: list[str] = []
    with ExitStack() as second, registry.user("2", lambda _: heard.append("other")):
        with registry.user("1", lambda _: second.close()):
            second.enter_context(registry.user("1", lambda vip: heard.append(vip.user_id)))
            registry.tell(Vip("1", 0, revoked=True, version=1))
        registry.tell(Vip("3", 0, revoked=True, version=2))
    assert heard == ["1"]
    assert registry.statistics().users == 0
