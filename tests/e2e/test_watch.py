"""``komas watch`` in a real terminal, in pipes, and before servers that come, go and lie."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.e2e.processes import PATIENCE_S, Server, komas, running, serving, wait_for
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eTDSU\u2066"
RAW = re.compile("[\x07\x9b\u202e\u2066]|\x1b\\]|\x1b\\[2J\x9b")
TOKEN = "eyJ.secret.token"


def test_the_columns_follow_the_terminal_and_ctrl_c_gives_it_back(demo: Server) -> None:
    """At 40 columns no line is longer, at 160 there are more of them; the status is 130."""
    with Terminal(komas("watch", "trades", "BTCUSDT", "--server", demo.url), 40, 20) as terminal:
        wait_for(lambda: re.search(r"\d\d:\d\d:\d\d +\d+\.?\d* *[▲▼ ]", "\n".join(terminal.frame)), "a trade")
        wait_for(lambda: len(terminal.frame) == 20, "a whole screen")
        assert max(map(len, terminal.frame)) == 40
        assert not terminal.echoes()
        terminal.resize(160, 30)
        wait_for(lambda: len(terminal.frame) == 30 and max(map(len, terminal.frame)) == 160, "the larger screen")
        wait_for(lambda: "value" in "\n".join(terminal.frame), "more columns")
        terminal.type(b"\x03")
        assert terminal.process.wait(PATIENCE_S) == 130
        wait_for(lambda: terminal.is_given_back, "the cursor")
        assert terminal.echoes()
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize(("end", "status"), [("q", 0), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_ends_give_the_terminal_back_too(demo: Server, end: str, status: int) -> None:
    """A key, and what a closed window or a supervisor sends."""
    with Terminal(komas("watch", "prices", "BTCUSDT", "--server", demo.url), 80, 24) as terminal:
        wait_for(lambda: "BTCUSDT" in terminal.text, "a row")
        if end == "q":
            terminal.type(b"q")
        else:
            terminal.process.send_signal(signal.Signals[end])
        assert terminal.process.wait(PATIENCE_S) == status
        wait_for(lambda: terminal.is_given_back, "the cursor")
        assert terminal.echoes()


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(demo: Server) -> None:
    """As an editor does."""
    with Terminal(komas("watch", "prices", "BTCUSDT", "--server", demo.url), 80, 24) as terminal:
        wait_for(lambda: "BTCUSDT" in terminal.text, "a row")
        terminal.process.send_signal(signal.SIGTSTP)
        wait_for(lambda: terminal.is_given_back, "the shell's screen")
        wait_for(terminal.echoes, "the shell's keys")
        before = terminal.text.count("\x1b[?1049h")
        wait_for(lambda: os.waitpid(terminal.process.pid, os.WUNTRACED | os.WNOHANG)[0], "the stop")
        terminal.process.send_signal(signal.SIGCONT)
        wait_for(lambda: terminal.text.count("\x1b[?1049h") > before, "our screen")


def test_colours_are_as_the_user_says(demo: Server) -> None:
    """``NO_COLOR`` takes them, ``--color`` counts before it."""
    command = komas("watch", "prices", "BTCUSDT", "--server", demo.url)
    for more, has_color in (((), False), (("--color", "always"), True)):
        with Terminal([*command, *more], 80, 24, NO_COLOR="1") as terminal:
            wait_for(lambda: re.search(r"[+-]\d", terminal.text), "a change")
            assert ("\x1b[32m" in terminal.text or "\x1b[31m" in terminal.text) == has_color


def test_a_dumb_terminal_gets_rows(demo: Server) -> None:
    """And no code at all."""
    command = komas("watch", "trades", "BTCUSDT", "--server", demo.url)
    with Terminal(command, 80, 24, TERM="dumb") as terminal:
        wait_for(lambda: terminal.text.count("\n") > 3, "rows")
        assert "\x1b" not in terminal.text


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_pipe_that_is_closed_ends_it_silently(demo: Server, more: list[str]) -> None:
    """``komas watch ... | head -3``."""
    watch = [*komas("watch", "trades", "BTCUSDT", "--server", demo.url), *more]
    environment = os.environ | {"FORCE_COLOR": "1"}
    with subprocess.Popen(watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == b""
    assert not any(b"\x1b" in line for line in lines)


class _Lies(BaseHTTPRequestHandler):
    """A server that sends codes of terminals wherever it may send text."""

    def do_GET(self) -> None:
        """Answer anything."""
        is_sse = "/sse/" in self.path
        if not is_sse:
            self._answer(400, json.dumps({"detail": HOSTILE}, ensure_ascii=False))
            return
        if "NOPE" in self.path:
            self._answer(400, json.dumps({"detail": f"{HOSTILE} NOPE is not a symbol of the exchange"}))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        data = {"type": "ticker", "symbol": HOSTILE + "币💥", "timestamp": 1_796_000_000_000}
        numbers = dict.fromkeys(("price", "open", "high", "low", "volume", "quote_volume", "price_change"), 1.5)
        event = {"type": "ticker", "data": data | numbers | {"price_change_percent": 2.5}, "timestamp": HOSTILE}
        notice = json.dumps({"stream": HOSTILE, "reason": HOSTILE}, ensure_ascii=False)
        body = f"id: {HOSTILE}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        body += f"event: {HOSTILE}\ndata: {notice}\n\n"
        try:
            while True:
                self.wfile.write(body.encode())
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            return

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's
        """Say nothing."""


@pytest.fixture(scope="module")
def liar() -> Iterator[str]:
    """The address of a server that lies."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Lies) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("more", [[], ["--json"], ["--color", "never"]])
def test_no_code_of_a_server_reaches_the_terminal(liar: str, more: list[str]) -> None:
    """In symbols, notices, their names, moments and ids."""
    with Terminal([*komas("watch", "prices", "X", "--server", liar), *more], 80, 24) as terminal:
        wait_for(lambda: "\\u202e" in terminal.text and "1.5" in terminal.text, "its text, written out")
        time.sleep(0.3)
        assert RAW.search(terminal.text) is None


def test_no_code_of_a_server_reaches_a_pipe(liar: str) -> None:
    """Each row is one line with as many fields as the heading."""
    with running(komas("watch", "prices", "X", "--server", liar)) as process:
        process.line("^time\t")
        process.line(r"\t\\x1b\]0;owned\\x07")
        process.line(r"^\\x1b\]0;owned.*: stream ")
        rows = [line for line in process.output if "\t" in line]
        assert {line.count("\t") for line in rows} == {9}
        assert all(RAW.search(line) is None and "\x1b" not in line for line in process.output)
    with running(komas("watch", "prices", "NOPE", "--server", liar)) as process:
        assert process.ended() == 2
        assert re.fullmatch(r"komas: the server says: \\x1b.*NOPE is not a symbol of the exchange", process.output[0])


class _Endless(BaseHTTPRequestHandler):
    """A server that begins, and never comes to an end."""

    def do_GET(self) -> None:
        """Send as much as is taken."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if "/sse/" in self.path else "application/json")
        if "symbol=PACKED" in self.path:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        try:
            self.wfile.write(b"data: ")
            while True:
                self.wfile.write(b"x" * 65_536)
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's
        """Say nothing."""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (["trades", "X"], "the server sends an event of more than 1,048,576 bytes; is it a komas server?"),
        (["trades", "PACKED"], "the server compresses its answer, though it was asked not to; is it a komas server?"),
        (["status"], "the server's answer has more than 67,108,864 bytes; is it a komas server?"),
        (["prices"], "the server's answer has more than 67,108,864 bytes; is it a komas server?"),
    ],
)
def test_a_server_without_an_end_does_not_fill_the_memory(what: list[str], words: str) -> None:
    """It is told what is wrong, exit status 2."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endless) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with running(komas("watch", *what, "--server", address)) as process:
            assert process.ended() == 2
            assert [line for line in process.output if line.startswith("komas:")] == [f"komas: {words}"]
        server.shutdown()


@contextmanager
def _echoing() -> Iterator[str]:
    """A server of signals that tells everybody the token."""

    def answer(connection: ServerConnection) -> None:
        connection.send(json.dumps({"type": "connected", "position": 1, "message": TOKEN}))
        data = {"id": 1, "coin_name": TOKEN, "note": HOSTILE}
        connection.send(json.dumps({"type": "new_signal", "signal_type": TOKEN, "data": data}))
        connection.send(json.dumps({"type": "error", "code": "x", "message": TOKEN}))
        time.sleep(1)
        connection.close(1008, f"no: {TOKEN}")

    with serve(answer, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_token_is_never_printed(more: list[str]) -> None:
    """Not even where a server says it, nor for a server that is not there."""
    environment = {"KOMAS_TOKEN": TOKEN}
    with _echoing() as url, running([*komas("watch", "signals", "--server", url), *more], environment) as process:
        process.line("new_signal.*\\[token\\]")
        assert process.ended() == 2
        assert not any(TOKEN in line or "\x1b" in line for line in process.output)
    with running([*komas("watch", "signals", "--server", "http://u:p@127.0.0.1:1"), *more], environment) as process:
        process.line("http://127.0.0.1:1.*lost")
        assert not any(TOKEN in line or "u:p@" in line for line in process.output)


def test_trades_go_on_after_a_restart_and_what_is_missing_is_said(tmp_path: Path) -> None:
    """The connection, its loss and the gap are records among the others."""
    with serving(tmp_path, "--demo") as server:
        watch = running(komas("watch", "trades", "BTCUSDT", "--json", "--server", server.url))
        with watch as watching:
            watching.line('^{"type":"connection".*"state":"connected"')
            watching.line('^{"type":"trade"')
            os.kill(server.process.pid, signal.SIGKILL)
            watching.line('^{"type":"connection".*"state":"lost","reason":".+","retry_in_s":[0-9.]+}')
            with serving(tmp_path, "--demo", "--bind", f"127.0.0.1:{server.port}"):
                watching.line('^{"type":"connection".*"state":"connected"')
                watching.line('^{"type":"gap".*"stream":"btcusdt@trade"')
                watching.line('^{"type":"trade"')
            assert all(list(json.loads(line))[:3] == ["type", "data", "timestamp"] for line in watching.output)
