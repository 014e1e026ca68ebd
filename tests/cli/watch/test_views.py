"""What each view shows at a width, and its rows for a file."""

from __future__ import annotations

import pytest

from komas.cli.watch.depth_view import DepthView
from komas.cli.watch.frame import Title, frame
from komas.cli.watch.link_state import LinkState
from komas.cli.watch.records import Record
from komas.cli.watch.signals_view import SignalsView
from komas.cli.watch.status_view import Answers, Connection, Gaps, Readiness, Status, StatusView, StreamRow
from komas.cli.watch.table import Line, Size, text_of, width_of
from komas.cli.watch.views import KEPT, KlinesView, PricesView, TradesView, View
from tests.cli.watch.records import NOW_MS, connection, depth, kline, notice, signal, signal_update, ticker, trade

SIZES = (Size(40, 20), Size(80, 24), Size(160, 40))
HOSTILE = "\x1b[2J\u202e币安人生\n💥"


def _shown(view: View, *records: Record, size: Size = SIZES[1]) -> list[str]:
    for record in records:
        view.take(record)
    return [text_of(line).rstrip() for line in view.body(size, NOW_MS)]


def _style(lines: list[Line], text: str) -> str:
    return next(span.style for line in lines for span in line if text in span.text)


def _status(**fields: object) -> Answers:
    rows = [
        StreamRow("btcusdt@ticker", "live", 2, "2026-11-30T00:53:19.000Z"),
        StreamRow("xrpusdt@ticker", "stale", 0, None),
        StreamRow(HOSTILE, "odd"),
    ]
    status = Status(
        state="connected",
        streams=3,
        messages_received=9,
        last_message_at="2026-11-30T00:53:19.000Z",
        gaps=Gaps(found=2, filled=5, declared=1),
        connections=[Connection("wss://exchange/stream", 0, 3, 90.0, 12345)],
        **fields,  # type: ignore[arg-type]  # a test's own
    )
    return Answers(status, Readiness("not ready", ["all streams are stale"]), rows, NOW_MS, 31.4)


def _filled(view: View) -> View:
    records = {
        PricesView: [ticker(), ticker(price="61838.00"), ticker(HOSTILE, "0.00000012", "-1.0")],
        KlinesView: [kline(minute) for minute in range(300)],
        TradesView: [trade(number, f"6183{number % 7}.10", "1234567.89000001") for number in range(300)],
        DepthView: [depth(str([[60 - n, 1.5] for n in range(50)]), str([[61 + n, 2.25] for n in range(50)]))],
        SignalsView: [signal(n, coin_name=HOSTILE, position="SHORT", spread=8.84, note="x" * 300) for n in range(300)],
    }
    for record in records.get(type(view), []):
        view.take(record)
    if isinstance(view, StatusView):
        view.learn(_status(reason=HOSTILE))
    return view


@pytest.mark.parametrize("size", [*SIZES, Size(20, 3), Size(1, 1), Size(300, 100)], ids=str)
@pytest.mark.parametrize("made", [PricesView, KlinesView, TradesView, DepthView, SignalsView, StatusView])
def test_a_screen_is_as_large_as_its_terminal_and_holds_no_codes(made: type[View], size: Size) -> None:
    """At 40 columns nothing wraps, with whatever a server sends."""
    for view in (made(), _filled(made())):
        link = LinkState()
        link.take(notice("status", state="connected", reason=HOSTILE), NOW_MS)
        for state in ("connecting", "connected", "lost"):
            link.take(connection(state, reason=HOSTILE, retry_in_s=4.0), NOW_MS)
            lines = frame(Title("trades BTCUSDT", "http://127.0.0.1:8000"), view, link, size, NOW_MS)
            assert len(lines) == size.height
            assert max(map(width_of, lines)) <= size.width
            assert all(text_of(line).isprintable() for line in lines)


@pytest.mark.parametrize("made", [PricesView, TradesView, DepthView, SignalsView])
def test_more_columns_show_more(made: type[View]) -> None:
    """Than forty, and than eighty."""
    shown = ["".join(_shown(_filled(made()), size=Size(width, 24))).replace(" ", "") for width in (40, 80, 160)]
    assert len(shown[0]) < len(shown[1]) < len(shown[2])


def test_prices_stay_in_the_order_that_was_asked_for() -> None:
    """Every number without its zeros, and where it goes."""
    view = PricesView(("ETHUSDT", "BTCUSDT"))
    lines = _shown(view, ticker(), ticker(price="61838.00"), size=Size(160, 9))
    assert lines[1] == "ETHUSDT"
    assert lines[2].split() == [
        "BTCUSDT",
        "61838",
        "▲",
        "+1.34",
        "▁█",
        "2",
        "1",
        "10.5",
        "+12.3",
        "1.5",
        "3",
        "00:53:20",
    ]
    assert view.row(ticker()) == (
        "2026-11-30T00:53:20.000Z",
        "BTCUSDT",
        "61837.6",
        "+12.3",
        "+1.34",
        "1.5",
        "2",
        "1",
        "10.5",
        "3",
    )
    assert _style(view.body(Size(80, 9), NOW_MS), "61838") == "up"
    assert (view.direction(ticker(change="-1.0")), view.summary().text) == (-1, "2 symbols")


def test_candles_have_the_newest_on_top() -> None:
    """An open one changes in its place, and the oldest go."""
    view = KlinesView()
    records = [*map(kline, range(KEPT + 5)), kline(KEPT + 5, "1.50", is_closed=False), kline(KEPT + 5, "1.00")]
    lines = _shown(view, *records, size=Size(100, 300))
    assert lines[1].split()[2:5] == ["1", "▼", "-50.00"]
    assert len(lines) == KEPT + 1
    assert view.row(kline(0, interval="1d"))[2:] == ("1d", "2", "3", "1", "2.5", "4", "9.1", "7", "closed")  # type: ignore[index]  # there is one
    assert view.summary().text.endswith("█▁")


def test_trades_have_the_newest_on_top_and_gaps_in_their_place() -> None:
    """What is missing is seen where it is missing; what was filled in is not missing."""
    view = TradesView()
    gap = notice("gap", stream="btcusdt@trade", **{"from": 3, "to": 5}, filled=False, reason="REST is away")
    filled = notice("gap", stream="btcusdt@trade", **{"from": 1, "to": 2}, filled=True)
    records = (trade(1), filled, trade(2, "61838.0"), gap, notice("lagged", dropped=7), trade(6, is_sale=True))
    lines = _shown(view, *records)
    assert lines[1].split()[1:5] == ["61837.6", "▼", "0.01", "sell"]
    assert lines[2] == "lagged: 7 events were dropped, for this reader was too slow"
    assert lines[3] == "gap: 3 to 5 of btcusdt@trade are missing: REST is away"
    assert lines[4].split()[1:3] == ["61838", "▲"]
    assert len(lines) == 6
    assert view.row(trade(1))[2:] == ("61837.6", "0.01", "618.376", "buy", "1")  # type: ignore[index]  # there is one
    assert (view.row(gap), view.direction(trade(1, is_sale=True))) == (None, -1)


def test_a_book_has_its_best_prices_at_the_spread() -> None:
    """Asks above, bids below; beside each other where there is room."""
    view = DepthView()
    book = depth("[[60.10,1.50],[60.0,4.50]]", "[[60.30,3.0],[60.40,1.0]]")
    lines = _shown(view, book, size=Size(40, 20))
    assert [line.split()[0] for line in lines] == ["price", "60.4", "60.3", "spread", "60.1", "60"]
    assert lines[3] == "spread 0.2  0.33 %"
    assert lines[5].split()[1:3] == ["4.5", "6"]
    wide = _shown(view, size=Size(120, 20))
    assert wide[2].split()[0::4][:2] == ["60.1", "60.3"]
    assert view.row(book)[2:] == ("60.1", "1.5", "60.3", "3", "0.2", "9")  # type: ignore[index]  # there is one
    assert _shown(view, depth("[]", "[[1,1]]"), size=Size(40, 20))[2] == "one side is empty"


def test_signals_change_with_their_updates_and_the_oldest_go() -> None:
    """Digits stay."""
    view = SignalsView()
    news = [signal(number, coin_name=f"[red]NB{number}", spread=8.84) for number in range(1, KEPT + 6)]
    lines = _shown(view, *news, signal_update(KEPT + 5, '{"spread": 9.100, "hint": "now"}'), size=Size(160, 300))
    assert lines[1].split()[:6] == [str(KEPT + 5), f"[red]NB{KEPT + 5}", "9.1", "▲", "10", "s"]
    assert lines[1].endswith("▁█     hint now")
    assert len(lines) == KEPT + 1
    assert view.row(signal_update(7, '{"spread": 9.100, "a": "\\u001b"}'))[1:] == (  # type: ignore[index]  # there is one
        "signal_update",
        "7",
        "mexc_dex",
        "",
        "",
        "9.1",
        '{"a":"\\u001b"}',
    )
    assert view.direction(signal(1, position="SHORT")) == -1


def test_what_is_shown_without_a_connection_is_said_to_be_old() -> None:
    """A server that is away is not ready, whatever it said last; words tell it, colours too."""
    view, link, title = StatusView(), LinkState(), Title("status", "http://127.0.0.1:8000")
    view.learn(_status())
    link.take(connection("connected"), NOW_MS)
    lines = frame(title, view, link, SIZES[1], NOW_MS)
    assert text_of(lines[0]).startswith("status  not ready")
    assert _style(lines, "connected") == "good"
    link.take(connection("lost", reason="refused", retry_in_s=4.0), NOW_MS)
    lines = frame(title, view, link, SIZES[1], NOW_MS)
    assert text_of(lines[0]).startswith("status  last known ")
    assert text_of(lines[0]).endswith("away, again in 4.0 s")
    assert {span.style for line in lines[1:-1] for span in line} == {"dim"}


def test_status_says_what_is_wrong() -> None:
    """In words, doubtful streams first, with ages by the server's own clock."""
    view = StatusView()
    view.learn(_status())
    lines = _shown(view, size=Size(80, 24))
    assert lines[0] == "exchange   connected"
    assert "not ready  all streams are stale" in lines
    assert "gaps       1 declared, 2 found, 5 filled" in lines
    assert lines.index(next(line for line in lines if line.startswith("xrpusdt"))) < lines.index(
        next(line for line in lines if line.startswith("btcusdt"))
    )
    assert "messages   31/s  ▁" in lines
    row = view.row(_status().record(NOW_MS))
    assert row is not None
    assert len(row) == len(view.header)
    assert row[1:5] == ("connected", "no", "1", "31.4")
    assert row[-4:] == ("2", "5", "1", "all streams are stale")
