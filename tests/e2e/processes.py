"""komas processes for end-to-end tests: real sockets on free loopback ports, every wait with a deadline."""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import urlencode

import httpx

from tests.e2e.relay import relaying

ROOT = Path(__file__).parents[2]
CAPTURE = ROOT.parent / "shared" / "captures" / "btcusdt_20240808.gz"
PATIENCE_S = 60.0  # a slow machine is slow, and a hang is a failure


TLS: ContextVar[Path | None] = ContextVar("TLS", default=None)  # where servers that are started find a certificate
DIRECT_WRITES: ContextVar[str] = ContextVar("DIRECT_WRITES", default="true")  # of servers that are started


class Process:
    """One running command; its output is read by threads, so that it never blocks."""

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str] | None = None,
        cwd: Path = ROOT,
        *,
        inherits: Sequence[int] = (),
    ) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("KOMAS_")}
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=kept | (environment or {}),
            cwd=cwd,
            start_new_session=True,  # what it starts ends with it
            pass_fds=tuple(inherits),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip("\n")
            self.output.append(text)
            self._lines.put(text)

    def line(self, pattern: str) -> re.Match[str]:
        """Wait for a line of output that matches."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                found = re.search(pattern, self._lines.get(timeout=0.2))
            except queue.Empty:
                assert self._process.poll() is None, f"ended: {self.output}"
                continue
            if found:
                return found
        raise AssertionError(f"no {pattern!r} in {self.output}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self, timeout: float = PATIENCE_S) -> int:
        """Wait for the end; returns the exit status."""
        status = self._process.wait(timeout)
        self._reader.join(timeout)
        return status

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, whatever it does."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        elif self.is_alive():
            self._process.kill()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


def komas(*arguments: str) -> list[str]:
    """The ``komas`` command of this environment."""
    return [sys.executable, "-m", "komas", *arguments]


@contextmanager
def running(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    cwd: Path = ROOT,
    *,
    inherits: Sequence[int] = (),
) -> Iterator[Process]:
    """A process while the block lasts; it inherits the open files that are named."""
    process = Process(command, environment, cwd, inherits=inherits)
    try:
        yield process
    finally:
        process.close()


class Server:
    """A komas server and the address it listens on."""

    def __init__(self, process: Process, url: str, folder: Path, trusted: ssl.SSLContext | None = None) -> None:
        self.process = process
        self.url = url
        self.folder = folder
        self.port = int(url.rsplit(":", 1)[1])
        self.http = httpx.Client(base_url=url, timeout=PATIENCE_S, verify=trusted or True)

    def signals_url(self, token: str = "", **query: object) -> str:
        """The address of the signal socket."""
        given = urlencode({key: value for key, value in {"token": token, **query}.items() if value != ""})
        return f"ws://localhost:{self.port}/ws/signals?{given}"

    def publish(self, token: str, **data: object) -> int:
        """Publish a signal; returns its id."""
        answer = self.http.post(
            "/api/signals",
            json={"signal_type": "mexc_spot_futures", "data": data},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    def close(self) -> None:
        """Close what was opened to ask it."""
        self.http.close()

    def admin_token(self) -> str:
        """The administrator's token."""
        command = komas("token", "admin", "--data-dir", str(self.folder))
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout.strip()

    def status(self) -> dict[str, object]:
        """``GET /api/ws/status``."""
        body: dict[str, object] = self.http.get("/api/ws/status").json()
        return body


@contextmanager
def serving(folder: Path, *arguments: str, stock: bool = False, **environment: str) -> Iterator[Server]:
    """``komas serve``, or the stock Hypercorn command, on a free port; settings as options or variables."""
    variables = _variables(folder, environment)
    with ExitStack() as stack:
        if stock:
            process, url = stack.enter_context(_stock_hypercorn(variables))
        else:
            secured = TLS.get() if "--config" not in arguments else None
            more = () if secured is None else ("--config", str(secured / "hypercorn.toml"))
            process = stack.enter_context(
                running(komas("serve", "--bind", "127.0.0.1:0", *more, *arguments), variables)
            )
            url = process.line(r"komas listens on (https?://\S+)")[1]
            if secured is not None:
                port = int(url.rpartition(":")[2])
                trusted = ssl.create_default_context(cafile=str(secured / "certificate.pem"))
                url = f"http://127.0.0.1:{stack.enter_context(relaying(port, trusted)).port}"
        yield stack.enter_context(closing(Server(process, url, folder)))


@contextmanager
def serving_tls(folder: Path, certificate: Path, **environment: str) -> Iterator[Server]:
    """The stock Hypercorn command with the certificate and key of a folder, which are localhost's."""
    trusted = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    with (
        _stock_hypercorn(_variables(folder, environment), certificate) as (process, url),
        closing(Server(process, url, folder, trusted)) as server,
    ):
        yield server


def _variables(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    return {"KOMAS_DATA_DIR": str(folder), "KOMAS_DIRECT_WRITES": DIRECT_WRITES.get(), **environment}


@contextmanager
def _stock_hypercorn(variables: dict[str, str], tls: Path | None = None) -> Iterator[tuple[Process, str]]:
    """The hypercorn command on a socket of ours: what it prints of its address is not ours to promise."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        file = listener.fileno()
        command = [sys.executable, "-m", "hypercorn", "--config", "hypercorn.toml", "--bind", f"fd://{file}"]
        if tls is not None:
            command += ["--certfile", str(tls / "certificate.pem"), "--keyfile", str(tls / "key.pem")]
        process = Process([*command, "komas.asgi:app"], variables, inherits=[file])
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"
    try:
        yield process, url
    finally:
        process.close()


class Exchange:
    """A simulated exchange, and the way to make it misbehave."""

    def __init__(self, ws_url: str, rest_url: str) -> None:
        self.ws_url = ws_url
        self.rest_url = rest_url

    def fault(self, **fault: object) -> None:
        """Order one fault."""
        httpx.post(f"{self.rest_url}/sim/faults", json=fault, timeout=PATIENCE_S).raise_for_status()

    def state(self) -> dict[str, object]:
        """``GET /sim/state``."""
        body: dict[str, object] = httpx.get(f"{self.rest_url}/sim/state", timeout=PATIENCE_S).json()
        return body


@contextmanager
def simulating(*arguments: str) -> Iterator[Exchange]:
    """``komas simulate`` on a free port."""
    with running(komas("simulate", "--bind", "127.0.0.1:0", *arguments)) as process:
        found = process.line(r"simulated exchange on (ws://\S+) and (http://\S+)")
        yield Exchange(found[1], found[2])


def as_admin(server: Server) -> dict[str, str]:
    """Headers with the admin token: a relay and a proxy do not speak for themselves."""
    return {"Authorization": f"Bearer {server.admin_token()}"}


def token_for(folder: Path, *options: str) -> str:
    """An access token for the server that keeps its data in a folder."""
    command = komas("token", "issue", "--user-id", "123", "--data-dir", str(folder), *options)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout.strip()


def wait_for(condition: Callable[[], object], what: str, timeout: float = PATIENCE_S) -> None:
    """Poll until something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def events(response: httpx.Response) -> Iterator[tuple[str, str, str]]:
    """Name, data and id of each event of a streamed response."""
    name, data, identity = "message", "", ""
    for line in response.iter_lines():
        if not line:
            if data:
                yield name, data, identity
            name, data, identity = "message", "", ""
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif line.startswith("id: "):
            identity = line.removeprefix("id: ")
