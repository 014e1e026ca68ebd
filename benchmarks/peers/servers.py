"""Peers of ``komas serve``: the same trades from the same feeder, to the same crowd."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.feeder import NS, SYMBOL, Order, Pace
from benchmarks.machine import pin
from benchmarks.peers.event import SOURCE, envelope
from benchmarks.processes import START_S, stop

ROOT: Final = Path(__file__).resolve().parents[2]
NCHAN: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")  # Debian's libnginx-mod-nchan
NGINX: Final = """
load_module {module};
daemon off; worker_processes 1; worker_rlimit_nofile 65536; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 60000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  nchan_shared_memory_size {memory};
  {upstream}
  server {{
    listen 127.0.0.1:{port} {secured} backlog=4096;
    {more}
    location = /publish {{ nchan_publisher; nchan_channel_id trades; nchan_message_buffer_length 4096; {way} }}
    location = /api/ws/sse/trades {{
      nchan_subscriber eventsource; nchan_channel_id trades; nchan_subscriber_first_message newest; {way}
    }}
  }}
}}
"""
SECURED: Final = """listen 127.0.0.1:{publishing};
    ssl_certificate {certificates}/certificate.pem; ssl_certificate_key {certificates}/key.pem;"""
UPSTREAM: Final = 'upstream store {{ nchan_redis_server "redis://127.0.0.1:{port}"; }}'


def has_fastapi() -> bool:
    """Whether the extra ``bench`` is installed."""
    return all(importlib.util.find_spec(name) for name in ("fastapi", "sse_starlette", "uvicorn"))


def has_nchan() -> bool:
    """Whether Debian's nginx and libnginx-mod-nchan are installed."""
    return shutil.which("nginx") is not None and NCHAN.is_file()


@contextmanager
def uvicorn(
    core: int | None,
    source_port: int,
    *,
    app: str = "fastapi_app",
    variable: str = SOURCE,
    certificates: Path | None = None,
) -> Iterator[tuple[int, int]]:
    """FastAPI under uvicorn, with uvloop and httptools, over TLS if asked to; yields its process and port."""
    port = free_port()
    options = f"--port {port} --no-access-log --log-level warning --loop uvloop --http httptools".split()
    if certificates is not None:
        options += ["--ssl-certfile", f"{certificates}/certificate.pem", "--ssl-keyfile", f"{certificates}/key.pem"]
    app = f"benchmarks.peers.{app}:app"
    with _running(core, {variable: str(source_port)}, port, "uvicorn", app, *options) as pid:
        yield pid, port


@contextmanager
def komas_tls(core: int | None, certificates: Path, variables: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Komas under the stock Hypercorn command, with a certificate; yields its process and port."""
    port = free_port()
    pair = ("--certfile", f"{certificates}/certificate.pem", "--keyfile", f"{certificates}/key.pem")
    command = ("--config", str(ROOT / "hypercorn.toml"), "--bind", f"127.0.0.1:{port}", *pair, "komas.asgi:app")
    own = {**variables, "KOMAS_DATA_DIR": f"{certificates}/data-{port}"}
    with _running(core, own, port, "hypercorn", *command) as pid:
        yield pid, port


@contextmanager
def hypercorn(core: int | None, source_port: int) -> Iterator[tuple[int, int]]:
    """Quart-Trio under Hypercorn; yields its process and port."""
    port = free_port()
    options = ("--worker-class", "trio", "--workers", "0", "--bind", f"127.0.0.1:{port}")
    with _running(
        core, {SOURCE: str(source_port)}, port, "hypercorn", *options, "benchmarks.peers.quart_app:app"
    ) as pid:
        yield pid, port


@contextmanager
def _running(core: int | None, variables: Mapping[str, str], port: int, module: str, *arguments: str) -> Iterator[int]:
    environment = {**os.environ, **variables}
    with TemporaryDirectory(prefix="komas-bench-") as folder, (Path(folder) / "log").open("wb") as log:
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            pin(process.pid, core)
            _await_port(process, port, Path(folder) / "log")
            yield process.pid
        finally:
            stop(process)


@contextmanager
def nginx(
    core: int | None, store_port: int = 0, *, certificates: Path | None = None, publishing: int = 0
) -> Iterator[tuple[int, int]]:
    """Nginx with nchan, one worker, messages in a Redis if there is one; yields the worker's process and the port.

    Over TLS if asked to: then a port of its own is for who publishes, without.
    """
    with TemporaryDirectory(prefix="komas-bench-") as folder, (Path(folder) / "log").open("wb") as log:
        Path(folder).chmod(0o777)  # the worker may be another user
        port, conf = free_port(), Path(folder) / "nginx.conf"
        upstream, way = (UPSTREAM.format(port=store_port), "nchan_redis_pass store;") if store_port else ("", "")
        memory = "512M"
        names = {"module": NCHAN, "folder": folder, "port": port, "memory": memory, "upstream": upstream, "way": way}
        names["secured"] = "" if certificates is None else "ssl"
        names["more"] = "" if certificates is None else SECURED.format(publishing=publishing, certificates=certificates)
        conf.write_text(NGINX.format(**names))
        command = ["nginx", "-c", str(conf), "-e", f"{folder}/error.log"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _await_port(process, port, Path(folder) / "error.log")
            while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
                time.sleep(0.02)  # it listens before it has a worker
            for pid in (process.pid, *map(int, children)):
                pin(pid, core)
            yield int(children[0]), port
        finally:
            stop(process)


def publish(pipe: Connection, port: int) -> None:
    """Say the port; take an ``Order``, publish each trade at its time by POST, answer with ``Sent``."""
    pipe.send(port)
    order = pipe.recv()
    assert isinstance(order, Order)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pace = Pace(order)
    while not pace.is_over:
        time.sleep(pace.wait_s())
        trade_id, stamp_ns = pace.leave()
        quantity = f"{stamp_ns // NS}.{stamp_ns % NS:09}"
        trade = {"s": SYMBOL, "t": trade_id, "p": "61837.63000000", "q": quantity, "E": 1_795_232_630_048}
        connection.request("POST", "/publish", envelope(trade))
        connection.getresponse().read()
    pipe.send(pace.sent())
    pipe.poll(None)


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as subscription:
        port: int = subscription.getsockname()[1]
        return port


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"a peer did not start: {log.read_text()[-2000:]}")
