"""Real proxies in front of a real server: as they come, as ``deploy/`` sets them up, and a relay of bytes."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.cluster.balancer import with_own_files
from tests.e2e.processes import ROOT, running, wait_for

DEPLOY = ROOT / "deploy"
DOOR = "127.0.0.1:8000"  # where the files of deploy/ expect komas


def _nginx(folder: Path, site: str) -> list[str]:
    (folder / "site.conf").write_text(site)
    return _whole_nginx(
        folder, f"error_log stderr; events {{}}\nhttp {{ access_log off; include {folder}/site.conf; }}\n"
    )


def _whole_nginx(folder: Path, text: str) -> list[str]:
    """A whole configuration; what it writes goes to the folder."""
    (folder / "nginx.conf").write_text(with_own_files(text, folder))
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def nginx_as_it_comes(folder: Path, port: int, server: int) -> list[str]:
    """What everybody writes who has not read us."""
    place = f"location / {{ proxy_pass http://127.0.0.1:{server}; }}"
    return _nginx(folder, f"server {{ listen 127.0.0.1:{port}; {place} }}\n")


def nginx_under_a_prefix(folder: Path, port: int, server: int) -> list[str]:
    """One of several programs behind one name."""
    place = f"location /komas/ {{ proxy_pass http://127.0.0.1:{server}/; }}"
    return _nginx(folder, f"server {{ listen 127.0.0.1:{port}; {place} }}\n")


def _ours(file: str, *changes: tuple[str, str]) -> str:
    """A file of ``deploy/``; each change must find what it changes."""
    text = (DEPLOY / file).read_text("utf-8")
    for old, new in changes:
        assert old in text, f"{file} has no {old!r}"
        text = text.replace(old, new)
    return text


def nginx_of_ours(folder: Path, port: int, server: int | Path) -> list[str]:
    """``deploy/nginx.conf`` without TLS; otherwise only the addresses are others."""
    to_tls, site = "    listen 80;\n", "listen 443 ssl http2;"
    text = _ours(
        "nginx.conf",
        (DOOR, f"unix:{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"),
        (to_tls, f"    listen unix:{folder}/to-tls;\n"),
        (site, f"listen 127.0.0.1:{port};"),
    )
    return _nginx(folder, re.sub(r" *ssl_certificate.*\n", "", text))


def nginx_of_workers(upstream: str) -> Callable[[Path, int, int], list[str]]:
    """``nginx_of_ours`` with the block that ``komas serve --workers`` printed; the server's port is in there."""

    def proxy(folder: Path, port: int, _server: int) -> list[str]:
        command = nginx_of_ours(folder, port, 0)
        site = folder / "site.conf"
        text, changed = re.subn(r"upstream komas \{.*?\n\}", upstream, site.read_text("utf-8"), flags=re.DOTALL)
        assert changed == 1
        site.write_text(text)
        return command

    return proxy


def nginx_of_cluster(folder: Path, port: int, server: int) -> list[str]:
    """``deploy/nginx.cluster.conf``; all processes are at one port."""
    names = ((f"komas-{number}:8000", f"127.0.0.1:{server}") for number in (1, 2, 3))
    changes = (*names, ("listen 8000;", f"listen 127.0.0.1:{port};"), ("worker_rlimit_nofile 65536;", ""))
    return _whole_nginx(folder, _ours("nginx.cluster.conf", *changes))


def nginx_over_tls(folder: Path, port: int, server: int | Path) -> list[str]:
    """``deploy/nginx.conf`` with the certificate of the folder; the plain door is at the next port."""
    text = _ours(
        "nginx.conf",
        (DOOR, f"unix:{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"),
        ("listen 80;", f"listen 127.0.0.1:{port + 1};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/letsencrypt/live/komas.example/fullchain.pem", str(folder / "certificate.pem")),
        ("/etc/letsencrypt/live/komas.example/privkey.pem", str(folder / "key.pem")),
    )
    return _nginx(folder, text)


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


def haproxy_of_ours(folder: Path, port: int, server: int | Path) -> list[str]:
    """``deploy/haproxy.cfg`` without TLS; otherwise only the addresses are others."""
    text = _ours(
        "haproxy.cfg",
        (DOOR, str(server) if isinstance(server, Path) else f"127.0.0.1:{server}"),
        ("timeout http-request 10s", "timeout http-request 1m"),  # a slow machine is no rude client
        ("bind :80", f"bind 127.0.0.1:{port}"),
        ("    bind :443 ssl crt /etc/haproxy/komas.pem alpn h2,http/1.1\n", ""),
        ("    http-request redirect scheme https code 301 unless { ssl_fc }\n", ""),
    )
    return _haproxy(folder, text)


def haproxy_over_tls(folder: Path, port: int, server: int | Path) -> list[str]:
    """``deploy/haproxy.cfg`` with the certificate of the folder; the plain door is at the next port."""
    both = folder / "both.pem"
    both.write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
    text = _ours(
        "haproxy.cfg",
        (DOOR, str(server) if isinstance(server, Path) else f"127.0.0.1:{server}"),
        ("timeout http-request 10s", "timeout http-request 1m"),  # a slow machine is no rude client
        ("bind :80", f"bind 127.0.0.1:{port + 1}"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/komas.pem", str(both)),
    )
    return _haproxy(folder, text)


def caddy_of_ours(folder: Path, port: int, server: int | Path) -> list[str]:
    """``deploy/Caddyfile`` without TLS; otherwise only the addresses are others, and nothing is kept elsewhere."""
    return _caddy(folder, _caddyfile(f"http://:{port} {{\n\tbind 127.0.0.1\n", server))


def caddy_over_tls(folder: Path, port: int, server: int | Path) -> list[str]:
    """``deploy/Caddyfile`` with the certificate of the folder; the plain door is at the next port."""
    site = f"komas.example {{\n\tbind 127.0.0.1\n\ttls {folder}/certificate.pem {folder}/key.pem\n"
    return _caddy(folder, _caddyfile(site, server), f"\thttps_port {port}\n\thttp_port {port + 1}\n")


def _caddyfile(site: str, server: int | Path) -> str:
    door = f"unix/{server}" if isinstance(server, Path) else f"127.0.0.1:{server}"
    return _ours("Caddyfile", (DOOR, door), ("\nkomas.example {\n", f"\n{site}"))


def caddy_that_compresses(folder: Path, port: int, server: int) -> list[str]:
    """One line more than as it comes; it takes no notice of ``no-transform``."""
    site = f"http://:{port} {{\n\tbind 127.0.0.1\n\tencode gzip\n\treverse_proxy 127.0.0.1:{server}\n}}\n"
    return _caddy(folder, site)


def _caddy(folder: Path, site: str, options: str = "") -> list[str]:
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n{options}}}\n{site}")
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
OurProxy = Callable[[Path, int, int | Path], list[str]]  # to a port, or to a Unix socket
AS_THEY_COME: tuple[Proxy, ...] = (nginx_as_it_comes, haproxy_as_it_comes, haproxy_forwardfor, relay_of_bytes)
OF_OURS: tuple[OurProxy, ...] = (nginx_of_ours, haproxy_of_ours, caddy_of_ours)
OVER_TLS: tuple[OurProxy, ...] = (nginx_over_tls, haproxy_over_tls, caddy_over_tls)

S = TypeVar("S", int, int | Path)


@contextmanager
def proxying(proxy: Callable[[Path, int, S], list[str]], folder: Path, server: S) -> Iterator[int]:
    """A proxy in front of a server's port while the block lasts; yields its own port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _two_free_ports()
    command = proxy(folder, port, server)
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with running(command, {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}) as process:
        wait_for(lambda: _accepts(port) or not process.is_alive(), "the proxy")
        assert process.is_alive(), process.output
        yield port


def _two_free_ports() -> int:
    """The first of two: none of these programs can be handed a socket, or told to choose."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as taken, suppress(OSError):
            port: int = taken.getsockname()[1]
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port


def trusting(folder: Path) -> ssl.SSLContext:
    """The side of a client; of one, for it keeps what that client offers."""
    return ssl.create_default_context(cafile=str(folder / "certificate.pem"))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
