"""The double on real sockets, with a client that is not ours."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.trio.client import ClientConnection, connect

from komas.errors import CallerError
from komas.simulator import SimOptions, Simulator, simulate

CAPTURE = Path(__file__).parents[2].parent / "shared" / "captures" / "btcusdt_20240808.gz"
needs_capture = pytest.mark.skipif(not CAPTURE.exists(), reason=f"the capture {CAPTURE} is not here")
DEADLINE_S = 60
CAPTURED = ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms")


@asynccontextmanager
async def simulating(**options: Any) -> AsyncIterator[tuple[Simulator, httpx.AsyncClient]]:
    """A double on a free port, and an HTTP client to call it with."""
    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            simulator: Simulator = await nursery.start(partial(simulate, SimOptions(bind="127.0.0.1:0", **options)))
            async with httpx.AsyncClient(base_url=simulator.rest_url) as client:
                yield simulator, client
            nursery.cancel_scope.cancel()


def dial(simulator: Simulator, path: str = "/stream?streams=btcusdt@trade") -> Any:
    """A WebSocket of the ``websockets`` library, without pings of its own."""
    return connect(simulator.ws_url + path, ping_interval=None, compression=None, max_size=None)


async def message(socket: ClientConnection) -> Any:
    """The next message, decoded."""
    return json.loads(await socket.recv())


async def read_on(socket: ClientConnection) -> None:
    """Read until there is nothing more to read."""
    while True:
        await socket.recv()


async def state(client: httpx.AsyncClient) -> Any:
    """The double's own report."""
    return (await client.get("/sim/state")).json()


async def test_an_independent_client_reads_trades() -> None:
    """Handshake, subscription, gapless trades, and the same trades over REST."""
    async with simulating() as (simulator, client), dial(simulator, "/stream") as socket:
        await socket.send('{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}')
        assert await message(socket) == {"result": None, "id": 1}
        trades = [(await message(socket))["data"] for _ in range(20)]
        assert all(later["t"] == earlier["t"] + 1 for earlier, later in pairwise(trades))
        rows = (
            await client.get("/api/v3/historicalTrades", params={"symbol": "BTCUSDT", "fromId": trades[0]["t"]})
        ).json()
        assert [(row["id"], row["price"], row["qty"]) for row in rows[:20]] == [
            (trade["t"], trade["p"], trade["q"]) for trade in trades
        ]


async def test_ends_cleanly_at_once_when_cancelled() -> None:
    """Whoever is connected loses the line; nothing is left open."""
    async with simulating() as (simulator, _):
        socket = await trio.open_tcp_stream("127.0.0.1", simulator.port)
    async with socket:
        with suppress(trio.BrokenResourceError):
            assert await socket.receive_some(1) == b""
    with pytest.raises(OSError):
        await trio.open_tcp_stream("127.0.0.1", simulator.port)


async def test_keeps_http_connections_alive_and_refuses_what_is_not_http() -> None:
    """Several calls share one connection; nonsense gets 400 and the end."""
    async with simulating() as (simulator, client):
        for _ in range(3):
            answer = await client.get("/api/v3/time")
            assert answer.headers["x-mbx-used-weight-1m"]
        async with await trio.open_tcp_stream("127.0.0.1", simulator.port) as socket:
            await socket.send_all(b"\x16\x03\x01 what is this\r\n\r\n")
            received = b""
            while data := await socket.receive_some(1000):
                received += data
            assert received.startswith(b"HTTP/1.1 400")


@needs_capture
async def test_replays_the_capture_whole_as_fast_as_it_is_read() -> None:
    """Every captured frame arrives once, byte for byte, in order, though the reader pauses; then it is silent."""
    expected = [line.split(b" ", 1)[1].decode() for line in gzip.decompress(CAPTURE.read_bytes()).splitlines()]
    expected = [frame for frame in expected if frame.startswith('{"stream"')]
    async with simulating(replay=(CAPTURE,), speed=float("inf")) as (simulator, client):
        assert (await state(client))["frames_sent"] == 0
        async with dial(simulator, f"/stream?streams={'/'.join(CAPTURED)}") as socket:
            received = []
            for number in range(len(expected)):
                if number % 10_000 == 0:
                    await trio.sleep(0.05)
                received.append(await socket.recv(decode=True))
            assert received == expected
            report = await state(client)
            assert (report["replay_finished"], report["frames_sent"]) == (True, len(expected))
            with trio.move_on_after(0.2) as silence:
                await socket.recv()
            assert silence.cancelled_caught


@needs_capture
async def test_loops_the_capture_with_rising_ids() -> None:
    """The second pass goes on where the first ended."""
    async with (
        simulating(replay=(CAPTURE,), speed=float("inf"), loop=True) as (simulator, _),
        dial(simulator) as socket,
    ):
        ids = [(await message(socket))["data"]["t"] for _ in range(9757 + 500)]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        # The library stops reading a full queue, and then cannot close: it is emptied first.
        await socket.send('{"method":"UNSUBSCRIBE","params":["btcusdt@trade"],"id":1}')
        while "result" not in await message(socket):
            pass


async def test_a_reset_is_a_reset() -> None:
    """``refuse`` without a status and ``abort`` end TCP with RST, not with FIN."""
    async with simulating() as (simulator, client):
        async with dial(simulator) as socket:
            await message(socket)
            await client.post("/sim/faults", json={"fault": "abort"})
            with pytest.raises(ConnectionClosedError) as caught:
                await read_on(socket)
            assert caught.value.rcvd is None
        await client.post("/sim/faults", json={"fault": "refuse"})
        async with await trio.open_tcp_stream("127.0.0.1", simulator.port) as raw:
            await raw.send_all(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            with pytest.raises(trio.BrokenResourceError):
                await raw.receive_some(1)


async def test_a_refusal_carries_status_and_body() -> None:
    """What the exchange says to the wrong country."""
    async with simulating() as (simulator, client):
        await client.post("/sim/faults", json={"fault": "refuse", "status": 451})
        with pytest.raises(InvalidStatus) as caught:
            async with dial(simulator):
                pass
        assert caught.value.response.status_code == 451
        assert b"restricted location" in (caught.value.response.body or b"")


async def test_an_outage_refuses_dials_and_ends() -> None:
    """Connections are cut, dials find nobody, and later the same port listens again."""
    async with simulating() as (simulator, client):
        async with dial(simulator) as socket:
            await message(socket)
            answer = await client.post("/sim/faults", json={"fault": "outage", "seconds": 1.0})
            assert answer.json() == {"accepted": 1}
            with pytest.raises(ConnectionClosed):
                await read_on(socket)
        refused = 0
        while True:
            try:
                async with dial(simulator) as socket:
                    await message(socket)
                    break
            except OSError:
                refused += 1
                await trio.sleep(0.05)
        assert refused >= 1
        assert len((await state(client))["dials"]) == 2


async def test_garbage_and_closes_reach_an_independent_client() -> None:
    """Fragments are one message, a goodbye has its code and reason."""
    async with simulating() as (simulator, client), dial(simulator, "/ws") as socket:
        await client.post(
            "/sim/faults", json=[{"fault": "garbage", "kind": "fragmented"}, {"fault": "close", "code": 1012}]
        )
        assert (await message(socket))["e"] == "somethingNew"
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012


async def test_a_script_is_played(tmp_path: Path) -> None:
    """A TOML file of faults is read at the start."""
    script = tmp_path / "faults.toml"
    script.write_text('[[fault]]\nfault = "close"\ndial = 1\ncode = 4000\nreason = "script"\n')
    async with simulating(script=script) as (simulator, _), dial(simulator, "/ws") as socket:
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4000, "script")


async def test_a_port_in_use_is_the_callers_mistake() -> None:
    """The error names the address."""
    async with simulating() as (simulator, _):
        with pytest.raises(CallerError, match=f"bind: 127.0.0.1:{simulator.port}"):
            await simulate(SimOptions(bind=f"127.0.0.1:{simulator.port}"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bind": "nowhere"}, "bind: 'nowhere'"),
        ({"bind": "127.0.0.1:99999"}, "bind"),
        ({"speed": 0.0}, "speed: 0.0"),
        ({"speed": float("nan")}, "speed: nan"),
        ({"symbols": ()}, "symbols: none"),
        ({"symbols": ("btcusdt",)}, "symbols: 'btcusdt'"),
        ({"symbols": ("BTC/USDT",)}, "symbols: 'BTC/USDT'"),
        ({"replay": (Path("nowhere.gz"),)}, "replay: nowhere.gz"),
        ({"script": Path("nowhere.toml")}, "script: nowhere.toml"),
    ],
)
async def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    """The error says which option, what was given, and what is accepted."""
    with pytest.raises(CallerError) as caught:
        await simulate(SimOptions(**options))
    assert str(caught.value).startswith(words)
    assert caught.value.field == words.partition(":")[0]
