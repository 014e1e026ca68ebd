"""The session's transitions, as tables; no clock but the argument."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from komas.errors import Closing
from komas.model.signals import Principal, Vip
from komas.signals.session import (
    BURST,
    MESSAGE_BYTES,
    TRANSITIONS,
    Action,
    Bucket,
    Close,
    On,
    Ping,
    Refresh,
    Send,
    Session,
    State,
)

NOW = 1_770_000_000.0
VIP = Principal("123", int(NOW) + 3600, int(NOW) + 86_400)
PING = '{"type":"ping"}'


def _session(state: State = State.LIVE) -> Session:
    session = Session(NOW)
    if state is not State.CHECKING:
        session.admitted(VIP, None, NOW)
    if state is State.LIVE:
        session.caught_up()
    if state is State.CLOSED:
        session.close(Closing.NORMAL)
    assert session.state is state
    return session


def _said(actions: list[Action]) -> list[dict[str, object]]:
    return [json.loads(action.text) for action in actions if isinstance(action, Send)]


def _known(version: int, *, until: float = NOW + 100, revoked: bool = False) -> Vip:
    return Vip("123", int(until), revoked, version)


def test_every_state_has_its_transitions() -> None:
    """All but the last can be closed, and nothing leaves that."""
    closable = {state for state, on in TRANSITIONS if on is On.CLOSED}
    assert closable == set(State) - {State.CLOSED}
    assert not [state for state, _ in TRANSITIONS if state is State.CLOSED]


def test_connected_comes_first_and_what_was_said_before_is_answered_after_it() -> None:
    """As the user's Python example pings before it listens."""
    session = _session(State.CHECKING)
    assert session.received(PING, NOW) == []
    said = _said(session.admitted(VIP, None, NOW))
    assert said == [
        {"type": "connected", "message": "Connected to CryptoTracker real-time signals", "user_id": 123}
        | {"expires_at": int(NOW) + 3600},
        {"type": "pong"},
    ]
    seen = [session.state]
    session.caught_up()
    assert [*seen, session.state] == [State.REPLAYING, State.LIVE]


@pytest.mark.parametrize(
    ("principal", "known", "closing"),
    [
        (Principal("1", int(NOW), int(NOW) + 1), None, Closing.UNAUTHORIZED),
        (Principal("1", int(NOW) + 1), None, Closing.VIP_REQUIRED),
        (Principal("1", int(NOW) + 1, int(NOW)), None, Closing.VIP_REQUIRED),
        (Principal("1", int(NOW) + 1, int(NOW) + 9), _known(1, revoked=True), Closing.VIP_REQUIRED),
        (Principal("1", int(NOW) + 1, int(NOW) + 9), _known(1, until=NOW), Closing.VIP_REQUIRED),
    ],
)
def test_who_is_not_admitted(principal: Principal, known: Vip | None, closing: Closing) -> None:
    """With the reason of the contract, and without a greeting."""
    session = _session(State.CHECKING)
    assert session.admitted(principal, known, NOW) == [Close(closing)]
    assert session.closing is closing


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (PING, {"type": "pong"}),
        ('{"type":"pong"}', None),
        ('{"type":"pong","extra":[1,2]}', None),
        ("", "malformed"),
        ("ping", "malformed"),
        ("[]", "malformed"),
        ("{}", "malformed"),
        ('{"type":1}', "malformed"),
        ('{"type":"ping"', "malformed"),
        ('"' + "[" * 2000, "malformed"),
        ("[" * 4000, "malformed"),
        ('{"type":"\ud800"}', "malformed"),
        ('{"type":"subscribe"}', "unknown_type"),
        ('{"type":"refresh"}', "malformed"),
        ('{"type":"refresh","token":1}', "malformed"),
    ],
)
def test_each_message_has_its_answer_and_the_session_stays(message: str, answer: object) -> None:
    """A malformed one gets an error that names it."""
    session = _session()
    said = _said(session.received(message, NOW))
    if isinstance(answer, str):
        assert [(one["type"], one["code"]) for one in said] == [("error", answer)]
        assert said[0]["message"]
    else:
        assert said == ([] if answer is None else [answer])
    assert session.state is State.LIVE


@pytest.mark.parametrize(
    ("message", "closing"),
    [
        (b"\0", Closing.BINARY),
        (None, Closing.BINARY),
        ("x" * (MESSAGE_BYTES + 1), Closing.TOO_BIG),
        ("я" * (MESSAGE_BYTES // 2 + 1), Closing.TOO_BIG),
    ],
)
@pytest.mark.parametrize("state", [State.CHECKING, State.REPLAYING, State.LIVE])
def test_what_ends_a_session(message: str | bytes | None, closing: Closing, state: State) -> None:
    """A binary frame, and a message too big; sizes are bytes."""
    session = _session(state)
    assert session.received(message, NOW) == [Close(closing)]
    assert session.state is State.CLOSED


def test_early_messages_have_a_limit_of_their_own() -> None:
    """Before it is admitted, a client costs four kilobytes."""
    session = _session(State.CHECKING)
    assert session.received("x" * 4000, NOW) == []
    assert session.received("x" * 97, NOW) == [Close(Closing.TOO_BIG)]


def test_twenty_at_once_and_ten_a_second_are_allowed() -> None:
    """One more is not."""
    session = _session()
    for _ in range(20):
        assert _said(session.received(PING, NOW)) == [{"type": "pong"}]
    for tenth in range(1, 50):
        assert _said(session.received(PING, NOW + tenth / 10 + 1e-6)) == [{"type": "pong"}]
    assert session.received(PING, NOW + 4.9) == [Close(Closing.RATE_LIMITED)]


def test_a_bucket_fills_up_to_its_burst() -> None:
    """And no further, however long nobody takes."""
    bucket = Bucket(10, 2, 0)
    assert [bucket.take(100), bucket.take(100), bucket.take(100)] == [True, True, False]
    assert bucket.take(100.11)


def test_a_user_revoked_and_granted_anew_needs_a_new_session() -> None:
    """What was published in between was not for that user, and nobody was told in time."""
    session = Session(NOW)
    session.admitted(VIP, Vip("123", int(NOW) + 100, revoked=False, version=3, revoked_version=2), NOW)
    assert session.vip_changed(Vip("123", int(NOW) + 100, revoked=False, version=4, revoked_version=2), NOW) == []
    regranted = Vip("123", int(NOW) + 100, revoked=False, version=6, revoked_version=5)
    assert session.vip_changed(regranted, NOW) == [Close(Closing.VIP_REQUIRED)]
    again = Session(NOW)
    assert isinstance(again.admitted(VIP, regranted, NOW)[0], Send)


@pytest.mark.parametrize(
    ("after_s", "actions"),
    [
        (19.9, []),
        (29.9, [Ping()]),
        (30.0, [Send('{"type":"ping"}'), Ping()]),
        (89.9, [Send('{"type":"ping"}'), Ping()]),
        (90.0, [Close(Closing.TRY_AGAIN)]),
    ],
)
def test_a_silent_peer_is_pinged_and_then_dropped(after_s: float, actions: list[Action]) -> None:
    """Every 20 s, in JSON every 30 s, for 90 s."""
    assert _session().tick(NOW + after_s) == actions


def test_a_pong_of_the_protocol_is_a_sign_of_life() -> None:
    """A browser and wscat answer those by themselves."""
    session = _session()
    for moment in range(0, 600, 20):
        session.heard(NOW + moment)
        session.tick(NOW + moment)
    assert session.state is State.LIVE
    assert session.next_tick_at <= NOW + 600 + 30


@pytest.mark.parametrize("state", [State.REPLAYING, State.LIVE])
def test_a_session_ends_with_its_token(state: State) -> None:
    """At the second, and is looked at then; a minute before, the client is told, once."""
    session = _session(state)
    assert session.next_check_s == NOW + 3540
    assert session.check(NOW + 3539.9) == []
    assert session.end_if_over(NOW + 3540) == []
    assert _said(session.check(NOW + 3540)) == [{"type": "expiring", "expires_at": int(NOW) + 3600}]
    assert session.next_check_s == NOW + 3600
    assert session.check(NOW + 3599.9) == []
    assert session.check(NOW + 3600) == [Close(Closing.UNAUTHORIZED)]


def test_a_session_ends_with_vip_whichever_comes_first() -> None:
    """VIP before the token: the reason tells which."""
    session = Session(NOW)
    session.admitted(VIP, _known(1, until=NOW + 10), NOW)
    assert session.next_check_s == NOW + 10
    assert session.check(NOW + 10) == [Close(Closing.VIP_REQUIRED)]


def test_a_revocation_ends_it_and_a_grant_prolongs_it() -> None:
    """And older news than what is known changes nothing."""
    session = Session(NOW)
    session.admitted(VIP, _known(5, until=NOW + 10), NOW)
    assert session.vip_changed(_known(6, until=NOW + 20), NOW) == []
    assert session.vip_changed(_known(4, revoked=True), NOW) == []
    assert session.check(NOW + 15) == []
    assert session.vip_changed(_known(7, revoked=True), NOW + 15) == [Close(Closing.VIP_REQUIRED)]


def test_news_that_overtake_the_answer_of_the_store_count() -> None:
    """Revoked between the question and the answer: not admitted."""
    session = _session(State.CHECKING)
    assert session.vip_changed(_known(2, revoked=True), NOW) == []
    assert session.admitted(VIP, _known(1), NOW) == [Close(Closing.VIP_REQUIRED)]


def test_a_token_is_refreshed_in_place() -> None:
    """The new one counts from then on."""
    session = _session()
    assert session.received('{"type":"refresh","token":"new"}', NOW) == [Refresh("new")]
    newer = Principal("123", int(NOW) + 7200, int(NOW) + 86_400)
    assert _said(session.refreshed(newer, None, NOW)) == [{"type": "refreshed", "expires_at": int(NOW) + 7200}]
    assert session.check(NOW + 3600) == []
    assert _said(session.check(NOW + 7140)) == [{"type": "expiring", "expires_at": int(NOW) + 7200}]
    assert session.check(NOW + 7200) == [Close(Closing.UNAUTHORIZED)]


@pytest.mark.parametrize(
    "principal",
    [
        Principal("124", int(NOW) + 7200, int(NOW) + 86_400),
        Principal("123", int(NOW) + 7200),
        Principal("123", int(NOW) - 1, int(NOW) + 86_400),
        None,
    ],
)
def test_a_refused_refresh_leaves_the_old_token(principal: Principal | None) -> None:
    """Another user's, no VIP's, an expired one, one that proves nothing."""
    session = _session()
    session.received('{"type":"refresh","token":"new"}', NOW)
    actions = session.not_refreshed() if principal is None else session.refreshed(principal, None, NOW)
    assert [one["code"] for one in _said(actions)] == ["refresh_refused"]
    assert session.state is State.LIVE
    assert session.check(NOW + 3600) == [Close(Closing.UNAUTHORIZED)]


def test_one_refresh_at_a_time() -> None:
    """The second is told so; after the answer another one may come."""
    session = _session()
    session.received('{"type":"refresh","token":"a"}', NOW)
    assert [one["code"] for one in _said(session.received('{"type":"refresh","token":"b"}', NOW))] == [
        "refresh_refused"
    ]
    session.not_refreshed()
    assert session.received('{"type":"refresh","token":"c"}', NOW) == [Refresh("c")]


def _do(session: Session, call: str, now: float, version: int) -> list[Action]:
    """One call, if it may come in this state."""
    if call.startswith("close "):
        return session.close(Closing[call.removeprefix("close ")])
    if call.startswith("admit"):
        known = _known(version, revoked=True) if call == "admit a revoked one" else None
        return session.admitted(VIP, known, now) if session.state is State.CHECKING else []
    if call == "caught up" and session.state is State.REPLAYING:
        session.caught_up()
    return _CALLS[call](session, now, version) if call in _CALLS else []


_CALLS: Mapping[str, Callable[[Session, float, int], list[Action]]] = {
    "ping": lambda session, now, _: session.received(PING, now),
    "garbage": lambda session, now, _: session.received("}{", now),
    "binary": lambda session, now, _: session.received(b"", now),
    "refresh": lambda session, now, _: session.received('{"type":"refresh","token":"x"}', now),
    "refreshed": lambda session, now, _: session.refreshed(VIP, None, now),
    "not refreshed": lambda session, _, __: session.not_refreshed(),
    "tick": lambda session, now, _: session.tick(now),
    "revoke": lambda session, now, version: session.vip_changed(_known(version, revoked=True), now),
    "grant": lambda session, now, version: session.vip_changed(_known(version, until=now + 100), now),
}
_NAMES = st.sampled_from(
    [*_CALLS, "admit", "admit a revoked one", "caught up", "later", *(f"close {closing.name}" for closing in Closing)]
)


@given(st.lists(_NAMES, max_size=60))
def test_whatever_happens_a_session_is_closed_once_and_says_nothing_after_it(calls: list[str]) -> None:
    """And greets once at most."""
    session, now = Session(NOW), NOW
    greetings, closes = 0, 0
    for version, call in enumerate(calls, 1):
        was_open = session.is_open
        now += 31 if call == "later" else 0
        actions = _do(session, call, now, version)
        assert was_open or not actions
        greetings += sum(one["type"] == "connected" for one in _said(actions))
        closes += sum(isinstance(action, Close) for action in actions)
    assert greetings <= 1
    assert closes == (session.state is State.CLOSED)
    assert (session.closing is not None) == (session.state is State.CLOSED)


def test_the_burst_is_the_contracts() -> None:
    """Ten a second, twenty at once."""
    assert BURST == 20


def test_pings_of_the_protocol_have_a_pace_of_their_own() -> None:
    """Every 20 s, or as it is set: a proxy that cuts after 30 s of silence cut between two; JSON stays at 30 s."""
    for options, every_s in (((), 20), ((7.0,), 7)):
        session = Session(NOW, *options)
        session.admitted(VIP, None, NOW)
        pings, messages, now = list[float](), list[float](), NOW
        while (now := session.next_tick_at) <= NOW + 60:
            session.heard(now)
            for action in session.tick(now):
                (pings if isinstance(action, Ping) else messages).append(now - NOW)
        assert pings == [every_s * count for count in range(1, 60 // every_s + 1)]
        assert messages == [30, 60]


def test_of_a_token_whose_end_is_near_the_greeting_tells() -> None:
    """There is no second message about the same end."""
    principal = msgspec.structs.replace(VIP, expires_at=int(NOW) + 59)
    session = Session(NOW)
    assert _said(session.admitted(principal, None, NOW))[0]["expires_at"] == int(NOW) + 59
    assert session.next_check_s == int(NOW) + 59
    assert session.check(NOW + 58) == []


def test_clocks_that_differ_cost_no_session() -> None:
    """A token that the rules let in past its end proves as much for as long to a session."""
    principal = msgspec.structs.replace(VIP, expires_at=int(NOW) - 10, leeway_s=30)
    session = Session(NOW)
    assert _said(session.admitted(principal, None, NOW))[0]["type"] == "connected"
    assert session.next_check_s == int(NOW) + 20
    session.check(NOW + 19)
    assert session.is_open
    session.check(NOW + 21)
    assert session.closing is Closing.UNAUTHORIZED
