"""How the watcher and its server stand, from the records that tell of it. Sans-I/O."""

from __future__ import annotations

from typing import Final

import msgspec

from komas.cli.watch.figures import duration
from komas.cli.watch.records import CONNECTION, Record, words
from komas.cli.watch.table import Line, Span

CONNECTING: Final = "connecting"
CONNECTED: Final = "connected"
LOST: Final = "lost"
_MS: Final = 1000

_BAD: Final = frozenset({"gap", "lagged", "busy", "error"})
_WELL: Final = frozenset({"live", "connected"})


class LinkState(msgspec.Struct):
    """The connection of the watcher, and the last notice; both as lines."""

    state: str = CONNECTING
    reason: str = ""
    retry_at_ms: float = 0.0
    losses: int = 0
    gaps: int = 0
    notice: Span = Span("")

    def take(self, record: Record, now_ms: float) -> None:
        """Learn from a notice."""
        if record.type == CONNECTION:
            self._connection(record, now_ms)
            return
        if record.type in {"gap", "lagged"} and not record.fields.get("filled"):
            self.gaps += 1
        self.notice = Span(f"{record.timestamp[11:19]} {told(record)}", _style(record))

    def _connection(self, record: Record, now_ms: float) -> None:
        state = words(record.fields.get("state"))
        if state == LOST and self.state == CONNECTED:
            self.losses += 1
        self.state = state
        self.reason = words(record.fields.get("reason"))
        wait_s = record.fields.get("retry_in_s")
        self.retry_at_ms = now_ms + _MS * float(wait_s) if isinstance(wait_s, (int, float)) else now_ms

    def badge(self, now_ms: float) -> Span:
        """A word for the first line."""
        if self.state == CONNECTED:
            return Span("live", "good") if not self.losses else Span(f"live, {self.losses} cut", "good")
        if self.state == LOST:
            return Span(f"away, again in {duration(max(0.0, self.retry_at_ms - now_ms) / _MS)}", "bad")
        return Span("connecting", "warn")

    def line(self) -> Line:
        """The line at the foot: why there is no connection, else the last notice."""
        if self.state == LOST:
            return (Span(self.reason, "bad"),)
        return (self.notice,)


def told(record: Record) -> str:
    """A notice in words."""
    fields = record.fields
    match record.type:
        case "gap":
            return _gap(record)
        case "lagged":
            return f"lagged: {words(fields.get('dropped'))} events were dropped, for this reader was too slow"
        case "connection":
            wait_s = fields.get("retry_in_s")
            again = f"; trying again in {duration(wait_s)}" if isinstance(wait_s, float) else ""
            reason = f": {words(fields.get('reason'))}" if fields.get("reason") else ""
            return f"{words(fields.get('server'))}: {words(fields.get('state'))}{reason}{again}"
        case "health":
            reason = words(fields.get("reason"))
            return f"{words(fields.get('stream'))} is {words(fields.get('health'))}" + (f": {reason}" if reason else "")
        case "status":
            reason = words(fields.get("reason"))
            return f"the exchange is {words(fields.get('state'))}" + (f": {reason}" if reason else "")
        case _:
            inner = "  ".join(f"{words(key)} {words(value)}" for key, value in fields.items())
            return f"{words(record.type)}: {inner}"


def _gap(record: Record) -> str:
    fields = record.fields
    first, last = (words(fields.get(end)) or "?" for end in ("from", "to"))
    missing = "were filled in" if fields.get("filled") else "are missing"
    reason = words(fields.get("reason"))
    return f"gap: {first} to {last} of {words(fields.get('stream'))} {missing}" + (f": {reason}" if reason else "")


def _style(record: Record) -> str:
    word = record.fields.get("health", record.fields.get("state"))
    if record.type in _BAD and not record.fields.get("filled"):
        return "bad"
    return "dim" if word in _WELL or record.type not in {"health", "status"} else "warn"
