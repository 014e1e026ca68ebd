"""nginx before the nodes, with the settings of ``deploy/nginx.cluster.conf``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.cluster.programs import Program
from benchmarks.cluster.servers import free_port

SETTINGS: Final = Path(__file__).resolve().parents[2] / "deploy" / "nginx.cluster.conf"
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def balancer_command() -> str | None:
    """nginx, if there is one."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Balancer(Program):
    """One nginx, which sends each newcomer to the node with fewest connections."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.port = free_port()
        command = balancer_command()
        assert command is not None
        own = folder / "nginx"
        own.mkdir()
        settings = own / "nginx.conf"
        settings.write_text(_settings(SETTINGS.read_text("utf-8"), own, self.port, ports), "utf-8")
        super().__init__((command, "-e", "stderr", "-p", str(own), "-c", str(settings)), folder, "nginx")


def _settings(text: str, folder: Path, port: int, ports: Sequence[int]) -> str:
    servers = "\n".join(f"        server 127.0.0.1:{each} max_fails=0;" for each in ports)
    text = re.sub(r"(?: *server komas-\d+:8000 max_fails=0;\n)+", f"{servers}\n", text)
    text = text.replace("listen 8000;", f"listen 127.0.0.1:{port};")
    return with_own_files(text, folder)


def with_own_files(text: str, folder: Path) -> str:
    """A whole configuration of nginx, which then stays in the foreground, and writes into a folder of its own."""
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _TEMPORARY)
    return f"daemon off; pid {folder}/pid;\n{text.replace('http {', f'http {{ {temporary}', 1)}"
