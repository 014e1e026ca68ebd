"""The latest event of every stream that is open. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable

from komas.model.codec import Envelope
from komas.model.kinds import KINDS, Kind
from komas.model.streams import Stream


class Latest:
    """Newest envelope by stream."""

    def __init__(self) -> None:
        self._envelopes: dict[Stream, Envelope] = {}

    def put(self, envelope: Envelope) -> None:
        """Replace what was known of the envelope's stream."""
        self._envelopes[envelope.stream] = envelope

    def get(self, stream: Stream) -> Envelope | None:
        """The newest event of a stream, ``None`` before the first."""
        return self._envelopes.get(stream)

    def forget(self, stream: Stream) -> None:
        """Drop the state of a stream that is no longer subscribed: an old price must not pass for a new one."""
        self._envelopes.pop(stream, None)

    def forget_books(self) -> None:
        """Drop every order book."""
        for stream in [stream for stream in self._envelopes if KINDS[stream.kind].is_book]:
            del self._envelopes[stream]

    def prices(self, symbols: Iterable[str] | None = None) -> dict[str, Envelope]:
        """Newest price by symbol: the full ticker where there is one, the mini ticker elsewhere."""
        wanted = None if symbols is None else set(symbols)
        found: dict[str, Envelope] = {}
        for kind in (Kind.MINI_TICKER, Kind.TICKER):
            for stream, envelope in self._envelopes.items():
                if stream.kind is kind and (wanted is None or stream.symbol in wanted):
                    found[stream.symbol] = envelope
        return found
