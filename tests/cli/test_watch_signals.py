"""``komas watch signals``: the table in the terminal."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
import trio.testing
from rich.console import Console

from komas.cli.watch import ROWS
from komas.cli.watch_signals import SignalTable, watch_signals
from komas.errors import CallerError


def _new(number: int) -> dict[str, object]:
    data = {
        "id": number,
        "coin_name": f"[red]NB{number}",
        "spread": Decimal("8.840"),
        "created_at": "2026-01-01T12:34:56.000Z",
    }
    return {"type": "new_signal", "signal_type": "mexc_dex", "data": data}


def test_rows_change_with_their_updates_and_the_oldest_go() -> None:
    """Digits stay, and what a producer writes is no markup."""
    out = io.StringIO()
    screen = SignalTable(Console(file=out, force_terminal=True, width=120, height=60))
    with screen:
        for number in range(1, ROWS + 6):
            screen.show(_new(number))
        screen.show(
            {
                "type": "signal_update",
                "signal_id": ROWS + 5,
                "signal_type": "mexc_dex",
                "data": {"spread": Decimal("9.10")},
            }
        )
        out.seek(0)
        out.truncate()  # what is drawn next is the whole table
        screen.note("the server is away")
    last = out.getvalue()
    assert "spread 9.10" in last
    assert "[red]NB25" in last
    assert "12:34:56" in last
    assert "the server is away" in last
    assert "NB5 " not in last
    assert last.count("spread 8.840") == ROWS - 1


@pytest.mark.parametrize(("server", "token"), [("http://127.0.0.1:1", ""), ("127.0.0.1:1", "x"), ("ftp://x", "x")])
async def test_what_cannot_be_watched_is_said(server: str, token: str, autojump_clock: trio.testing.MockClock) -> None:
    """At once."""
    with pytest.raises(CallerError):
        await watch_signals(server, token)
