"""What readers received, judged as it comes: every number of a stream once, in order, or declared missing. Sans-I/O.

Numbers are the exchange's own: trade ids rise by one, open times of closed candles by a second.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

SHOWN: Final = 1000  # findings that are kept as words
REMEMBERED: Final = 3000  # places of each stream, to come back to at the end

Value = tuple[float, float]


class Place(msgspec.Struct, frozen=True):
    """The id that a reader was given with an event of a number."""

    text: str
    number: int
    at_s: float


class Counts(msgspec.Struct):
    """What was seen by all readers; ``declared`` and ``needless`` count numbers and gaps by reason."""

    events: int = 0
    resumes: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    changed: int = 0
    declared: Counter[str] = msgspec.field(default_factory=Counter)
    needless: Counter[str] = msgspec.field(default_factory=Counter)
    excused: int = 0  # needless ones that are beyond what anybody can know

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, declared gaps apart."""
        return not (self.lost or self.doubled or self.out_of_order or self.changed or self.needless)


class Tape:
    """What the exchange said, by stream and number, and the first who claimed something else."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.said: dict[str, dict[int, Value]] = {}
        self.claimed: dict[str, dict[int, Value]] = {}

    def note(self, stream: str, number: int, value: Value) -> None:
        """The exchange said something."""
        self.said.setdefault(stream, {})[number] = value

    def claim(self, stream: str, number: int, value: Value) -> bool:
        """A reader received something; whether it is what the others received."""
        return self.claimed.setdefault(stream, {}).setdefault(number, value) == value

    def compare(self) -> list[tuple[str, int]]:
        """What was received and is not what the exchange said, of what is known of both."""
        return [
            (stream, number)
            for stream, said in self.said.items()
            for number, value in self.claimed.get(stream, {}).items()
            if said.get(number, value) != value
        ]


class Ledger:
    """All readers' findings, and when they were made; ``now`` is in seconds since the run began."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.tape = Tape(self.counts)
        self.findings: list[str] = []
        self.now = 0.0
        # Once entries were trimmed away, who had not read them cannot tell which of them a reader has: gaps are its
        # only honest answer.
        self.excuses_gaps = False

    def find(self, what: str) -> None:
        """Keep a finding in words."""
        if len(self.findings) < SHOWN:
            self.findings.append(f"{self.now:8.2f} s  {what}")


class Account:
    """What one reader has of one stream."""

    def __init__(self, ledger: Ledger, reader: str, stream: str) -> None:
        self._ledger = ledger
        self._name = f"{reader} {stream}"
        self.stream = stream
        self._step = 1000 if "kline" in stream else 1
        self._gaps: list[tuple[int | None, int | None, str]] = []  # declared since the last event
        self._missing: set[int] = set()
        self._repeated: int | None = None
        self._places = "", ""  # of the event before, and of this one
        self.last: int | None = None
        self.where = ""  # which server the reader is at, for findings

    def event(self, number: int, value: Value, place: str) -> None:
        """An event that has a number, and the place that came with it."""
        self._places = self._places[1], place
        counts, last = self._ledger.counts, self.last
        counts.events += 1
        if not self._ledger.tape.claim(self.stream, number, value):
            counts.changed += 1
            self._find(f"{number} differs from what others received")
        if last is not None and number <= last:
            self._came_before(number)
            return
        if last is not None:
            self._account_for(last + self._step, number)
        self._gaps.clear()
        self.last = number

    def gap(self, first: int | None, last: int | None, reason: str) -> None:
        """A gap was declared (not one that is filled)."""
        if self.last is not None:
            self._gaps.append((first, last, reason))

    def _came_before(self, number: int) -> None:
        if number in self._missing:
            self._missing.discard(number)
            self._ledger.counts.out_of_order += 1
            self._find(f"{number} came after {self.last}")
        else:
            self._ledger.counts.doubled += 1
            before, self._repeated = self._repeated, number
            if before is None or number != before + self._step:  # the first of several
                self._find(f"{number} came twice, {self.last} was the last")

    def _account_for(self, expected: int, number: int) -> None:
        counts = self._ledger.counts
        missing = range(expected, number, self._step)
        left = set(missing)
        for first, last, reason in self._gaps:
            covered = {each for each in left if (first is None or first <= each) and (last is None or each <= last)}
            left -= covered
            if covered:
                counts.declared[reason] += len(covered)
                self._find(f"{len(covered)} declared missing before {number}: {reason}")
            elif self._ledger.excuses_gaps:
                counts.excused += 1
            else:
                counts.needless[reason] += 1
                self._find(f"needless gap {first}..{last} before {number} (expected {expected}): {reason}")
        if left:
            self._missing |= left
            counts.lost += len(left)
            self._find(f"{len(left)} lost: {min(left)}..{max(left)} before {number}")

    def _find(self, what: str) -> None:
        self._ledger.find(f"{self._name} at {self.where}: {what} ({' -> '.join(self._places)})")
