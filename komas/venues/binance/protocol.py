"""One conversation with Binance, as a state machine. Sans-I/O (time is an argument, in seconds).

What is held is reconciled with what is wanted: the difference is computed anew for each request, so nothing is
remembered twice. For each stream name:

    wanted ──open_with()──▶ held                    named in the URL: the handshake is its acknowledgement
    wanted ──next_request()──▶ asked ──ack──▶ held ──next_request()──▶ asked (to drop) ──ack──▶ gone
                               asked ──error──▶ refused, or asked again in halves until the culprit stands alone
                               asked ──no answer for ACK_TIMEOUT_S──▶ unsure: asked again, ASKS times at most,
                                                   if anything else came
    held ──not in LIST_SUBSCRIPTIONS──▶ wanted; not held and in it ──▶ held, so that it is dropped if it is not wanted

What was asked last of a stream decides: the exchange takes requests in their order, whatever becomes of its answers.
Requests keep within the exchange's count of messages, in a true rolling window in which pongs count too, and in which a
request counts from its answer: it may have been under way until then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from komas.errors import Cause, VenueError
from komas.venues.binance import limits
from komas.venues.binance.wire import Combined, is_error, read_error, read_list
from komas.venues.core.connection import Refusal
from komas.venues.core.rate_window import RollingWindow

ACK_TIMEOUT_S: Final = 10.0
ASKS: Final = 3
STRIKES: Final = 2

RECONCILE_EVERY_S: Final = 300.0  # what the exchange believes is compared with what we do

SUBSCRIBE: Final = "SUBSCRIBE"
UNSUBSCRIBE: Final = "UNSUBSCRIBE"
LIST: Final = "LIST_SUBSCRIPTIONS"


class _Command(msgspec.Struct):
    """``{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}``."""

    method: str
    params: tuple[str, ...]
    id: int


class _Question(msgspec.Struct):
    """``{"method":"LIST_SUBSCRIPTIONS","id":3}``: with ``params`` it would be refused."""

    method: str
    id: int


class _Request(msgspec.Struct):
    method: str
    names: tuple[str, ...]
    asked_at: float


class Quarantine:
    """What is remembered from one connection to the next: names that may be why the exchange hung up.

    Without it one bad name would end each connection that asks for it, and its good neighbours with it.
    """

    def __init__(self) -> None:
        self.suspects: list[tuple[str, ...]] = []  # to be asked by themselves, the last first
        self._strikes: dict[str, int] = {}

    def split(self, names: tuple[str, ...]) -> None:
        """Suspect each half of a batch that went wrong."""
        middle = len(names) // 2
        self.suspects += [names[middle:], names[:middle]]

    def clear(self, name: str) -> None:
        """Forget the strikes of a name that the exchange has taken after all."""
        self._strikes.pop(name, None)

    def strike(self, name: str) -> bool:
        """Count one hang-up on a name that was asked for alone; whether it was the last that we take."""
        self._strikes[name] = self._strikes.get(name, 0) + 1
        return self._strikes[name] >= STRIKES


class SubscriptionProtocol:
    """The control half of one connection: what is held, what is asked, and when the next word may be said."""

    def __init__(self, quarantine: Quarantine | None = None, *, most: int = limits.STREAMS_PER_CONNECTION) -> None:
        self._quarantine = quarantine or Quarantine()
        self._most = most
        self._frames = RollingWindow(limits.MESSAGES, limits.MESSAGES_PERIOD_S)
        self._spacing = RollingWindow(1, limits.REQUEST_SPACING_S)
        self._requests: dict[int, _Request] = {}
        self._late: dict[int, _Request] = {}  # given up waiting for, and answered perhaps yet
        self._in_flight: set[str] = set()
        self._newest: dict[str, tuple[str, int]] = {}  # by name, what was asked last, and the first request that did
        self._unsure: dict[str, None] = {}  # whose newest request was not answered: held, or not
        self._was_full = False
        self._asks: dict[str, int] = {}
        self._last_id = 0
        self._is_leaving = False  # a request, as the next frame
        self._look_at = math.inf
        self._touched: set[str] = set()  # since the exchange was asked for its list
        self.held: dict[str, None] = {}

    def message_room(self, now: float) -> int:
        """How many messages may be sent at once, as the exchange counts."""
        return self._frames.room(now)

    def open_with(self, wanted: Sequence[str]) -> str:
        """The query for the dial: as many wanted streams as a URL takes; they cost no message."""
        query = ""
        for name in wanted[: limits.NAMES_PER_REQUEST]:
            longer = f"{query}/{quote(name, safe='@')}" if query else quote(name, safe="@")
            if len(longer) > limits.BYTES_PER_URL:
                break
            query = longer
            self.held[name] = None
        return f"?streams={query}" if query else ""

    def begin(self, now: float) -> None:
        """The connection is up: the exchange's list is to be asked for in a while."""
        self._look_at = now + RECONCILE_EVERY_S

    def sent(self, now: float) -> None:
        """Count one frame that left, whatever it was; a request counts once it is answered, or given up."""
        if not self._is_leaving:
            self._frames.record(now)
        self._is_leaving = False

    def free_at(self, now: float) -> float:
        """When the next request may leave: ``now``, or later."""
        return max(self._frames.free_at(now, beside=len(self._requests)), self._spacing.free_at(now))

    def next_request(self, wanted: Sequence[str], now: float) -> str | None:
        """The text of the next request, ``None`` when what is held or asked for is what is wanted.

        Unsubscriptions go first: they make room. The caller sends the text, and sent() counts it. While
        ``limits.REQUESTS_UNANSWERED`` are not answered there is none.
        """
        if len(self._requests) >= limits.REQUESTS_UNANSWERED:
            return None
        method, names = self._difference(wanted)
        if not names and now < self._look_at:
            return None
        self._last_id += 1
        self._spacing.record(now)
        self._is_leaving = True
        if not names:
            self._look_at = now + RECONCILE_EVERY_S
            self._touched = set(self._in_flight)
            self._requests[self._last_id] = _Request(LIST, (), now)
            return msgspec.json.encode(_Question(LIST, self._last_id)).decode()
        self._requests[self._last_id] = _Request(method, names, now)
        for name in names:
            if self._newest.get(name, ("", 0))[0] != method:
                self._newest[name] = method, self._last_id
        self._in_flight.update(names)
        self._touched.update(names)
        return msgspec.json.encode(_Command(method, names, self._last_id)).decode()

    def is_awaited(self, frame: Combined) -> bool:
        """Whether a frame is the reply to a request, which ``answered()`` is to take."""
        number = self._number_of(frame)
        return number in self._requests or number in self._late

    def answered(self, frame: Combined, now: float) -> tuple[Refusal, ...]:
        """Take one reply in; returns the streams that it finally refused, which the caller must stop wanting."""
        number, request = self._request_of(frame)
        if request is None:
            return ()
        self._frames.record(now)
        if request.method == LIST:
            self._compare(frame)
            return ()
        names = tuple(name for name in request.names if self._newest[name][1] <= number)
        self._in_flight.difference_update(names)
        if is_error(frame):
            return self._refuse(request.method, names, *read_error(frame)) if names else ()
        for name in names:
            self._asks.pop(name, None)
            self._unsure.pop(name, None)
            if request.method == SUBSCRIBE:
                self.held[name] = None
                self._quarantine.clear(name)
            else:
                self.held.pop(name, None)
        return ()

    def delivered(self, name: str) -> None:
        """Take data of a stream that was asked for as its acknowledgement: it may overtake the reply, or replace it."""
        method, first = self._newest.get(name, (UNSUBSCRIBE, 0))
        unanswered = self._requests | self._late
        if method == SUBSCRIBE and any(name in unanswered[number].names for number in unanswered if number >= first):
            self.held[name] = None
            self._unsure.pop(name, None)

    def expire(self, now: float, heard_at: float) -> None:
        """Ask again for what was not answered; ``VenueError`` when the exchange has ignored a request too often.

        The same where nothing at all was heard since (``heard_at``): the network stands still, and what is asked again
        would come together with what was asked before.
        """
        for number, request in list(self._requests.items()):
            if now < request.asked_at + ACK_TIMEOUT_S:
                continue
            if heard_at <= request.asked_at:
                raise VenueError(f"nothing came in {ACK_TIMEOUT_S:g} s after a request", cause=Cause.SILENT)
            del self._requests[number]
            self._frames.record(now)
            if request.method == LIST:
                continue  # asked again in its turn; an older list means nothing
            self._late[number] = request
            for name in request.names:
                if number < self._newest[name][1]:
                    continue
                self._in_flight.discard(name)
                if request.method == SUBSCRIBE and name in self.held and name not in self._unsure:
                    continue  # its data came instead
                self._unsure[name] = None
                self._asks[name] = self._asks.get(name, 0) + 1
                if self._asks[name] >= ASKS:
                    raise VenueError(f"{request.method} was not answered {ASKS} times", cause=Cause.SILENT)

    def next_look(self) -> float:
        """When something is due without a change of interest: an unanswered request, the exchange's list."""
        return min([request.asked_at + ACK_TIMEOUT_S for request in self._requests.values()] + [self._look_at])

    def hung_up(self, words: str) -> tuple[Refusal, ...]:
        """The exchange closed on us for what we said: suspect what was unanswered; returns what is given up."""
        refusals: list[Refusal] = []
        for request in self._requests.values():
            if request.method != SUBSCRIBE:
                continue
            if len(request.names) > 1:
                self._quarantine.split(request.names)
            elif self._quarantine.strike(request.names[0]):
                refusals.append(Refusal(request.names[0], None, words))
            else:
                self._quarantine.suspects.append(request.names)
        return tuple(refusals)

    def _difference(self, wanted: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        goal = set(wanted)
        known = self.held | self._unsure
        surplus = [name for name in known if name not in goal and name not in self._in_flight]
        if surplus:
            return UNSUBSCRIBE, _batch(surplus)
        while self._quarantine.suspects:
            suspects = self._quarantine.suspects.pop()
            asked = tuple(self._fitting([name for name in suspects if name in goal]))
            if asked:
                return SUBSCRIBE, asked
        return SUBSCRIBE, _batch(self._fitting(wanted))

    def _compare(self, frame: Combined) -> None:
        """Believe the exchange's list, but for names that were spoken of since it was asked for."""
        listed = read_list(frame)
        if listed is None:
            return
        there = set(listed)
        for name in [name for name in self.held if name not in there and name not in self._touched]:
            del self.held[name]
        for name in listed:
            if name not in self._touched:
                self.held[name] = None
        for name in [name for name in self._unsure if name not in self._touched]:
            del self._unsure[name]

    def _fitting(self, wanted: Sequence[str]) -> list[str]:
        """Of these names, those that are to be asked for, as many as there is room for."""
        room = self._most - len(self.held | self._unsure | dict.fromkeys(self._in_flight))
        fitting: list[str] = []
        for name in wanted:
            if name in self._in_flight or (name in self.held and name not in self._unsure):
                continue
            if name not in self._unsure:
                room -= 1
                if room < 0:
                    continue
            fitting.append(name)
        return fitting

    def _refuse(self, method: str, names: tuple[str, ...], code: int | None, words: str) -> tuple[Refusal, ...]:
        if method == UNSUBSCRIBE:
            raise VenueError(f"the exchange refused UNSUBSCRIBE: {words}", cause=Cause.PROTOCOL, code=code)
        if code == limits.TOO_MANY_SUBSCRIPTIONS and not self._was_full:
            self._was_full = True  # no name is to blame; the exchange hangs up, and what it holds is counted anew
            return ()
        if len(names) > 1:
            self._quarantine.split(names)
            return ()
        return (Refusal(names[0], code, words),)

    def _request_of(self, frame: Combined) -> tuple[int, _Request | None]:
        """The request that a reply is about, which is answered with that."""
        number = self._number_of(frame)
        return number, self._requests.pop(number, None) or self._late.pop(number, None)

    def _number_of(self, frame: Combined) -> int:
        """The number of the request that a reply is about; an error without a readable id is about the oldest one."""
        if frame.id is None and self._requests and is_error(frame):
            return min(self._requests)
        return frame.id if isinstance(frame.id, int) else 0


def _batch(names: Sequence[str]) -> tuple[str, ...]:
    """As many names as one request takes."""
    taken: list[str] = []
    size = len('{"method":"UNSUBSCRIBE","params":[],"id":1000000}')
    for name in names[: limits.NAMES_PER_REQUEST]:
        size += len(name.encode()) + len('"",')
        if size > limits.BYTES_PER_REQUEST:
            break
        taken.append(name)
    return tuple(taken)
