"""Takes apart what one read of a connection to Binance brought: data frames to their streams, answers to who asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from komas.model.kinds import Venue
from komas.venues.binance import limits, wire
from komas.venues.binance.subscriptions import Subscriptions
from komas.venues.core.connection import Arrival, ConnectionSink
from komas.venues.core.ports import Unreadable

# Streams of one read, or frames that are taken apart one by one, after which others run: an order book takes some
# tenths of a millisecond, and a read may bring 20,000 frames of two bytes.
AT_ONCE: Final = 64


class FrameRouter:
    """``leave`` is called, with the reason, when the exchange announces that it will end the connection."""

    def __init__(
        self, venue: Venue, sink: ConnectionSink, subscriptions: Subscriptions, leave: Callable[[str], None]
    ) -> None:
        self._venue = venue
        self._sink = sink
        self._subscriptions = subscriptions
        self._leave = leave
        self._readers: dict[bytes, wire.Reader] = {}  # of the streams that have delivered, by how their frames begin
        self.frames = 0  # data frames since the connection was made

    def take(self, messages: list[bytes], arrival: Arrival) -> Iterator[None]:
        """Take what one read brought; frames of one stream go on together, and none passes an answer.

        Where that is much, it comes in pieces: after each of them others may run.
        """
        if len(messages) == 1 and (reader := self._readers.get(wire.head_of(messages[0]))) is not None:
            self._deliver(reader, messages, arrival)
            return
        known: dict[bytes, list[bytes]] = {}
        head: bytes | tuple[bytes, ...] = ()  # nothing begins with this
        texts: list[bytes] = []
        odd = 0
        for text in messages:
            if text.startswith(head):
                texts.append(text)
            elif (begin := wire.head_of(text)) in self._readers:
                head, texts = begin, known.setdefault(begin, [])
                texts.append(text)
            else:
                yield from self._take_known(known, arrival)
                self._take_apart(text, arrival)
                head = ()
                odd += 1
                if odd % AT_ONCE == 0:
                    yield
        yield from self._take_known(known, arrival)

    def _take_known(self, known: dict[bytes, list[bytes]], arrival: Arrival) -> Iterator[None]:
        for count, (head, texts) in enumerate(known.items()):
            if count and count % AT_ONCE == 0:
                yield
            self._deliver(self._readers[head], texts, arrival)
        known.clear()

    def _take_apart(self, text: bytes, arrival: Arrival) -> None:
        """Take a frame that is an answer, or the first of its stream, or written in another way than usual."""
        try:
            frame = wire.read_frame(text)
        except Unreadable as error:
            if (reader := wire.reader_of(wire.name_in(text), self._venue)) is not None:
                error.stream = reader.stream
            self._sink.on_unreadable(error)
            return
        if frame.e == limits.SHUTDOWN_EVENT or frame.stream == limits.SHUTDOWN_STREAM:
            self._leave("the exchange announced that this server shuts down")
        elif frame.stream is None:
            self._subscriptions.answered(frame)
        elif (reader := wire.reader_of(frame.stream, self._venue)) is not None:
            # Whoever makes up names fills no table.
            if reader.name == frame.stream and (known := self._subscriptions.assigned().get(reader.name)) is not None:
                reader.stream = known  # the same object: a dozen look-ups for each event need not compare it
                self._readers[reader.head] = reader
            self._deliver(reader, [text], arrival)
        else:
            self.frames += 1
            self._sink.on_unknown()

    def _deliver(self, reader: wire.Reader, texts: list[bytes], arrival: Arrival) -> None:
        self.frames += len(texts)
        events = reader.read(texts, arrival.at_ms, self._sink.on_unreadable)
        if events:
            self._subscriptions.heard(reader.name, arrival.at_s, len(texts))
            self._sink.on_events(reader.stream, events, arrival)
