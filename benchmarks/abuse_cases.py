"""The rows of ``abuse``: every attack with what it needs, what others must get meanwhile, and what is right."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from benchmarks.bystanders import ONCE_S, Ask
from tests.hostile.exchange import BAIT, Plan, symbol

ADMIN: Final = secrets.token_hex(16)
SPREAD: Final = 100
SIGNALS: Final = 300_000
LARGE: Final = 1_000
LARGE_BYTES: Final = 16_000

DEPTH_OF: Final = "/api/ws/depth?symbol={}&limit=5"
PIN_ALL: Final = Ask("/api/ws/subscribe", "POST", '{"symbols":["*"],"stream_type":"ticker"}', ADMIN)
PIN_ONE: Final = Ask("/api/ws/subscribe", "POST", '{"symbols":["{fresh}"],"stream_type":"ticker"}', ADMIN)
NEWCOMER: Final = Ask("/api/ws/sse/prices?symbols={fresh}")
NEW_BOOK: Final = Ask(DEPTH_OF.format("{fresh}"), within_s=4.0)
BAIT_BOOK: Final = Ask(DEPTH_OF.format(BAIT), every_s=ONCE_S, within_s=7.0)
BAIT_READERS: Final = (f"/api/ws/sse/trades?symbol={BAIT}", f"/api/ws/sse/depth?symbol={BAIT}")
AGGREGATES: Final = f"/api/ws/sse/trades?symbol={BAIT}&aggregate=true"
REPLAYED: Final = Plan(others=2, burst=4_500)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row: an attack, what it needs, and what is right.

    ``more_mb`` is how much the server may grow, ``log_kb`` how much it may write. ``at_most`` bounds what the attacker
    or the exchange finds. ``stored`` are signals: how many, and of how many bytes.
    """

    attack: str
    addresses: int = 1
    options: dict[str, str] = {}
    plan: Plan = Plan()
    pinned: Ask | None = None
    baits: tuple[str, ...] = ()
    asks: tuple[Ask, ...] = (NEWCOMER,)
    is_read_before: bool = True
    stored: tuple[int, int] = (0, 0)
    open_files: int | None = None
    more_mb: float = 32.0
    log_kb: float = 32.0
    at_most: dict[str, int] = {}


def _exchange(attack: str, **more: object) -> Case:
    return msgspec.structs.replace(Case(attack=attack), **more)


CASES: Final[dict[str, Case]] = {
    "no attack": Case(attack=""),
    "lingering streams": Case(
        attack="lingering-streams", options={"max_streams": "700"}, asks=(NEWCOMER, PIN_ONE), more_mb=64
    ),
    "lingering streams, spread": Case(
        attack="lingering-streams",
        addresses=SPREAD,
        options={"max_streams": "700"},
        asks=(NEWCOMER, PIN_ONE),
        more_mb=64,
    ),
    "many books": Case(attack="many-books", more_mb=64),
    "many books, spread": Case(attack="many-books", addresses=SPREAD, more_mb=128),
    "books of one address": Case(attack="books-of-one-address", asks=(NEW_BOOK,), more_mb=64),
    "unread prices": Case(attack="unread-prices", pinned=PIN_ALL),
    "unread prices, spread": Case(attack="unread-prices", addresses=SPREAD, pinned=PIN_ALL, more_mb=64),
    "streams in a loop": Case(attack="streams-in-a-loop", pinned=PIN_ALL),
    "streams in a loop, spread": Case(attack="streams-in-a-loop", addresses=SPREAD, pinned=PIN_ALL),
    "trades of many symbols": Case(
        attack="trades-of-many-symbols",
        addresses=4,
        plan=Plan(others=20_000, run=100),
        options={"history_bytes": str(2**25)},
        more_mb=64,
    ),
    "unread replays": Case(attack="unread-replays", plan=REPLAYED),
    "unread replays, spread": Case(attack="unread-replays", addresses=SPREAD, plan=REPLAYED, more_mb=64),
    "unread signals": Case(attack="unread-signals", stored=(LARGE, LARGE_BYTES), more_mb=96),
    "VIP that floods": Case(attack="vip-that-floods", stored=(LARGE, LARGE_BYTES), at_most={"too late": 0}),
    "old since_id": Case(attack="old-since-id", stored=(SIGNALS, 60), at_most={"slowest ms": 200}),
    "64 files, 100 idle": Case(attack="idle-connections", open_files=64),
    "wide depth": _exchange("wide-depth", baits=BAIT_READERS),
    "fairly wide depth": _exchange("fairly-wide-depth", baits=BAIT_READERS),
    "gzip bomb": _exchange("gzip-bomb", is_read_before=False, more_mb=64.0),
    "million symbols": _exchange("million-symbols", is_read_before=False, more_mb=64.0),
    "jumping ids": _exchange("jumping-ids", baits=(*BAIT_READERS, AGGREGATES)),
    "long price": _exchange("long-price", baits=BAIT_READERS),
    "fairly long price": _exchange("fairly-long-price", baits=BAIT_READERS),
    "dripping REST": _exchange(
        "dripping-rest", baits=tuple(f"/api/ws/sse/depth?symbol={symbol(number)}" for number in range(3)),
        asks=(NEW_BOOK,),
    ),
    "banned in the body": _exchange("banned-in-the-body", asks=(BAIT_BOOK,), at_most={"asked inside the ban": 0}),
    "old snapshot": _exchange("old-snapshot", asks=(BAIT_BOOK,)),
    "long levels": _exchange("long-levels", asks=(BAIT_BOOK,)),
    "quiet depth": _exchange("quiet-depth", asks=(BAIT_BOOK,)),
}  # fmt: skip
