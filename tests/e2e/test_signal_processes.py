"""Several komas processes on one PostgreSQL: what one commits, the VIPs of all hear, at once, in order, each once."""

from __future__ import annotations

import json
import logging
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client
from websockets.sync.client import ClientConnection

from komas.model.signals import SignalInsert
from komas.signals import database as database_module
from komas.signals.database import SignalDatabase
from komas.signals.tokens import SCOPE_PUBLISH, Issuer, Rules
from tests.e2e.processes import PATIENCE_S, Server, serving, wait_for
from tests.postgresql import PostgreSQL, running_postgresql

log = logging.getLogger(__name__)

SECRET = "a secret of thirty-two bytes, and more"
ADMIN_TOKEN = "an-admin-token-of-sixteen"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
UNREACHABLE = "ws://127.0.0.1:9"  # nobody wants prices here
REVOKED_S = 0.5  # what is promised
AT_ONCE_S = 0.15  # looks alone took 200 to 360 ms; a notification takes a few


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    """A server of our own."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def processes(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[list[Server]]:
    """Two of them that listen, on an empty database."""
    postgresql.empty()
    with ExitStack() as stack:
        servers = [stack.enter_context(_process(postgresql, tmp_path / name)) for name in "ab"]
        for server in servers:
            wait_for(lambda server=server: _is_listening(server), "it listens")  # type: ignore[misc]
        yield servers


def _process(postgresql: PostgreSQL, folder: Path) -> AbstractContextManager[Server]:
    return serving(
        folder,
        KOMAS_DATABASE_URL=postgresql.url,
        KOMAS_JWT_SECRET=SECRET,
        KOMAS_ADMIN_TOKEN=ADMIN_TOKEN,
        KOMAS_UPSTREAM=UNREACHABLE,
        KOMAS_REQUEST_RATE="0",
    )


def _is_listening(server: Server) -> bool:
    return "\nkomas_signal_listening 1.0\n" in server.http.get("/metrics").text


def _token(user: str = "123") -> str:
    return Issuer(SECRET.encode(), Rules()).issue(
        user, now_s=int(time.time()), ttl_s=3600, vip_days=30, scopes=frozenset({SCOPE_PUBLISH})
    )


def _report(what: str, seconds: list[float]) -> None:
    log.info("%s: median %.1f ms, longest %.1f ms", what, statistics.median(seconds) * 1000, max(seconds) * 1000)


class Vip:
    """One VIP's socket, read by a thread; each event with the moment at which it was heard."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        assert json.loads(self._client.recv(timeout=PATIENCE_S))["type"] == "connected"
        self.heard: list[tuple[float, int, dict[str, object]]] = []
        self.closed: tuple[float, int, str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                message = json.loads(self._client.recv())
                if message["type"] in ("new_signal", "signal_update"):
                    self.heard.append((time.monotonic(), message["position"], message["data"]))
        except websockets.exceptions.ConnectionClosed as end:
            code, reason = (0, "cut") if end.rcvd is None else (end.rcvd.code, end.rcvd.reason)
            self.closed = time.monotonic(), code, reason

    @property
    def positions(self) -> list[int]:
        """Of what it heard, in its order."""
        return [position for _, position, _ in self.heard]

    def close(self) -> None:
        """Leave."""
        self._client.close()
        self._reader.join(PATIENCE_S)


@pytest.fixture
def vip() -> Iterator[Callable[..., Vip]]:
    """Lets VIPs in; they leave with the test."""
    with ExitStack() as stack:

        def enter(server: Server, user: str = "123") -> Vip:
            url = server.signals_url(_token(user), positions=1)
            entered = Vip(stack.enter_context(websockets.sync.client.connect(url, open_timeout=PATIENCE_S)))
            stack.callback(entered.close)
            return entered

        yield enter


def test_what_one_process_commits_is_heard_at_the_other_at_once(
    processes: list[Server], vip: Callable[..., Vip]
) -> None:
    """Signals and updates; the ways of both are compared."""
    here, there = (vip(server) for server in processes)
    token = _token()
    for number in range(1, 41):
        signal_id = processes[0].publish(token, number=number)
        wait_for(lambda number=number: len(there.heard) == 2 * number - 1, "it is heard")  # type: ignore[misc]
        answer = processes[0].http.patch(
            f"/api/signals/{signal_id}",
            json={"data": {"number": -number}},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text
        wait_for(lambda number=number: len(there.heard) == 2 * number, "it is heard")  # type: ignore[misc]
    wait_for(lambda: len(here.heard) == 80, "all is heard")
    assert here.positions == there.positions == list(range(1, 81))
    added = sorted(after[0] - before[0] for before, after in zip(here.heard, there.heard, strict=True))
    _report("added latency", added)
    assert statistics.median(added) < AT_ONCE_S


def test_a_revocation_at_one_process_closes_sockets_at_the_other_at_once(
    processes: list[Server], vip: Callable[..., Vip]
) -> None:
    """A grant lets in again; nobody else's socket is touched."""
    bystander = vip(processes[1], "bystander")
    took: list[float] = []
    for _ in range(10):
        there = vip(processes[1])
        began = time.monotonic()
        assert processes[0].http.delete("/api/vip/123", headers=AS_ADMIN).status_code == 200
        wait_for(lambda there=there: there.closed, "it is closed")  # type: ignore[misc]
        assert there.closed is not None
        assert there.closed[1:] == (1008, "VIP subscription required")
        took.append(there.closed[0] - began)
        assert processes[0].http.post("/api/vip/123", json={"days": 30}, headers=AS_ADMIN).status_code == 200
    _report("revocation", took)
    assert statistics.median(took) < REVOKED_S
    assert bystander.closed is None


def test_an_administrator_disconnects_a_socket_of_any_process(processes: list[Server], vip: Callable[..., Vip]) -> None:
    """A proxy passes the call to either; the other process has a socket of the same number, which stays."""
    ours, theirs = (vip(server) for server in processes)
    [session] = processes[1].http.get("/api/admin/sessions", headers=AS_ADMIN).json()["sessions"]
    answer = processes[0].http.delete(f"/api/admin/sessions/{session['id']}", headers=AS_ADMIN)
    assert (answer.status_code, answer.json()) == (202, {"passed_on": session["id"]})
    wait_for(lambda: theirs.closed, "it is closed")
    assert theirs.closed is not None
    assert theirs.closed[1:] == (1008, "Disconnected by an administrator")
    assert ours.closed is None
    assert processes[1].http.delete(f"/api/admin/sessions/{session['id']}", headers=AS_ADMIN).status_code == 404


def test_signals_that_both_processes_publish_at_once_come_once_and_in_order(
    processes: list[Server], vip: Callable[..., Vip]
) -> None:
    """To every VIP of both."""
    vips = [vip(server, user) for server in processes for user in ("1", "2")]
    token = _token()

    def publish(server: Server, first: int) -> None:
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
            for number in range(first, first + 125):
                body = {"signal_type": "mexc_dex", "data": {"number": number}}
                answer = http.post("/api/signals", json=body, headers={"Authorization": f"Bearer {token}"})
                assert answer.status_code == 201, answer.text

    threads = [
        threading.Thread(target=publish, args=(server, 250 * index + first))
        for index, server in enumerate(processes)
        for first in (0, 125)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in vips:
        wait_for(lambda each=each: len(each.heard) >= 500, "all is heard")  # type: ignore[misc]
    assert [each.positions for each in vips] == [list(range(1, 501))] * 4
    assert {data["number"] for _, _, data in vips[0].heard} == set(range(500))
    assert all([data for _, _, data in each.heard] == [data for _, _, data in vips[0].heard] for each in vips)


def test_a_restart_of_the_database_loses_nothing_and_doubles_nothing(
    postgresql: PostgreSQL, processes: list[Server], vip: Callable[..., Vip]
) -> None:
    """Producers try again with their keys; VIPs stay; both processes listen again, and hear at once."""
    vips = [vip(server) for server in processes]
    token = _token()
    refused = threading.Event()

    def publish() -> None:
        for number in range(60):
            while True:
                answer = processes[0].http.post(
                    "/api/signals",
                    json={"signal_type": "mexc_dex", "data": {"number": number}},
                    headers={"Authorization": f"Bearer {token}", "Idempotency-Key": f"{number}"},
                )
                if answer.status_code == 201:
                    break
                assert answer.status_code == 503, answer.text
                refused.set()
                time.sleep(0.1)
            time.sleep(0.02)

    publisher = threading.Thread(target=publish)
    publisher.start()
    wait_for(lambda: len(vips[1].heard) > 5, "some are heard")
    postgresql.stop()
    assert refused.wait(PATIENCE_S)
    for server in processes:
        wait_for(lambda server=server: not _is_listening(server), "the loss is known")  # type: ignore[misc]
    postgresql.start()
    publisher.join()
    for server, each in zip(processes, vips, strict=True):
        wait_for(lambda server=server: _is_listening(server), "it listens again")  # type: ignore[misc]
        wait_for(lambda each=each: len(each.heard) >= 60, "all is heard")  # type: ignore[misc]
    processes[0].publish(token, number=60)
    for each in vips:
        wait_for(lambda each=each: len(each.heard) >= 61, "the last is heard")  # type: ignore[misc]
        assert each.positions == list(range(1, 62))
        assert [data["number"] for _, _, data in each.heard] == list(range(61))
        assert each.closed is None


def test_what_was_committed_while_nobody_listened_is_found(
    postgresql: PostgreSQL, processes: list[Server], vip: Callable[..., Vip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a look: a release of before does not notify, and a listener may be cut off at the moment of a commit."""
    there = vip(processes[1])
    listening = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query IN ('', 'LISTEN komas')"
    postgresql.execute(f"{listening} AND backend_type = 'client backend'")
    processes[0].publish(_token(), number=1)
    wait_for(lambda: there.heard, "it is heard")
    wait_for(lambda: _is_listening(processes[1]), "it listens again")
    monkeypatch.setattr(database_module, "_told", lambda *_: iter(()))
    silent = SignalDatabase(postgresql.url)
    silent.open()
    silent.publish(SignalInsert("mexc_dex", {"number": 2}, "p"), 0)
    silent.close()
    wait_for(lambda: len(there.heard) == 2, "it is heard")
    assert there.positions == [1, 2]


def test_a_frozen_database_holds_up_neither_prices_nor_the_end_of_a_process(
    postgresql: PostgreSQL, processes: list[Server], vip: Callable[..., Vip]
) -> None:
    """Asked to stop while the listener, and whoever looks, wait for an answer that does not come."""
    vip(processes[0])
    with postgresql.frozen():
        time.sleep(1)
        assert processes[0].http.get("/healthz").status_code == 200
        processes[0].process.signal(signal.SIGTERM)
        assert processes[0].process.ended() == 0
    processes[1].publish(_token(), number=1)
