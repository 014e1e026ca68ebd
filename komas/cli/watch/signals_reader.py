"""``komas watch signals``: signals live in the terminal, as a VIP reads them.

On a terminal it is a table, newest first, whose rows change with their updates; into a pipe it is one message a line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

import httpx
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from komas.cli.watch import RETRY_S, ROWS, Lines, check_address
from komas.errors import CallerError, Closing, VenueError
from komas.model.codec import encode, read_object
from komas.venues.core.websocket import dial

_SCHEMES: Final = {"http": "ws", "https": "wss"}
PONG: Final = '{"type":"pong"}'
POLICY_VIOLATION: Final = 1008  # the token, or what it is good for: trying again does not mend it


async def watch_signals(
    server: str,
    token: str,
    since_id: str = "",
    console: Console | None = None,
    *,
    why_unauthorized: Callable[[str], str] = lambda _token: "",
) -> None:
    """Show signals until cancelled; comes back by itself, without a loss, when the server was away.

    Raises ``CallerError`` with the server's reason when it closes for good; ``why_unauthorized`` adds what this machine
    knows of the token, which the server must not tell.
    """
    check_address(server)
    if not token:
        raise CallerError("signals are for VIPs: give --token, or set KOMAS_TOKEN")
    console = console or Console()
    resume = {"since_id": since_id} if since_id else {}
    with SignalTable(console) if console.is_terminal else Lines(_line) as screen:

        def show(message: dict[str, object]) -> None:
            if "position" in message:
                resume.clear()
                resume["since"] = str(message.pop("position"))
            if message.get("type") == "connected":
                screen.note(f"{server}: connected")
            else:
                screen.show(message)

        while True:
            try:
                await _converse(server, {"token": token, "positions": "1", **resume}, show)
            except VenueError as error:
                if error.code == POLICY_VIOLATION:
                    reason = str(error).rpartition(": ")[2]
                    known = why_unauthorized(token) if reason == Closing.UNAUTHORIZED.reason else ""
                    raise CallerError("; ".join(filter(None, (f"the server says: {reason}", known)))) from None
                screen.note(f"{server}: {str(error).replace('the exchange', 'the server')}; trying again")
            await trio.sleep(RETRY_S)


async def _converse(server: str, query: dict[str, str], show: Callable[[dict[str, object]], None]) -> None:
    base = httpx.URL(server)
    url = str(base.copy_with(scheme=_SCHEMES[base.scheme], path=f"{base.path.rstrip('/')}/ws/signals", params=query))
    failure: VenueError | None = None
    async with trio.open_nursery() as nursery:  # what leaves a nursery is a group: the failure is carried out by hand
        try:
            socket = await dial(nursery, url, sent=_nothing)
            try:
                while True:
                    for message in map(read_object, await socket.receive()):
                        if message.get("type") == "ping":
                            await socket.send(PONG)
                        else:
                            show(message)
            finally:
                await socket.close()
        except VenueError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _nothing() -> None:
    """What leaves is not counted."""


class SignalTable:
    """A table that redraws itself."""

    def __init__(self, console: Console) -> None:
        self._signals: dict[object, dict[str, object]] = {}
        self._types: dict[object, object] = {}
        self._note = ""
        self._live = Live(console=console, auto_refresh=False, screen=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, message: dict[str, object]) -> None:
        """Add a row, or change one."""
        data = message.get("data")
        if not isinstance(data, dict):
            self.note(_line(message))
            return
        number = message.get("signal_id", data.get("id"))
        self._types[number] = message.get("signal_type")
        self._signals[number] = self._signals.get(number, {}) | data
        while len(self._signals) > ROWS:
            del self._types[(oldest := next(iter(self._signals)))], self._signals[oldest]
        self._draw()

    def note(self, text: str) -> None:
        """Say something below the table."""
        self._note = text
        self._draw()

    def _draw(self) -> None:
        table = Table(caption=self._note or None, expand=True)
        for heading in ("id", "time", "type", "data"):
            table.add_column(heading, justify="right" if heading == "id" else "left", no_wrap=heading != "data")
        for number, data in reversed(self._signals.items()):
            rest = {key: value for key, value in data.items() if key not in ("id", "created_at")}
            shown = "  ".join(f"{key} {_text(value)}" for key, value in rest.items())
            table.add_row(str(number), str(data.get("created_at", ""))[11:19], str(self._types[number]), Text(shown))
        self._live.update(table, refresh=True)


def _line(message: dict[str, object]) -> str:
    return encode(message).decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else encode(value).decode()
