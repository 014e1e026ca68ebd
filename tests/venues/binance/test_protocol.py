"""One conversation: what is asked, in what portions, when, and what answers mean."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from komas.errors import VenueError
from komas.venues.binance import limits
from komas.venues.binance.protocol import ACK_TIMEOUT_S, Quarantine, SubscriptionProtocol
from komas.venues.binance.wire import read_frame
from komas.venues.core.connection import Refusal

INVALID = {"code": 2, "msg": "Invalid request: invalid stream"}


def _names(count: int, start: int = 0) -> list[str]:
    return [f"coin{index:04}usdt@trade" for index in range(start, start + count)]


def _ask(protocol: SubscriptionProtocol, wanted: list[str], now: float = 0.0) -> tuple[str, list[str], int]:
    text = protocol.next_request(wanted, now)
    assert text is not None
    request = json.loads(text)
    return request["method"], request["params"], request["id"]


def _answer(protocol: SubscriptionProtocol, number: int, error: object = None) -> tuple[Refusal, ...]:
    body = {"result": None, "id": number} if error is None else {"error": error, "id": number}
    return protocol.answered(read_frame(json.dumps(body)), 0.0)


def test_the_first_streams_go_into_the_url() -> None:
    """They cost no message, and the handshake acknowledges them."""
    protocol = SubscriptionProtocol()
    assert protocol.open_with(["btcusdt@trade", "ethusdt@ticker"]) == "?streams=btcusdt@trade/ethusdt@ticker"
    assert list(protocol.held) == ["btcusdt@trade", "ethusdt@ticker"]
    assert protocol.next_request(["btcusdt@trade", "ethusdt@ticker"], 0.0) is None


def test_no_wish_is_no_query() -> None:
    """Connecting without streams is possible."""
    assert SubscriptionProtocol().open_with([]) == ""


def test_names_that_are_not_latin_are_encoded() -> None:
    """UTF-8 in a URL is percent-encoded."""
    assert SubscriptionProtocol().open_with(["币usdt@trade"]) == "?streams=%E5%B8%81usdt@trade"


def test_the_rest_goes_in_batches() -> None:
    """At most 200 names and 8,000 bytes a message, until all is asked for."""
    protocol, wanted = SubscriptionProtocol(), _names(1000)
    path = protocol.open_with(wanted)
    assert len(path) <= limits.BYTES_PER_URL + 20
    asked = list(protocol.held)
    while (text := protocol.next_request(wanted, 0.0)) is not None:
        request = json.loads(text)
        assert len(request["params"]) <= 200
        assert len(text.encode()) <= 8000
        asked += request["params"]
        _answer(protocol, request["id"])
    assert asked == wanted


def test_what_is_not_answered_holds_the_next_request_back() -> None:
    """A network that stood still brings all of it in one moment, in which five messages are one too many."""
    protocol, wanted = SubscriptionProtocol(), _names(2000)
    numbers = [_ask(protocol, wanted)[2] for _ in range(limits.REQUESTS_UNANSWERED)]
    assert limits.REQUESTS_UNANSWERED + 1 <= limits.MESSAGES  # with a pong
    assert protocol.next_request(wanted, 10.0) is None
    _answer(protocol, numbers[0])
    assert protocol.next_request(wanted, 10.0) is not None
    assert protocol.next_request(wanted, 10.0) is None
    protocol.expire(10.0 + ACK_TIMEOUT_S, 10.0 + ACK_TIMEOUT_S)
    assert protocol.next_request(wanted, 10.0 + ACK_TIMEOUT_S) is not None


@given(st.lists(st.text("abc币安人生", min_size=1, max_size=40), min_size=1, max_size=300, unique=True))
@settings(max_examples=30)
def test_a_batch_is_bounded_in_bytes_whatever_the_names(names: list[str]) -> None:
    """Names that are not Latin have more bytes than letters."""
    text = SubscriptionProtocol().next_request([f"{name}@trade" for name in names], 0.0)
    assert text is not None
    assert len(text.encode()) <= limits.BYTES_PER_REQUEST


def test_what_is_in_flight_is_not_asked_twice() -> None:
    """The difference counts what was asked as asked."""
    protocol = SubscriptionProtocol()
    _, _, number = _ask(protocol, _names(3))
    assert protocol.next_request(_names(3), 1.0) is None
    assert _answer(protocol, number) == ()
    assert list(protocol.held) == _names(3)


def test_what_nobody_wants_is_dropped_first() -> None:
    """To make room for what is wanted."""
    protocol = SubscriptionProtocol()
    protocol.open_with(_names(2))
    method, names, number = _ask(protocol, _names(2, start=1))
    assert (method, names) == ("UNSUBSCRIBE", _names(1))
    assert _ask(protocol, _names(2, start=1))[:2] == ("SUBSCRIBE", _names(1, start=2))
    _answer(protocol, number)
    assert list(protocol.held) == _names(1, start=1)


def test_no_more_than_the_exchange_takes() -> None:
    """The 1025th stream would cost all the others."""
    protocol, wanted = SubscriptionProtocol(), _names(2000)
    protocol.open_with(wanted)
    while (request := protocol.next_request(wanted, 0.0)) is not None:
        _answer(protocol, json.loads(request)["id"])
    assert len(protocol.held) == 1024


def test_a_single_refusal_is_final_and_has_the_exchanges_words() -> None:
    """The caller stops wanting it."""
    protocol = SubscriptionProtocol()
    _, _, number = _ask(protocol, ["bad@trade"])
    assert _answer(protocol, number, INVALID) == (Refusal("bad@trade", 2, "Invalid request: invalid stream"),)
    assert "bad@trade" not in protocol.held


def test_a_refused_batch_is_halved_until_the_culprit_stands_alone() -> None:
    """Its neighbours get through."""
    protocol, wanted, refused = SubscriptionProtocol(), _names(20), []
    culprit = wanted[13]
    for _ in range(40):
        text = protocol.next_request([name for name in wanted if name not in refused], 0.0)
        if text is None:
            break
        request = json.loads(text)
        error = INVALID if culprit in request["params"] else None
        refused += [refusal.name for refusal in _answer(protocol, request["id"], error)]
    assert refused == [culprit]
    assert sorted(protocol.held) == [name for name in wanted if name != culprit]


def test_an_error_without_an_id_is_about_the_oldest_request() -> None:
    """The exchange could not read the id."""
    protocol = SubscriptionProtocol()
    _ask(protocol, ["bad@trade"])
    frame = read_frame('{"error":{"code":3,"msg":"Invalid JSON"},"id":null}')
    assert protocol.answered(frame, 0.0) == (Refusal("bad@trade", 3, "Invalid JSON"),)


def test_an_error_about_nothing_is_ignored() -> None:
    """There is nothing that it could be about."""
    assert SubscriptionProtocol().answered(read_frame('{"error":{"code":3,"msg":"Invalid JSON"},"id":null}'), 0.0) == ()


def test_no_error_is_no_refusal() -> None:
    """``"error": null`` says yes."""
    protocol = SubscriptionProtocol()
    _, _, number = _ask(protocol, ["a@trade"])
    assert protocol.answered(read_frame(f'{{"error":null,"result":null,"id":{number}}}'), 0.0) == ()
    assert "a@trade" in protocol.held


def test_an_error_that_cannot_be_read_is_a_refusal_still() -> None:
    """Numbers out of range, and no words."""
    protocol = SubscriptionProtocol()
    _, _, number = _ask(protocol, ["a@trade"])
    (refusal,) = protocol.answered(read_frame(f'{{"error":{{"code":1e999,"msg":5}},"id":{number}}}'), 0.0)
    assert (refusal.name, refusal.code) == ("a@trade", None)


def test_a_late_answer_still_counts_and_blames_nobody_else() -> None:
    """It belongs to its own request, which was given up waiting for."""
    protocol = SubscriptionProtocol()
    _, _, first = _ask(protocol, ["a@trade"])
    protocol.expire(ACK_TIMEOUT_S, ACK_TIMEOUT_S)
    _ask(protocol, ["a@trade", "b@trade"], ACK_TIMEOUT_S)
    assert [refusal.name for refusal in _answer(protocol, first, INVALID)] == ["a@trade"]


def test_an_answer_to_what_was_asked_before_the_contrary_proves_nothing() -> None:
    """The exchange has dropped it since; neither do the last frames of a stream that it has let go."""
    protocol = SubscriptionProtocol()
    _, _, first = _ask(protocol, ["a@trade"])
    protocol.delivered("a@trade")
    protocol.expire(ACK_TIMEOUT_S, ACK_TIMEOUT_S)
    method, _, second = _ask(protocol, [], ACK_TIMEOUT_S)
    assert method == "UNSUBSCRIBE"
    _answer(protocol, second)
    _answer(protocol, first)
    protocol.delivered("a@trade")
    assert not protocol.held
    assert _ask(protocol, ["a@trade"], 20.0)[:2] == ("SUBSCRIBE", ["a@trade"])


def test_what_was_not_answered_is_unsure_and_said_again() -> None:
    """Wanted, it is asked for; unwanted, it is dropped; meanwhile it has its place, and nobody else takes it."""
    protocol = SubscriptionProtocol(most=2)
    for name in ("a@trade", "b@trade"):
        _answer(protocol, _ask(protocol, ["a@trade", "b@trade"][: 1 + (name > "b")])[2])
    assert _ask(protocol, ["b@trade"], 1.0)[0] == "UNSUBSCRIBE"
    protocol.expire(1.0 + ACK_TIMEOUT_S, 1.0 + ACK_TIMEOUT_S)
    assert _ask(protocol, ["b@trade", "a@trade"], 12.0)[:2] == ("SUBSCRIBE", ["a@trade"])
    protocol = SubscriptionProtocol(most=1)
    _ask(protocol, ["a@trade"])
    protocol.expire(ACK_TIMEOUT_S, ACK_TIMEOUT_S)
    method, names, number = _ask(protocol, ["z@trade"], ACK_TIMEOUT_S)
    assert (method, names) == ("UNSUBSCRIBE", ["a@trade"])
    assert protocol.next_request(["z@trade"], ACK_TIMEOUT_S + 1) is None
    _answer(protocol, number)
    assert _ask(protocol, ["z@trade"], ACK_TIMEOUT_S + 2)[:2] == ("SUBSCRIBE", ["z@trade"])


def test_too_many_subscriptions_is_no_names_fault_at_first() -> None:
    """The exchange hangs up over it, as a rule; where it does not, and says so again, the name is refused."""
    protocol = SubscriptionProtocol()
    full = {"code": limits.TOO_MANY_SUBSCRIPTIONS, "msg": "Too many subscriptions"}
    assert _answer(protocol, _ask(protocol, ["a@trade"])[2], full) == ()
    refusals = _answer(protocol, _ask(protocol, ["a@trade"], 1.0)[2], full)
    assert [refusal.name for refusal in refusals] == ["a@trade"]


def test_data_is_an_acknowledgement_of_what_was_asked_for() -> None:
    """The reply may be late or lost; data of a stream that was never asked for proves nothing."""
    protocol = SubscriptionProtocol()
    _ask(protocol, ["a@trade"])
    protocol.delivered("a@trade")
    protocol.delivered("z@trade")
    assert list(protocol.held) == ["a@trade"]
    for now in (ACK_TIMEOUT_S, 2 * ACK_TIMEOUT_S, 5 * ACK_TIMEOUT_S):
        protocol.expire(now, now)
    assert protocol.next_request(["a@trade"], 100.0) is None


def test_an_acknowledged_name_has_no_strikes_left() -> None:
    """Two hang-ups that lie a good day apart are no pattern."""
    quarantine = Quarantine()
    for _ in range(3):
        protocol = SubscriptionProtocol(quarantine)
        _ask(protocol, ["a@trade"])
        assert protocol.hung_up("1008") == ()
        protocol = SubscriptionProtocol(quarantine)
        _, _, number = _ask(protocol, ["a@trade"])
        _answer(protocol, number)


def test_suspects_keep_within_the_exchanges_count_too() -> None:
    """One stream too many would cost all of them."""
    quarantine = Quarantine()
    quarantine.suspects.append(tuple(_names(200, start=5000)))
    protocol = SubscriptionProtocol(quarantine)
    protocol.held = dict.fromkeys(_names(1000))
    _, names, _ = _ask(protocol, _names(1000) + _names(200, start=5000))
    assert len(names) == 24


def test_a_reply_to_nothing_is_ignored() -> None:
    """Late, repeated or foreign."""
    assert SubscriptionProtocol().answered(read_frame('{"result":null,"id":99}'), 0.0) == ()
    assert SubscriptionProtocol().answered(read_frame('{"result":["a@trade"],"id":"x"}'), 0.0) == ()


def test_a_lost_acknowledgement_is_asked_for_again_three_times_at_most() -> None:
    """Then the connection is not worth keeping."""
    protocol, now = SubscriptionProtocol(), 0.0
    for _ in range(2):
        _ask(protocol, _names(1), now)
        assert protocol.next_look() == now + ACK_TIMEOUT_S
        now += ACK_TIMEOUT_S
        protocol.expire(now, now)
    _ask(protocol, _names(1), now)
    with pytest.raises(VenueError, match="SUBSCRIBE was not answered 3 times"):
        protocol.expire(now + ACK_TIMEOUT_S, now + ACK_TIMEOUT_S)


def test_a_name_that_the_exchange_hangs_up_on_is_quarantined() -> None:
    """Over connections, halves are asked by themselves, until one name has cost two of them."""
    quarantine, wanted, given_up = Quarantine(), _names(4), []
    for _ in range(12):
        protocol = SubscriptionProtocol(quarantine)
        goal = [name for name in wanted if name not in given_up]
        while (text := protocol.next_request(goal, 0.0)) is not None:
            request = json.loads(text)
            if wanted[2] in request["params"]:
                given_up += [refusal.name for refusal in protocol.hung_up("closed with 1008")]
                break
            _answer(protocol, request["id"])
    assert given_up == [wanted[2]]


def test_requests_and_pongs_share_one_window() -> None:
    """Five frames a second close the connection: four are sent at most, requests 275 ms apart."""
    protocol, now, sent = SubscriptionProtocol(), 0.0, []
    for index in range(40):
        now = protocol.free_at(now)
        sent.append(now)
        protocol.next_request(_names(1, start=index + 1), now)
        protocol.sent(now)
        if index % 5 == 0:  # a ping is answered whenever it comes
            sent.append(now)
            protocol.sent(now)
    for start in sent:
        assert sum(start <= moment < start + 1.0 for moment in sent) <= 5
    assert min(after - before for before, after in itertools.pairwise(sent) if after > before) >= 0.25


@given(st.integers(0, 2**32))
def test_a_network_that_stands_still_brings_no_more_than_five_at_once(seed: int) -> None:
    """Each second, in the exchange's count, whatever was under way for how long, with a pong in between."""
    pick, protocol = random.Random(seed), SubscriptionProtocol()
    now, arrived_by, arrivals = 0.0, 0.0, []
    under_way: list[tuple[float, int]] = []  # when the answer is here, and to what
    for index in range(60):
        now = max(now, protocol.free_at(now)) + pick.choice([0.0, 0.05, 0.3])
        while under_way and (under_way[0][0] <= now or len(under_way) == limits.REQUESTS_UNANSWERED):
            at, number = under_way.pop(0)
            now = max(now, at)
            protocol.answered(read_frame(json.dumps({"result": None, "id": number})), now)
        if protocol.free_at(now) > now:
            continue
        protocol.expire(now, now)
        text = protocol.next_request(_names(index + 1), now)
        protocol.sent(now)
        # In order, each after those before it; now and then nothing moves for some seconds.
        arrived_by = max(arrived_by, now + pick.choice([0.0, 0.1, 0.1, 3.0]))
        arrivals.append(arrived_by)
        assert text is not None
        under_way.append((arrived_by + pick.choice([0.0, 0.1]), json.loads(text)["id"]))
        if index % 20 == 10:
            protocol.sent(now)
            arrivals.append(arrived_by)
    for start in arrivals:
        assert sum(start <= moment < start + 1.0 for moment in arrivals) <= 5


def test_nothing_is_asked_again_where_nothing_at_all_came() -> None:
    """What was asked before would arrive with it; another connection is a better way."""
    protocol = SubscriptionProtocol()
    _ask(protocol, _names(1), 5.0)
    protocol.expire(4.9 + ACK_TIMEOUT_S, 4.0)
    with pytest.raises(VenueError, match="nothing came in 10 s"):
        protocol.expire(5.0 + ACK_TIMEOUT_S, 4.0)
