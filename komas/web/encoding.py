"""The bytes that leave: market events and notices as Server-Sent Events, signals as WebSocket frames. Sans-I/O.

An event is encoded once for all its subscribers: its envelope keeps the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from komas.hub.overflow import Item
from komas.model.codec import Envelope, NoticeEnvelope, encode, iso_ms
from komas.model.market import AggTrade, Event, FeedStatus, Gap, HealthNotice, Notice, StreamList, Trade
from komas.model.signals import SignalEnvelope

EVENT_NAMES: Final[dict[type[Notice], str]] = {
    Gap: "gap",
    FeedStatus: "status",
    HealthNotice: "health",
    StreamList: "streams",
}
_DATA: Final = b"data: "
_MEMBERS: Final = len(b"data: {")  # where those of an event's object begin; they end with its line

# RFC 6455, 5.2: an unmasked text frame without fragments, which is what any server sends to any client.
_TEXT: Final = 0x81
_IN_TWO: Final = 126  # the length is in the next two bytes,
_IN_EIGHT: Final = 127  # or in the next eight


class _Message(msgspec.Struct):
    """What is read of a message."""

    data: Event


class EventMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The envelope of the user's document; ``backfilled`` is there where it is true."""

    type: str
    data: Event
    timestamp: str
    backfilled: bool = False


_messages: Final = msgspec.json.Decoder(_Message)
_TRADES: Final = (Trade, AggTrade)  # most of what is sent


def message(envelope: Envelope) -> bytes:
    """A market event as JSON, in the envelope of the user's document."""
    event = envelope.event
    if isinstance(event, _TRADES) and (text := _trade_text(event)) is not None:
        backfilled = ',"backfilled":true' if envelope.backfilled else ""
        return f'{text},"timestamp":"{iso_ms(envelope.received_ms)}"{backfilled}}}'.encode()
    kind = str(envelope.stream.kind)
    return encode(EventMessage(kind, event, iso_ms(envelope.received_ms), envelope.backfilled))


def _trade_text(event: Trade | AggTrade) -> str | None:
    """The beginning of a trade's message, in half of the encoder's time; ``None`` where its numbers need that."""
    price, quantity = str(event.price), str(event.quantity)
    if "E" in price or "E" in quantity:
        return None  # it has an exponent
    begin, ids = '{"type":"trade","data":{"type":"trade"', ""
    if isinstance(event, AggTrade):
        begin = '{"type":"agg_trade","data":{"type":"agg_trade"'
        ids = f'"first_trade_id":{event.first_trade_id},"last_trade_id":{event.last_trade_id},'
    return (
        f'{begin},"symbol":{_symbol_text(event.symbol)},"trade_id":{event.trade_id},"price":{price},'
        f'"quantity":{quantity},{ids}"timestamp":{event.timestamp},'
        f'"is_buyer_maker":{"true" if event.is_buyer_maker else "false"}}}'
    )


@lru_cache(maxsize=4096)
def _symbol_text(symbol: str) -> str:
    return encode(symbol).decode()


def server_sent_event(item: Item) -> bytes:
    """A market event or a notice as one Server-Sent Event.

    Events that a reader can resume from carry their position as ``id``, after their data: a reader that is cut off in
    the middle must not come back with the position of an event that it has not read, though some
    (@microsoft/fetch-event-source) count an ``id`` as soon as its line is there, against WHATWG HTML, 9.2.6. Notices
    have names, so ``onmessage`` does not see them.
    """
    if item.encoded is None:
        if isinstance(item, NoticeEnvelope):
            item.encoded = named_event(EVENT_NAMES[type(item.notice)], item.notice)
        else:
            place = b"" if item.sequence is None else f"id: {item.epoch}-{item.sequence}\n".encode()
            item.encoded = b"data: %b\n%b\n" % (message(item), place)
    return item.encoded


def read_event(encoded: bytes) -> Event:
    """The event of which ``server_sent_event()`` made these bytes; every number has its digits."""
    return _messages.decode(encoded[len(_DATA) : encoded.index(b"\n")]).data


def multiplexed_event(item: Item, epoch: str) -> bytes:
    """The same for a reader of many streams: with the stream's name, and a place among the events of all of them.

    ``epoch`` is the hub's.
    """
    encoded = server_sent_event(item)
    if isinstance(item, NoticeEnvelope):
        return encoded
    members = encoded[_MEMBERS : encoded.index(b"\n")]
    place = b"id: %b-%d\n" % (epoch.encode(), item.publication) if item.publication else b""
    return b'data: {"stream":"%b",%b\n%b\n' % (item.stream.name.encode(), members, place)


def multiplexed_message(item: Item, epoch: str) -> bytes:
    """An event or a notice as JSON, for a WebSocket that reads many streams: with what an SSE's ``id`` and name say."""
    if isinstance(item, NoticeEnvelope):
        name = EVENT_NAMES[type(item.notice)]
        members = encode(item.notice).removeprefix(b"{")
        return b'{"type":"%b",%b' % (name.encode(), members)
    encoded = server_sent_event(item)
    members = encoded[_MEMBERS : encoded.index(b"\n")]
    place = b'"position":"%b-%d",' % (epoch.encode(), item.publication) if item.publication else b""
    return b'{"stream":"%b",%b%b' % (item.stream.name.encode(), place, members)


def named_event(name: str, value: object) -> bytes:
    """One Server-Sent Event with a name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(value))


def text_frame(payload: bytes) -> bytes:
    """A WebSocket text frame."""
    length = len(payload)
    if length < _IN_TWO:
        return bytes((_TEXT, length)) + payload
    if length < 2**16:
        return struct.pack("!BBH", _TEXT, _IN_TWO, length) + payload
    return struct.pack("!BBQ", _TEXT, _IN_EIGHT, length) + payload


def close_reason(words: str) -> str:
    """What of them fits a close frame (RFC 6455, 5.5: 125 bytes, two of which are the code)."""
    return words.encode()[:120].decode(errors="ignore")


class SignalFrames(msgspec.Struct, frozen=True):
    """The encoder of VIP sockets: signals as WebSocket frames, with their ``positions`` for clients that asked."""

    positions: bool

    @property
    def heartbeat(self) -> bytes:
        """Nothing: a VIP socket has pings of its own."""
        return b""

    def new_encoding(self) -> Callable[[list[SignalEnvelope]], bytes]:
        """A function that encodes several signals as one piece."""
        return lambda envelopes: b"".join(
            [text_frame(envelope.text(positions=self.positions).encode()) for envelope in envelopes]
        )
