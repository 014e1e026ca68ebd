"""A server for the page's tests: komas's own files with made-up but consistent data, and faults on demand.

It speaks what the page asks for: the stream of many streams, history, symbols, signals, administration. The real
server is what the other tests of pages run against; this one can also be slow, wrong, away or hostile.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import json
import random
import re
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from komas.web.routes.pages import POLICY, STATIC, chart_script

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
ADMIN_TOKEN = "admin-token"
INTERVALS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "M": 2_592_000_000}
KNOWN = (
    "BTC ETH SOL BNB XRP DOGE PEPE ADA AVAX LINK TAO WIF SUI TON NEAR ONDO JUP SEI ARB LTC INJ APT FIL ATOM DOT UNI "
    "AAVE OP ETC BCH TRX HBAR ICP RENDER FET WLD TIA STX IMX GRT"
)
NAMES = (*KNOWN.split(" "), *(f"S{number}" for number in range(160)))
EVERY = {"ticker": 10, "trade": 3, "depth@100ms": 3, "markPrice@1s": 10}  # tenths of a second
PRICES = {
    "BTC": 67_250.1,
    "ETH": 3412.57,
    "SOL": 171.34,
    "BNB": 598.2,
    "PEPE": 0.00001234,
    "DOGE": 0.16482,
    "XRP": 0.6184,
}


class Instrument:
    """One symbol: a price that walks, with the exchange's trailing zeros."""

    def __init__(self, base: str, rank: int) -> None:
        self.base = base
        self.phase = rank * 0.37
        self.missing: set[int] = set()
        self.symbol = f"{base}USDT"
        self.start = PRICES.get(base, 40.0 / (rank + 1))
        self.places = 8 if self.start < 0.001 else 2 if self.start > 50 else 4
        self.tick = f"{10**-self.places:.8f}"
        self.volume = 1.84e9 / (rank + 1) ** 1.2
        self.trade_id = 4_000_000_000 + rank * 1_000

    def price_at(self, ms: int) -> float:
        """Where the price is at a moment: the same for whoever asks."""
        seconds = ms / 1_000
        wave = 0.0
        for period, weight in ((86_400, 0.02), (9_700, 0.006), (1_310, 0.002), (97, 0.0006), (13, 0.0002)):
            wave += weight * _sine(seconds / period + self.phase * (1 + period % 7))
        return self.start * (1 + wave)

    def text(self, value: float) -> str:
        """A price as the exchange writes it: to the tick, then zeros."""
        return f"{value:.{self.places}f}" + "0" * (8 - self.places)

    def ticker(self, ms: int) -> str:
        """24-hour statistics."""
        price, before = self.price_at(ms), self.price_at(ms - 86_400_000)
        change = price - before
        return (
            f'{{"type":"ticker","symbol":"{self.symbol}","price":{self.text(price)},"open":{self.text(before)},'
            f'"high":{self.text(max(price, before) * 1.004)},"low":{self.text(min(price, before) * 0.996)},'
            f'"volume":{self.volume / price:.8f},"quote_volume":{self.volume:.8f},"price_change":{self.text(change)},'
            f'"price_change_percent":{change / before * 100:.3f},"timestamp":{ms}}}'
        )

    def candle(self, opened: int, interval: str, now: int) -> str:
        """One candle, open where it is not over."""
        length = span_ms(interval)
        end = min(opened + length, now)
        points = [self.price_at(opened + (end - opened) * step // 8) for step in range(9)]
        chance = random.Random(opened)
        wick = self.start * 0.0004
        high, low = max(points) + wick * chance.random(), min(points) - wick * chance.random()
        closed = "true" if opened + length <= now else "false"
        return (
            f'{{"type":"kline","symbol":"{self.symbol}","interval":"{interval}","timestamp":{opened},'
            f'"open":{self.text(points[0])},"high":{self.text(high)},"low":{self.text(low)},'
            f'"close":{self.text(points[-1])},"volume":{20 + chance.random() * 80:.8f},"is_closed":{closed},'
            f'"trades":{chance.randrange(50, 900)},"quote_volume":{1e6 * chance.random():.8f}}}'
        )

    def candles(self, interval: str, limit: int, end: int, now: int) -> list[str]:
        """Candles that opened at or before ``end``, oldest first."""
        length = span_ms(interval)
        last = min(end, now) // length * length
        times = [last - length * back for back in reversed(range(limit))]
        return [self.candle(at, interval, now) for at in times if at not in self.missing]

    def depth(self, ms: int) -> str:
        """An order book around the price."""
        chance = random.Random(ms // 300)
        tick, price = float(self.tick), self.price_at(ms)
        bids: list[str] = []
        asks: list[str] = []
        for side, sign in ((bids, -1), (asks, 1)):
            at = price + sign * tick / 2
            for _ in range(100):
                at += sign * tick * chance.choice((1, 1, 2, 5, 11))
                side.append(f"[{self.text(at)},{chance.random() ** 3 * 5:.5f}000]")
        return (
            f'{{"type":"depth","symbol":"{self.symbol}","update_id":{ms},"bids":[{",".join(bids)}],'
            f'"asks":[{",".join(asks)}],"timestamp":{ms}}}'
        )

    def trade(self, ms: int) -> str:
        """The next trade."""
        self.trade_id += 1
        chance = random.Random(self.trade_id)
        maker = "true" if chance.random() < 0.5 else "false"
        return (
            f'{{"type":"trade","symbol":"{self.symbol}","trade_id":{self.trade_id},"price":{self.text(self.price_at(ms))},'
            f'"quantity":{chance.random() ** 3 * 2:.5f}000,"timestamp":{ms},"is_buyer_maker":{maker}}}'
        )

    def mark(self, ms: int) -> str:
        """Mark price and funding."""
        price = self.price_at(ms)
        funding = (ms // 28_800_000 + 1) * 28_800_000
        return (
            f'{{"type":"mark_price","symbol":"{self.symbol}","price":{self.text(price)},"index_price":{self.text(price)},'
            f'"estimated_settle_price":{self.text(price)},"funding_rate":0.00010000,"next_funding_time":{funding},"timestamp":{ms}}}'
        )

    def events(self, suffix: str, now: int, history: int, *, is_new: bool) -> list[tuple[str, str]]:
        """What a stream of this symbol brings: its kind, and the event."""
        if suffix.startswith("kline_"):
            count = max(1, history) if is_new else 2
            return [("kline", row) for row in self.candles(suffix.removeprefix("kline_"), count, now, now)]
        if suffix == "trade":
            return [("trade", self.trade(now - back * 90)) for back in range(40 if is_new else 1, 0, -1)]
        kinds = {"ticker": self.ticker, "depth@100ms": self.depth, "markPrice@1s": self.mark}
        kind = {"ticker": "ticker", "depth@100ms": "depth", "markPrice@1s": "mark_price"}.get(suffix, "")
        return [(kind, kinds[suffix](now))] if kind else []

    def info(self) -> str:
        """Its line in the list of symbols."""
        return (
            f'{{"symbol":"{self.symbol}","status":"TRADING","base":"{self.base}","quote":"USDT","tick_size":{self.tick},'
            f'"step_size":0.00001000,"market":"spot","volume_24h":{self.volume:.8f}}}'
        )


def _sine(turns: float) -> float:
    """Between -1 and 1, once around in one turn."""
    part = turns % 1 * 4
    return part if part < 1 else 2 - part if part < 3 else part - 4


def span_ms(interval: str) -> int:
    """The length of an interval; a month of thirty days."""
    return int(interval[:-1]) * INTERVALS_MS[interval[-1]]


def now_ms() -> int:
    """The clock of all data."""
    return time.time_ns() // 1_000_000


class State:
    """What the server has, and which faults it was asked to show."""

    def __init__(self, symbols: int) -> None:
        self.chart_script = chart_script().read_bytes()
        self.instruments = {
            one.symbol: one for one in (Instrument(base, rank) for rank, base in enumerate(NAMES[:symbols]))
        }
        self.signals = [signal(number) for number in range(1, 25)]
        self.is_away = False
        self.stale: set[str] = set()
        self.quiet: set[str] = set()  # symbols that do not trade: they have candles only
        self.gap: str | None = None
        self.exchange: tuple[str, str] | None = None
        self.close: tuple[int, str] | None = None
        self.readers = 0
        self.posted: list[tuple[str, str, str]] = []
        self.vips: dict[str, tuple[bool, int]] = {}  # by user: whether revoked, until when
        self.is_store_away = False
        self.connections: dict[str, list[str]] = {}
        self.lock = threading.Lock()


def signal(number: int, coin: str = "") -> dict[str, object]:
    """One made-up signal."""
    chance = random.Random(number)
    return {
        "id": number,
        "signal_type": chance.choice(("mexc_spot_futures", "funding_rate", "mexc_dex")),
        "data": {
            "id": number,
            "created_at": _iso(now_ms() - (25 - number) * 97_000),
            "coin_name": coin or chance.choice(("NB", "TAO", "PEPE", "WIF", "币安人生")),
            "position": chance.choice(("LONG", "SHORT")),
            "spread": round(chance.random() * 12, 2),
            "mexc_spot_price": round(chance.random() * 40, 4),
        },
    }


def _iso(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1_000)) + f".{ms % 1_000:03d}Z"


def a_token(minutes: int = 41) -> str:
    """A token that says what the page shows; nobody checks it here."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    until = int(time.time()) + minutes * 60
    return f"{part({'alg': 'HS256'})}.{part({'sub': '123', 'exp': until, 'vip_until': until + 2_000_000})}.c2ln"


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_arguments: object) -> None:
        return

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        path = url.path
        if self.state.is_away:
            self.close_connection = True
            self.connection.close()
            return
        if path == "/ws/signals":
            self.websocket()
        elif path == "/api/ws/sse/stream":
            self.events(query)
        elif path.startswith("/static/") or path == "/":
            self.file(path.removeprefix("/static/") if path != "/" else "index.html")
        else:
            self.api(path, query)

    def do_POST(self) -> None:
        self.changed("POST")

    def do_PATCH(self) -> None:
        self.changed("PATCH")

    def do_DELETE(self) -> None:
        self.changed("DELETE")

    def answer(
        self, body: str | bytes, status: int = 200, kind: str = "application/json", *, packed: bool = False
    ) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        if packed:
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(content)

    def file(self, name: str) -> None:
        if name == "lightweight-charts.js":
            self.answer(self.state.chart_script, kind="text/javascript", packed=True)
            return
        path = (STATIC / name).resolve()
        if not path.is_file() or STATIC not in path.parents:
            self.answer("{}", 404)
            return
        self.answer(path.read_bytes(), kind=TYPES[path.suffix], packed=True)

    def api(self, path: str, query: dict[str, str]) -> None:
        state, now = self.state, now_ms()
        one = state.instruments.get(query.get("symbol", "").upper())
        if path == "/healthz":
            self.answer('{"status":"ok"}')
        elif path == "/api/ws/klines":
            if one is None:
                self.answer(json.dumps({"status": 400, "detail": f"{query.get('symbol')} is not a symbol"}), 400)
                return
            rows = one.candles(query["interval"], int(query.get("limit", 500)), int(query.get("end", now)), now)
            head = f'"symbol":"{one.symbol}","interval":"{query["interval"]}","count":{len(rows)}'
            self.answer(f'{{{head},"candles":[{",".join(rows)}]}}')
        elif path == "/api/ws/symbols":
            text = query.get("query", "").upper()
            found = [row.info() for name, row in state.instruments.items() if text in name][
                : int(query.get("limit", 50))
            ]
            self.answer(f'{{"count":{len(found)},"symbols":[{",".join(found)}]}}')
        elif path == "/api/ws/streams":
            rows = [
                f'{{"stream":"{name.lower()}@ticker","type":"ticker","symbol":"{name}","interval":null,'
                f'"health":"{"stale" if name in state.stale else "live"}","subscribers":1,"pinned":false,'
                f'"last_event_at":"{_iso(now - 200)}"}}'
                for name in state.instruments
            ]
            self.answer(f'{{"count":{len(rows)},"streams":[{",".join(rows)}]}}')
        elif path == "/api/ws/status":
            line = '{"url":"ws://x","shard":0,"streams":36,"uptime_seconds":13800.5,"messages_received":19120}'
            self.answer(
                f'{{"connected":true,"state":"connected","streams":36,"messages_received":1204553,"reconnects":1,'
                f'"last_message_at":"{_iso(now - 200)}","reason":null,"connections":[{line},{line}]}}'
            )
        elif path == "/api/signals":
            since = int(query.get("since_id", 0))
            kept = [{**one, "id": one["data"]["id"]} for one in state.signals if one["id"] > since]  # type: ignore[index, operator]
            self.answer(json.dumps({"signals": kept, "next_since_id": len(state.signals)}))
        else:
            self.administration(path, query, now)

    def administration(self, path: str, query: dict[str, str], now: int) -> None:
        if self.headers.get("Authorization") != f"Bearer {ADMIN_TOKEN}":
            self.answer('{"status":401,"title":"Unauthorized","detail":"the admin token is needed"}', 401)
            return
        ago = [55, 720, 2_460, 8_040, 22_000]
        users = ["123", "87", "<b>412</b>", "55", "9"]
        bodies: dict[str, object] = {
            "/api/admin/sessions": {
                "count": 5,
                "sessions": [
                    {
                        "id": f"s{at}",
                        "user_id": users[at],
                        "address": f"198.51.100.{at}",
                        "since": _iso(now - ago[at] * 1_000),
                        "behind": 201 if at == 3 else 0,
                        "admitted": True,
                    }
                    for at in range(5)
                ],
            },
            "/api/admin/readers": {
                "count": 3,
                "readers": [
                    {"address": f"203.0.113.{at}", "streams": 12 * at, "subscriptions": at} for at in range(1, 4)
                ],
            },
            "/api/admin/gaps": {
                "count": 2,
                "gaps": [
                    {
                        "stream": "btcusdt@trade",
                        "from": 1,
                        "to": 318,
                        "filled": True,
                        "reason": None,
                        "at": _iso(now - 60_000),
                    },
                    {
                        "stream": "btcusdt@kline_1m",
                        "from": 1,
                        "to": 2,
                        "filled": False,
                        "reason": "no answer in 15 s",
                        "at": _iso(now - 90_000),
                    },
                ],
            },
            "/api/logs/today": {
                "count": 12,
                "records": [
                    {
                        "timestamp": _iso(now - 9_000 * (12 - at)),
                        "level": "WARNING" if at % 5 == 2 else "INFO",
                        "logger": "komas.feed",
                        "event": "connection lost" if at % 5 == 2 else f"signal {1840 + at} published by demo",
                        **({"reason": "cut by the exchange", "after_s": 1.5} if at % 5 == 2 else {}),
                    }
                    for at in range(12)
                ],
            },
        }
        if path == "/api/admin/vips":
            if self.state.is_store_away:
                self.answer('{"status":503,"detail":"the store of signals is away"}', 503)
                return
            bodies[path] = self.vips(query.get("after", ""), int(query["limit"]))
        if path == "/api/admin/signals":
            if self.state.is_store_away:
                self.answer('{"status":503,"detail":"the store of signals is away"}', 503)
                return
            bodies[path] = self.newest(int(query.get("before_id", 2**53)), int(query["limit"]))
        if path.startswith("/api/vip/"):
            bodies[path] = {
                "user_id": path.rsplit("/", maxsplit=1)[-1],
                "active": True,
                "revoked": False,
                "vip_until": now // 1_000 + 2_000_000,
            }
        if path not in bodies:
            self.answer('{"status":404,"detail":"no such place"}', 404)
            return
        self.answer(json.dumps(bodies[path]))

    def newest(self, before: int, limit: int) -> dict[str, object]:
        """A page of signals, newest first."""
        rows = [
            {"id": number, "created_at": str(one["data"]["created_at"]), **one}  # type: ignore[index]
            for number, one in reversed(list(enumerate(self.state.signals, 1)))
            if number < before
        ][:limit]
        return {"count": len(rows), "signals": rows, "next_before_id": rows[-1]["id"] if rows else None}

    def vips(self, after: str, limit: int) -> dict[str, object]:
        """A page of those whose VIP was granted or revoked."""
        users = sorted(user for user in self.state.vips if user > after)[:limit]
        rows = [self.vip(user) for user in users]
        return {"count": len(rows), "vips": rows, "next_after": users[-1] if users else after or None}

    def vip(self, user: str) -> dict[str, object]:
        """What is known of one."""
        is_revoked, until = self.state.vips[user]
        is_active = not is_revoked and until > time.time()
        return {"user_id": user, "active": is_active, "revoked": is_revoked, "vip_until": until}

    def changed(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = urlsplit(self.path).path
        match = re.fullmatch(r"/api/ws/sse/stream/(\w+)", path)
        if match:
            self.change_streams(match[1], json.loads(body))
            return
        self.state.posted.append((method, path, body))
        if path == "/api/signals":
            number = len(self.state.signals) + 1
            self.state.signals.append(signal(number))
            self.answer(json.dumps({"id": number}), 201)
        elif path.startswith("/api/vip/"):
            user = unquote(path.split("/")[-1])
            self.state.vips[user] = (method == "DELETE", int(time.time()) + 2_592_000)
            self.answer(json.dumps(self.vip(user)))
        else:
            self.answer("{}")

    # ---- events

    def change_streams(self, connection: str, body: dict[str, list[str]]) -> None:
        with self.state.lock:
            streams = self.state.connections.get(connection)
            if streams is None:
                self.answer('{"status":404,"detail":"no such connection"}', 404)
                return
            for name in body.get("unsubscribe", []):
                if name in streams:
                    streams.remove(name)
            streams += [name for name in body.get("subscribe", []) if name not in streams]
            names = list(streams)
        self.answer(json.dumps({"streams": names}))

    def events(self, query: dict[str, str]) -> None:
        state = self.state
        name = f"c{random.randrange(10**12)}"
        streams = [part for part in re.split("[/,]", query.get("streams", "")) if part]
        state.connections[name] = streams
        state.readers += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            opened = {"connection": name, "streams": streams, "simulated": True, "version": "0.1.0", "server": "fake"}
            self.send("open", json.dumps(opened))
            self.follow(streams, int(query.get("history", 0)))
        except OSError:
            pass
        finally:
            state.readers -= 1
            state.connections.pop(name, None)

    def send(self, event: str, data: str, position: str = "") -> None:
        head = f"event: {event}\n" if event else ""
        number = f"id: {position}\n" if position else ""
        self.wfile.write(f"{head}data: {data}\n{number}\n".encode())
        self.wfile.flush()

    def follow(self, streams: list[str], history: int) -> None:
        known: set[str] = set()
        gap = exchange = None
        beat = 0
        stale: set[str] = set()
        while not self.state.is_away:
            if set(streams) != known and known:
                self.send("streams", json.dumps({"streams": streams}))
            for stream in list(streams):
                self.step(stream, beat, history, is_new=stream not in known)
            known = set(streams)
            if self.state.gap and self.state.gap != gap and json.loads(self.state.gap)["stream"] in known:
                gap = self.state.gap
                self.send("gap", gap)
            if self.state.exchange != exchange:
                exchange = self.state.exchange
                line = (
                    {"state": exchange[0], "reason": exchange[1], "retry_in_s": 5.0}
                    if exchange
                    else {"state": "connected", "reason": None}
                )
                self.send("status", json.dumps(line))
            for symbol in self.state.stale ^ stale:
                word = "stale" if symbol in self.state.stale else "live"
                for stream in list(streams):
                    if stream.startswith(f"{symbol.lower()}@"):
                        self.send("health", json.dumps({"stream": stream, "health": word, "reason": "silent for 40 s"}))
            stale = set(self.state.stale)
            beat += 1
            time.sleep(0.1)

    def step(self, stream: str, beat: int, history: int, *, is_new: bool) -> None:
        """What one stream brings in this tenth of a second."""
        symbol, _, suffix = stream.partition("@")
        one = self.state.instruments.get(symbol.upper())
        if one is None:
            if is_new:
                refusal = {"state": "connected", "reason": f"{symbol.upper()} is not a symbol", "stream": stream}
                self.send("status", json.dumps(refusal))
        elif symbol.upper() in self.state.quiet and not suffix.startswith("kline"):
            return
        elif symbol.upper() not in self.state.stale and (is_new or (beat + len(symbol)) % EVERY.get(suffix, 10) == 0):
            for kind, event in one.events(suffix, now_ms(), history, is_new=is_new):
                self.data(kind, event, stream, f"fake-{now_ms()}" if kind == "trade" else "")

    def data(self, kind: str, data: str, stream: str, position: str = "") -> None:
        self.send("", f'{{"type":"{kind}","data":{data},"timestamp":"{_iso(now_ms())}","stream":"{stream}"}}', position)

    # ---- signals

    def websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("Sec-WebSocket-Protocol", "komas.signals")
        self.end_headers()
        self.close_connection = True
        try:
            self.speak()
        except OSError:
            return

    def speak(self) -> None:
        if self.state.close:
            self.frame(0x88, struct.pack("!H", self.state.close[0]) + self.state.close[1].encode())
            time.sleep(0.2)
            return
        hello = {
            "type": "connected",
            "message": "hello",
            "user_id": "123",
            "expires_at": int(time.time()) + 2_460,
            "position": 0,
        }
        self.frame(0x81, json.dumps(hello).encode())
        sent = 0
        while not self.state.is_away and not self.state.close:
            fresh = self.state.signals[sent:]
            sent += len(fresh)
            for one in fresh:
                message = {
                    "type": "new_signal",
                    "signal_type": one["signal_type"],
                    "data": one["data"],
                    "position": one["id"],
                }
                self.frame(0x81, json.dumps(message).encode())
            if sent and fresh and len(fresh) > 3:
                update = {
                    "type": "signal_update",
                    "signal_type": fresh[-1]["signal_type"],
                    "signal_id": fresh[-1]["id"],
                    "data": {"spread": 9.12},
                    "position": 1_000,
                }
                self.frame(0x81, json.dumps(update).encode())
            time.sleep(0.1)
        if self.state.close:
            self.frame(0x88, struct.pack("!H", self.state.close[0]) + self.state.close[1].encode())
            time.sleep(0.2)

    def frame(self, kind: int, payload: bytes) -> None:
        head = bytes((kind, len(payload))) if len(payload) < 126 else struct.pack("!BBH", kind, 126, len(payload))
        self.wfile.write(head + payload)
        self.wfile.flush()


@contextmanager
def page_serving(symbols: int = 36, port: int = 0) -> Iterator[tuple[str, State]]:
    """Serve the page; yields its address and what its tests may change."""
    state = State(symbols)
    handler = type("OwnHandler", (Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", state
        finally:
            state.is_away = True
            server.shutdown()
