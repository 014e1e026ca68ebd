"""One envelope for every view."""

from __future__ import annotations

import json

import pytest

from komas.cli.watch.link_state import LinkState, told
from komas.cli.watch.records import market_record, notice_record, own_record, signal_record, words
from komas.errors import CallerError
from tests.cli.watch.records import NOW_MS, connection, notice, signal, signal_update, trade


def test_every_record_is_one_line_with_the_same_three_fields_first() -> None:
    """Then what else the server's envelope has; numbers with the digits that it sent."""
    records = (trade(7), notice("gap", stream="x"), signal(3, spread=8.0), own_record("connection", {}, NOW_MS))
    for record in records:
        assert list(json.loads(record.line))[:3] == ["type", "data", "timestamp"]
        assert "\n" not in record.line
    assert '"price":61837.60000000,' in records[0].line
    assert records[0].line.endswith('"timestamp":"2026-11-30T09:00:00.000Z","backfilled":true}')
    assert json.loads(records[1].line)["data"] == {"stream": "x"}
    assert records[2].line.endswith(',"signal_type":"mexc_dex","position":3}')
    assert [record.is_notice for record in records] == [False, True, False, True]


def test_a_line_of_json_holds_no_code_of_a_terminal() -> None:
    """A server may send what it likes, also between the tokens."""
    record = signal_record(b'{"type":"new_signal",\n"data":{"id":1,"a":\n"\xc2\x9b\xe2\x80\xae"}}', NOW_MS)
    assert record.line.isprintable()
    assert json.loads(record.line)["data"]["a"] == "\x9b\u202e"


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"type":"trade","data":{"type":"x"},"timestamp":"y"}', "\x1b", "1" * 99]
)
def test_what_is_no_event_is_said(text: str) -> None:
    """Not shown as something else."""
    with pytest.raises(CallerError, match="no komas server, or a newer one"):
        market_record(text)
    if text.startswith("{") and "trade" in text:
        return
    with pytest.raises(CallerError, match="no komas server, or a newer one"):
        signal_record(text.encode(), NOW_MS)


def test_notices_that_are_no_objects_are_told_all_the_same() -> None:
    """And those that change nothing for a viewer are not."""
    odd = notice_record("odd\x1b", "\x1b[2J", NOW_MS)
    assert odd is not None
    assert told(odd) == "odd\\x1b: text \\x1b[2J"
    assert odd.line.isprintable()
    assert notice_record("open", "{}", NOW_MS) is None


def test_positions_and_numbers_of_signals() -> None:
    """A greeting has a position, too."""
    greeting = signal_record(b'{"type":"connected","message":"hi","position":12}', NOW_MS)
    assert (greeting.position, greeting.is_notice, signal(4).signal_id) == (12, True, 4)
    assert (signal_update(7, "{}").signal_id, signal_update(7, "{}").position) == (7, 9)
    assert [words(value) for value in (None, True, "\n", {"a": 1})] == ["", "true", "\\n", '{"a":1}']


def test_the_link_says_that_the_server_is_away_and_that_something_is_missing() -> None:
    """And for how long it waits."""
    link = LinkState()
    assert link.badge(NOW_MS).text == "connecting"
    link.take(connection("connected"), NOW_MS)
    assert link.badge(NOW_MS).text == "live"
    link.take(notice("gap", stream="btcusdt@trade", **{"from": 3, "to": None}, filled=False), NOW_MS)
    assert "gap: 3 to ? of btcusdt@trade are missing" in link.line()[0].text
    link.take(connection("lost", reason="connection refused", retry_in_s=4.0), NOW_MS)
    assert link.badge(NOW_MS + 1000).text == "away, again in 3.0 s"
    assert link.line()[0].text == "connection refused"
    link.take(connection("connected"), NOW_MS)
    assert link.badge(NOW_MS).text == "live, 1 cut"
    assert "gap: 3 to ?" in link.line()[0].text


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (connection("lost", reason="refused", retry_in_s=4.0), "http://komas: lost: refused; trying again in 4.0 s"),
        (connection("connected"), "http://komas: connected"),
        (notice("health", stream="s", health="stale", reason="silent"), "s is stale: silent"),
        (notice("status", state="reconnecting", reason=None), "the exchange is reconnecting"),
    ],
)
def test_notices_in_words(record: object, text: str) -> None:
    """On one line."""
    assert told(record) == text  # type: ignore[arg-type]  # a table's column
