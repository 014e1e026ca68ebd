"""A venue's own interface under its name: komas's rules for callers and parameters are not its."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from komas.settings import Settings
from komas.venues.core.door import DoorAnswer, DoorRequest
from komas.web.routes.doors import PIECE_BYTES
from tests.web.harness import web_harness


class _Door:
    """Answers with what it was asked."""

    name = "venue"

    def __init__(self) -> None:
        self.asked: list[DoorRequest] = []
        self.rest = b""

    async def answer(self, request: DoorRequest) -> DoorAnswer:
        """As a venue would."""
        self.asked.append(request)
        return DoorAnswer(
            418, b'{"code":7}', {"Content-Type": "application/json;charset=UTF-8", "X-Weight": "3"}, self.rest
        )


async def test_a_call_is_handed_on_as_it_came(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """Whatever its parameters are called, however often they come, and whoever calls."""
    door = _Door()
    async with web_harness(tmp_path, doors=[door]) as harness:
        query = "symbols=%5B%22A%22%5D&symbol=A&symbol=B&Symbl=x"
        answer = await harness.call("GET", f"/venue/api/v3/klines?{query}", headers=[("X-Some", "Thing")])
        assert (answer.status, answer.body) == (418, b'{"code":7}')
        headers = dict(answer.headers)
        assert headers["content-type"] == "application/json;charset=UTF-8"
        assert headers["x-weight"] == "3"
        asked = door.asked[0]
        assert (asked.method, asked.path, asked.query) == ("GET", "/api/v3/klines", query.encode())
        assert asked.headers["x-some"] == "Thing"
        assert (asked.address, asked.connection) == ("127.0.0.1", "127.0.0.1 1")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_the_venue_says_what_may_not_be_done(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, method: str
) -> None:
    """No administrator's token is asked for: such a call changes nothing here."""
    door = _Door()
    async with web_harness(tmp_path, doors=[door]) as harness:
        answer = await harness.call(method, "/venue/api/v3/order", body=b"x=1", client="10.0.0.9")
        assert answer.status == 418
        assert door.asked[0].method == method


async def test_calls_are_counted_by_the_venue(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """A bot asks more often than a page does."""
    door = _Door()
    async with web_harness(tmp_path, Settings(request_rate=1, request_burst=2), doors=[door]) as harness:
        for _ in range(10):
            assert (await harness.call("GET", "/venue/x")).status == 418
        assert (await harness.call("GET", "/other/x")).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_large_answer_comes_in_pieces(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, method: str
) -> None:
    """With its length; a client that does not read keeps no copy of all of it."""
    door = _Door()
    door.rest = b"".join(b"%07d\n" % number for number in range(20_000))
    async with (
        web_harness(tmp_path, doors=[door]) as harness,
        harness.stream("/venue/api/v3/exchangeInfo", method=method) as events,
    ):
        chunks = [chunk async for chunk in events.chunks()]
    whole = b'{"code":7}' + door.rest
    assert dict(events.headers)["content-length"] == str(len(whole))
    if method == "GET":
        assert b"".join(chunks) == whole
        assert max(map(len, chunks)) <= PIECE_BYTES


async def test_a_browser_may_ask_first(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    """As everywhere else; the venue does not hear of it."""
    door = _Door()
    async with web_harness(tmp_path, doors=[door]) as harness:
        assert (await harness.call("OPTIONS", "/venue/api/v3/klines")).status == 204
        assert not door.asked
