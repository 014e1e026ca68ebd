"""What a node says of itself. Sans-I/O."""

from __future__ import annotations

from typing import Final

import msgspec

from komas.backplane.ports import EntryId

NODES: Final = "node"  # the name of the facts that say who is there
NODE_S: Final = 5.0  # after which one that says nothing is gone


class NodeRow(msgspec.Struct, frozen=True):
    """One process: how many ``subscribers`` it has, how far it has read, and how long ago it read something.

    ``newest`` is the newest entry that it has read but for beginnings of terms, whether or not the log still has it.
    One that ``knows_more`` has read what the log has lost since; one that is not ``is_complete`` has missed some of it.
    ``standby`` is how it waits for its turn to lead: ``hot`` or ``cold``; empty where it never will. One that
    ``is_prepared`` has stood by for long enough to lead without asking for what it missed.
    """

    name: str
    role: str
    version: str
    readable: tuple[int, ...]  # versions of entries that it can read
    leads: bool
    subscribers: int
    cursor: str
    age_s: float
    knows_more: bool = False
    standby: str = ""
    is_prepared: bool = False
    is_complete: bool = True
    newest: str = ""

    def has_read_more(self, than: EntryId) -> bool:
        """Whether it could lead, and has read an entry that is newer than that."""
        return bool(self.standby) and _entry(self.newest) > than

    def has_heard(self, term: int) -> bool:
        """Whether it has read that a term began: what it says of itself is of after that."""
        return _entry(self.cursor).term >= term


def _entry(text: str) -> EntryId:
    term, dash, sequence = text.partition("-")
    is_one = dash and term.isdecimal() and sequence.isdecimal()
    return EntryId(int(term), int(sequence)) if is_one else EntryId(0, 0)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(NodeRow)


def write_node(row: NodeRow) -> bytes:
    """Write a row."""
    return _encoder.encode(row)


def read_node(value: bytes) -> NodeRow | None:
    """Read a row; ``None`` for one of a version that says other things."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
