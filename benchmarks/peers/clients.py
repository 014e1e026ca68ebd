"""Named libraries as readers of the exchange's frames, each as its own documentation has it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec

from benchmarks.readers import PATH, STREAMS, Reading, SignalDatabase, Task

PATIENCE_S: Final = 15.0


def installed() -> dict[str, Callable[[Task], Reading]]:
    """The readers that the extra ``bench`` has brought."""
    readers = {
        "python-binance": ("binance", python_binance),
        "unicorn-binance-websocket-api": ("unicorn_binance_websocket_api", unicorn),
        "binance-sdk-spot": ("binance_sdk_spot", sdk),
        "picows + msgspec": ("picows", picows),
    }
    return {name: reader for name, (module, reader) in readers.items() if importlib.util.find_spec(module)}


def python_binance(task: Task) -> Reading:
    """A multiplex socket; its queue is as long as it has to be, or it would drop."""
    from binance import AsyncClient, BinanceSocketManager  # noqa: PLC0415 - another reader's process does not load it

    async def run() -> Reading:
        ledger = SignalDatabase(task)
        manager = BinanceSocketManager(AsyncClient(), max_queue_size=10**7)
        manager.STREAM_URL = f"{task.url}/"
        async with manager.multiplex_socket(list(STREAMS)) as socket:
            while not ledger.message(await socket.recv()):
                continue
            return ledger.reading(ledger.frames)

    return asyncio.run(run())


def unicorn(task: Task) -> Reading:
    """Messages to a callback, as text, and ``json.loads()``."""
    from unicorn_binance_websocket_api import BinanceWebSocketApiManager  # noqa: PLC0415

    ledger, done = SignalDatabase(task), threading.Event()

    def process(text: str) -> None:
        message = json.loads(text)
        if "stream" in message and ledger.message(message):
            done.set()

    manager = BinanceWebSocketApiManager(
        exchange="binance.com", websocket_base_uri=f"{task.url}/", warn_on_update=False, disable_colorama=True
    )
    manager.create_stream(["trade", "bookTicker"], ["btcusdt"], process_stream_data=process)
    done.wait(PATIENCE_S)
    return ledger.reading(ledger.frames)


def sdk(task: Task) -> Reading:
    """Binance's own: a callback for each stream, with typed models."""
    from binance_common.configuration import ConfigurationWebSocketStreams  # noqa: PLC0415
    from binance_sdk_spot.spot import Spot  # noqa: PLC0415

    async def run() -> Reading:
        ledger, done = SignalDatabase(task), asyncio.Event()

        def trade(data: Any) -> None:  # noqa: ANN401 - a model of the SDK's
            if ledger.message({"stream": STREAMS[0], "data": {"t": data.t}}):
                done.set()

        def ticker(_data: object) -> None:
            if ledger.message({"stream": STREAMS[1], "data": {"t": 0}}):
                done.set()

        client = Spot(config_ws_streams=ConfigurationWebSocketStreams(stream_url=task.url))
        streams = await client.websocket_streams.create_connection()
        trades = await streams.trade(symbol="btcusdt")
        trades.on("message", trade)
        tickers = await streams.book_ticker(symbol="btcusdt")
        tickers.on("message", ticker)
        await asyncio.wait_for(done.wait(), PATIENCE_S)
        return ledger.reading(ledger.frames)

    return asyncio.run(run())


def picows(task: Task) -> Reading:
    """Frames in Cython, decoded by msgspec from the buffer."""
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect  # noqa: PLC0415

    decode = msgspec.json.Decoder().decode

    async def run() -> Reading:
        ledger, done = SignalDatabase(task), asyncio.Event()

        class Subscription(WSListener):
            def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
                if frame.msg_type == WSMsgType.TEXT and ledger.message(decode(frame.get_payload_as_memoryview())):
                    done.set()

        await ws_connect(Subscription, task.url + PATH)
        await asyncio.wait_for(done.wait(), PATIENCE_S)
        return ledger.reading(ledger.frames)

    return asyncio.run(run())
