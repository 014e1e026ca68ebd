"""What is done to the events of one connection on their way out: lost, doubled, turned round, cut up, embellished.

A tamperer is a function from an event to the pieces that go out in its place. A piece that is bytes is ready to send;
an event will be encoded for the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from komas.simulator import frames
from komas.simulator.fault_script import Drop, Fragment, Garbage, Reorder, Repeat, Tampering, Unknown
from komas.simulator.market import Event

HUGE_BYTES = 1 << 20
STRANGE_EVENT = b'{"e":"somethingNew","E":1,"s":"BTCUSDT","zz":{"deep":[1,2,3]}}'
STRANGE_KEYS = b'"zzNew":{"deep":[1,null]},"st":1,'
Encode = Callable[[Event], bytes]
Piece = Event | bytes


class Tamperer:
    """One fault at work on one connection; ``done`` once it has nothing left to do."""

    def __init__(self, fault: Tampering, encode: Encode) -> None:
        self.fault = fault
        self.done = False
        self._encode = encode
        self._spared = fault.after_frames
        self._left = fault.frames
        self._held: list[Event] = []

    def __call__(self, event: Event) -> list[Piece]:
        """What goes out in the place of the event."""
        if self.done or self.fault.stream not in ("", event.stream):
            return [event]
        if self._spared:
            self._spared -= 1
            return [event]
        if self._left is not None:
            self._left -= 1
            self.done = self._left == 0
        return self._tampered(event)

    def _tampered(self, event: Event) -> list[Piece]:
        match self.fault:
            case Drop():
                return []
            case Repeat():
                return [event, event]
            case Reorder():
                return self._turned(event)
            case Fragment():
                return [fragmented(self._encode(event))]
            case _:
                return [event._replace(payload=embellished(event.payload))]

    def _turned(self, event: Event) -> list[Piece]:
        self._held.append(event)
        if not self.done:
            return []
        return list(reversed(self._held))


class Countdown:
    """Lets so many events through, then does something: how a connection ends after the nth event."""

    def __init__(self, frames_left: int, act: Callable[[], None]) -> None:
        self.done = False
        self._left = frames_left
        self._act = act

    def __call__(self, event: Event) -> list[Piece]:
        """The event itself; the act follows once it has been sent."""
        self._left -= 1
        self.done = self._left <= 0
        return [event]

    def act(self) -> None:
        """Do it."""
        self._act()


def embellished(payload: bytes) -> bytes:
    """The event with keys that nobody has announced; every object of an array gets them."""
    if payload.startswith(b"["):
        return payload.replace(b'{"e":', b"{" + STRANGE_KEYS + b'"e":')
    return b"{" + STRANGE_KEYS + payload[1:]


def fragmented(frame: bytes) -> bytes:
    """A text frame in three fragments, with a ping between the last two."""
    payload = frames.payload_of(frame)
    first, second = len(payload) // 3, 2 * len(payload) // 3
    return b"".join(
        (
            frames.frame(frames.TEXT, payload[:first], final=False),
            frames.frame(frames.CONTINUATION, payload[first:second], final=False),
            frames.frame(frames.PING, b"between"),
            frames.frame(frames.CONTINUATION, payload[second:]),
        )
    )


def strange(fault: Unknown, stream: str) -> Event:
    """An event of an unknown type, or of an unknown stream."""
    return Event(stream if fault.kind == "event" else "btcusdt@somethingNew", STRANGE_EVENT)


def garbage(fault: Garbage, *, combined: bool) -> bytes:
    """Bytes that are not the exchange's protocol, or not WebSocket."""
    event = frames.wrapped("btcusdt@trade", STRANGE_EVENT) if combined else STRANGE_EVENT
    return {
        "json": lambda: frames.text(b"this is not JSON"),
        "truncated": lambda: frames.text(event[: len(event) // 2]),
        "binary": lambda: frames.frame(frames.BINARY, bytes(range(256))),
        "fragmented": lambda: fragmented(frames.text(event)),
        "huge": lambda: frames.text(b'{"e":"huge","padding":"%b"}' % (b"x" * HUGE_BYTES)),
        "utf8": lambda: frames.text(b'{"e":"\xff\xfe"}'),
        "reserved": lambda: b"\xf3" + frames.text(event)[1:],  # reserved bits and a reserved opcode
    }[fault.kind]()
