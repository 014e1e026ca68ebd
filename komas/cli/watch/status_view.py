"""The health of a server: its exchange connections, the age of its data, streams, reconnects, gaps. Sans-I/O."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

from komas.cli.watch.figures import Trend, duration, milliseconds
from komas.cli.watch.records import SERVER, Fields, Record, own_record, words
from komas.cli.watch.safe_text import clip, shown
from komas.cli.watch.table import Column, Line, Side, Size, Span, beside, draw, fit
from komas.cli.watch.views import Row
from komas.model.market import Health

_MS: Final = 1000
_LABEL: Final = 11
_WIDE: Final = 100
FRESH_S: Final = 5.0  # data of this age is new: tickers come each second

_HEALTHS: Final = tuple(str(health) for health in Health)
_STYLES: Final = {"live": "good", "quiet": "dim", "pending": "warn", "recovering": "warn", "stale": "bad"}
_STATES: Final = {"connected": "good", "connecting": "warn", "reconnecting": "warn", "disconnected": "bad"}


class Connection(msgspec.Struct):
    """A row of ``connections`` in ``GET /api/ws/status``."""

    url: str = ""
    shard: int = 0
    streams: int = 0
    uptime_seconds: float = 0.0
    messages_received: int = 0


class Gaps(msgspec.Struct):
    """Runs of missing events since the server's start: noticed, events filled in, and what was declared as missing."""

    found: int = 0
    filled: int = 0
    declared: int = 0


class Status(msgspec.Struct):
    """``GET /api/ws/status``, as far as it is shown."""

    state: str
    streams: int = 0
    subscribers: int = 0
    messages_received: int = 0
    reconnects: int = 0
    rotations: int = 0
    last_message_at: str | None = None
    uptime_seconds: float = 0.0
    reason: str | None = None
    gaps: Gaps | None = None
    timestamp: str | None = None
    connections: list[Connection] = msgspec.field(default_factory=list)


class Readiness(msgspec.Struct):
    """``GET /readyz``."""

    status: str
    reasons: list[str] = msgspec.field(default_factory=list)


class StreamRow(msgspec.Struct):
    """A row of ``GET /api/ws/streams``."""

    stream: str
    health: str
    subscribers: int = 0
    last_event_at: str | None = None


class Streams(msgspec.Struct):
    """``GET /api/ws/streams``."""

    streams: list[StreamRow]


class Answers(msgspec.Struct, frozen=True):
    """What a server said when it was asked.

    ``now_ms`` is the time there; ``rate`` is how many messages came from the exchange each second since it was asked
    before (``None``: it was not).
    """

    status: Status
    readiness: Readiness
    streams: list[StreamRow]
    now_ms: float
    rate: float | None = None

    def age_s(self, moment: str | None) -> float | None:
        """How long ago a moment was."""
        then_ms = milliseconds(moment)
        return None if then_ms is None else max(0.0, self.now_ms - then_ms) / _MS

    def record(self, now_ms: int) -> Record:
        """The same in the envelope of all views."""
        status, healths = self.status, Counter(row.health for row in self.streams)
        age_s = self.age_s(status.last_message_at)
        fields: Fields = {
            "ready": self.readiness.status == "ready",
            "reasons": self.readiness.reasons,
            "state": status.state,
            "reason": status.reason,
            "data_age_s": None if age_s is None else round(age_s, 3),
            "messages_per_s": None if self.rate is None else round(self.rate, 1),
            "messages_received": status.messages_received,
            "streams": {health: healths.get(health, 0) for health in _HEALTHS},
            "subscribers": status.subscribers,
            "connections": len(status.connections),
            "uptime_s": status.uptime_seconds,
            "reconnects": status.reconnects,
            "rotations": status.rotations,
            "gaps": None if status.gaps is None else msgspec.to_builtins(status.gaps),
        }
        return own_record(SERVER, fields, now_ms)


Label: TypeAlias = tuple[str, list[Span]]


class StatusView:
    """One server, asked again and again."""

    header: Row = (
        "time",
        "state",
        "ready",
        "data_age_s",
        "messages_per_s",
        *_HEALTHS,
        "subscribers",
        "connections",
        "reconnects",
        "rotations",
        "gaps_found",
        "gaps_filled",
        "gaps_declared",
        "reasons",
    )
    columns: Final = (
        Column("stream", Side.LEFT, least=8),
        Column("health", Side.LEFT, least=5),
        Column("age", Side.RIGHT, 1),
        Column("readers", Side.RIGHT, 2),
    )
    upstream: Final = (
        Column("connection", Side.LEFT, least=8),
        Column("streams", Side.RIGHT),
        Column("up", Side.RIGHT, 1),
        Column("messages", Side.RIGHT, 2),
    )

    def __init__(self) -> None:
        self._answers: Answers | None = None
        self._rates = Trend()

    def learn(self, answers: Answers) -> None:
        """Take the newest answers; its record comes by ``take``."""
        self._answers = answers
        if answers.rate is not None:
            self._rates.add(Decimal(round(answers.rate)))

    def take(self, record: Record) -> None:
        """All that is shown is learnt from whole answers."""

    def row(self, record: Record) -> Row | None:
        """One look at the server."""
        if record.type != SERVER:
            return None
        fields = record.fields
        streams, gaps = fields["streams"], fields["gaps"]
        assert isinstance(streams, dict)
        counts = [str(streams[health]) for health in _HEALTHS]
        holes = [str(gaps[key]) for key in ("found", "filled", "declared")] if isinstance(gaps, dict) else [""] * 3
        reasons = fields["reasons"]
        why = "; ".join(map(shown, reasons)) if isinstance(reasons, list) else ""
        return (
            record.timestamp,
            words(fields["state"]),
            "yes" if fields["ready"] else "no",
            *(_figure(fields[key]) for key in ("data_age_s", "messages_per_s")),
            *counts,
            *(words(fields[key]) for key in ("subscribers", "connections", "reconnects", "rotations")),
            *holes,
            why,
        )

    def direction(self, record: Record) -> int:
        """Down is a server that is not ready."""
        return 0 if record.fields.get("ready") else -1

    def summary(self) -> Span:
        """The first word."""
        if self._answers is None:
            return Span("")
        is_ready = self._answers.readiness.status == "ready"
        return Span("ready" if is_ready else "not ready", "good" if is_ready else "bad")

    def body(self, size: Size, now_ms: float) -> list[Line]:  # noqa: ARG002  # ages are told by the answers
        """Labels, then streams, doubtful ones first, then the connections."""
        answers = self._answers
        if answers is None:
            return []
        lines = [fit(line, size.width) for line in _labelled(_labels(answers, self._rates), size.width)]
        room = size.height - len(lines) - 1
        rows = sorted(answers.streams, key=lambda row: (_rank(row.health), row.stream))
        links = draw(self.upstream, [_link(each) for each in answers.status.connections], size.width)
        if size.width >= _WIDE:
            halves = draw(self.columns, [_stream(row, answers) for row in rows[: max(0, room - 1)]], size.width // 2)
            links = draw(self.upstream, [_link(each) for each in answers.status.connections], size.width // 2 - 1)
            return [*lines, (), *beside(halves, links, size.width // 2 + 1)][: size.height]
        room -= len(links) + 1
        if room > 1:
            shown_rows = rows[: room - 1]
            lines += [(), *draw(self.columns, [_stream(row, answers) for row in shown_rows], size.width)]
        return [*lines, (), *links][: size.height]


def _labels(answers: Answers, rates: Trend) -> list[Label]:
    status = answers.status
    age = [Span("nothing yet", "warn")]
    if (age_s := answers.age_s(status.last_message_at)) is not None:
        age = [Span(duration(age_s), "good" if age_s < FRESH_S else "bad")]
    healths = Counter(row.health for row in answers.streams)
    streams = [Span(f"{status.streams} ")]
    streams += [Span(f" {healths[name]} {name}", _STYLES[name]) for name in _HEALTHS if healths[name]]
    gaps: list[Span] = []
    if status.gaps is not None:
        gaps = [
            Span(f"{status.gaps.declared} declared", "bad" if status.gaps.declared else ""),
            Span(f", {status.gaps.found} found, {status.gaps.filled} filled"),
        ]
    rate = "" if answers.rate is None else f"{answers.rate:.0f}/s  "
    labels: list[Label] = [
        ("exchange", [Span(shown(status.state), _STATES.get(status.state, ""))]),
        ("data age", age),
        ("messages", [Span(rate), Span(rates.line[-24:], "up")]),
        ("streams", streams),
        ("readers", [Span(str(status.subscribers))]),
        ("reconnects", [Span(f"{status.reconnects}, and {status.rotations} rotations")]),
        ("gaps", gaps),
    ]
    if status.reason:
        labels.append(("reason", [Span(shown(status.reason), "warn")]))
    labels += [("not ready", [Span(shown(reason), "bad")]) for reason in answers.readiness.reasons]
    return [(name, spans) for name, spans in labels if any(span.text for span in spans)]


def _labelled(labels: list[Label], width: int) -> list[Line]:
    """One label a line."""
    return [(Span(clip(name, _LABEL - 1).ljust(_LABEL), "dim"), *spans) for name, spans in labels if width > 0]


def _stream(row: StreamRow, answers: Answers) -> list[Span]:
    age = answers.age_s(row.last_event_at)
    return [
        Span(shown(row.stream)),
        Span(shown(row.health), _STYLES.get(row.health, "")),
        Span("" if age is None else duration(age)),
        Span(str(row.subscribers), "dim"),
    ]


def _link(row: Connection) -> list[Span]:
    return [
        Span(shown(row.url)),
        Span(str(row.streams)),
        Span(duration(row.uptime_seconds)),
        Span(f"{row.messages_received:,}", "dim"),
    ]


def _figure(value: object) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else ""


def _rank(health: str) -> int:
    order = ("stale", "recovering", "pending", "live", "quiet")
    return order.index(health) if health in order else 0
