"""Who is connected: counted from the handshake on, and gone without a trace."""

from __future__ import annotations

from contextlib import ExitStack

from komas.model.signals import Vip
from komas.settings import Settings
from komas.signals.registry import Register


def test_limits_in_all_for_each_address_and_each_user() -> None:
    """One more is turned away; one that leaves makes room."""
    register = Register(Settings(max_sockets=3, max_sockets_per_address=2, max_sockets_per_user=1))
    with ExitStack() as stack:
        assert stack.enter_context(register.socket("a"))
        with register.socket("a") as has_room:
            assert has_room
            with register.socket("a") as has_room_for_more:
                assert not has_room_for_more
        assert stack.enter_context(register.socket("a"))
        assert stack.enter_context(register.socket("b"))
        with register.socket("c") as has_room:
            assert not has_room
        assert stack.enter_context(register.user("1", print))
        with register.user("1", print) as has_room:
            assert not has_room
        assert register.statistics().users == 1
        assert register.statistics().turned_away == 3
    assert (register.statistics().sockets, register.statistics().users) == (0, 0)
    with register.socket("a") as has_room:
        assert has_room


def test_all_of_a_users_sockets_hear_and_no_others() -> None:
    """Also when one of them leaves because of what it hears."""
    register = Register(Settings())
    heard: list[str] = []
    with ExitStack() as second, register.user("2", lambda _: heard.append("other")):
        with register.user("1", lambda _: second.close()):
            second.enter_context(register.user("1", lambda vip: heard.append(vip.user_id)))
            register.tell(Vip("1", 0, revoked=True, version=1))
        register.tell(Vip("3", 0, revoked=True, version=2))
    assert heard == ["1"]
    assert register.statistics().users == 0
