"""Real proxies in front of a real server: as they come, as ``deploy/`` sets them up, and a relay of bytes."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, running, wait_for

DEPLOY = ROOT / "deploy"
DOOR = "127.0.0.1:8000"  # where the files of deploy/ expect komas


def _nginx(folder: Path, site: str) -> list[str]:
    (folder / "site.conf").write_text(site)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/site.conf; }}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def nginx_as_it_comes(folder: Path, port: int, server: int) -> list[str]:
    """What everybody writes who has not read us."""
    place = f"location / {{ proxy_pass http://127.0.0.1:{server}; }}"
    return _nginx(folder, f"server {{ listen 127.0.0.1:{port}; {place} }}\n")


def nginx_under_a_prefix(folder: Path, port: int, server: int) -> list[str]:
    """One of several programs behind one name."""
    place = f"location /komas/ {{ proxy_pass http://127.0.0.1:{server}/; }}"
    return _nginx(folder, f"server {{ listen 127.0.0.1:{port}; {place} }}\n")


def nginx_of_ours(folder: Path, port: int, server: int) -> list[str]:
    """``deploy/nginx.conf``; only the addresses are others."""
    text = (DEPLOY / "nginx.conf").read_text("utf-8").replace(DOOR, f"127.0.0.1:{server}")
    return _nginx(folder, text.replace("listen 80;", f"listen 127.0.0.1:{port};"))


def _haproxy(folder: Path, text: str) -> list[str]:
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-f", str(folder / "haproxy.cfg")]


def haproxy_as_it_comes(folder: Path, port: int, server: int, *, option: str = "") -> list[str]:
    """It passes on what the client wrote, and nothing else."""
    times = "timeout connect 5s\n timeout client 1m\n timeout server 1m"
    front = f"frontend web\n bind 127.0.0.1:{port}\n default_backend komas\n"
    back = f"backend komas\n {option}\n server komas 127.0.0.1:{server}\n"
    return _haproxy(folder, f"defaults\n mode http\n {times}\n{front}{back}")


def haproxy_forwardfor(folder: Path, port: int, server: int) -> list[str]:
    """With the client's address."""
    return haproxy_as_it_comes(folder, port, server, option="option forwardfor")


def haproxy_of_ours(folder: Path, port: int, server: int) -> list[str]:
    """``deploy/haproxy.cfg``; only the addresses are others."""
    text = (DEPLOY / "haproxy.cfg").read_text("utf-8").replace(DOOR, f"127.0.0.1:{server}")
    return _haproxy(folder, text.replace("bind :80", f"bind 127.0.0.1:{port}"))


def caddy_of_ours(folder: Path, port: int, server: int) -> list[str]:
    """``deploy/Caddyfile``; only the addresses are others, and nothing is kept elsewhere."""
    text = (DEPLOY / "Caddyfile").read_text("utf-8").replace(DOOR, f"127.0.0.1:{server}")
    return _caddy(folder, text.replace("\nhttp:// {\n", f"\nhttp://:{port} {{\n\tbind 127.0.0.1\n"))


def caddy_that_compresses(folder: Path, port: int, server: int) -> list[str]:
    """One line more than as it comes; it takes no notice of ``no-transform``."""
    site = f"http://:{port} {{\n\tbind 127.0.0.1\n\tencode gzip\n\treverse_proxy 127.0.0.1:{server}\n}}\n"
    return _caddy(folder, site)


def _caddy(folder: Path, site: str) -> list[str]:
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


_RELAY = """
import socket, sys, threading

def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass

def serve(client):
    with client, socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as server:
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()

with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def relay_of_bytes(folder: Path, port: int, server: int) -> list[str]:
    """As stunnel, an SSH tunnel or a container's port forward."""
    (folder / "relay.py").write_text(_RELAY)
    return [sys.executable, str(folder / "relay.py"), str(port), str(server)]


Proxy = Callable[[Path, int, int], list[str]]
AS_THEY_COME: tuple[Proxy, ...] = (nginx_as_it_comes, haproxy_as_it_comes, haproxy_forwardfor, relay_of_bytes)
OF_OURS: tuple[Proxy, ...] = (nginx_of_ours, haproxy_of_ours, caddy_of_ours)


@contextmanager
def proxying(proxy: Proxy, folder: Path, server: int) -> Iterator[int]:
    """A proxy in front of a server's port while the block lasts; yields its own port."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]  # none of these programs can be handed a socket, or told to choose
    command = proxy(folder, port, server)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with running(command, {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}) as process:
        wait_for(lambda: _accepts(port) or not process.is_alive(), "the proxy")
        assert process.is_alive(), process.output
        yield port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
