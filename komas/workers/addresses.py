"""Where each of several workers listens, and how nginx is told of all of them. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from komas.errors import SettingError
from komas.settings import Settings

UNIX: Final = "unix:"
LAST_PORT: Final = 65_535

NAME_LENGTH: Final = 64  # of a node

# What a server in front of us connects to where we listen on every address of the machine.
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - words to look for

# One dead worker refuses at once, so there is nothing to gain by leaving it out for the ten seconds of a default: it is
# back sooner, and while the next one is restarted nobody would be left.
_SERVER: Final = "    server {} max_fails=0;"


def check(settings: Settings) -> None:
    """Refuse what several workers cannot share; raises ``SettingError``."""
    if settings.demo:
        raise _cannot("the demo is one process with an exchange of its own; try `komas simulate` beside --upstream")
    if not settings.backplane:
        raise _cannot(
            "several processes share one exchange feed over Redis or Valkey: give --backplane redis://host:port, or"
            " leave --workers out"
        )
    addresses(settings.bind, settings.workers)


def addresses(binds: Sequence[str], workers: int) -> list[tuple[str, ...]]:
    """The addresses of each worker: the next ports, or a file each; raises ``SettingError``."""
    all_of_them = [tuple(_address_of(bind, number) for bind in binds) for number in range(workers)]
    seen = set[str]()
    for bind in (bind for each in all_of_them for bind in each):
        if bind in seen:
            raise _cannot(f"{bind} would be the address of two workers: --bind needs {workers} free ports behind each")
        seen.add(bind)
    return all_of_them


def nginx_upstream(settings: Settings) -> list[str]:
    """The block of nginx that fits, in lines; it takes the place of the one in ``deploy/nginx.conf``."""
    doors = [each[0] for each in addresses(settings.bind, settings.workers)]
    lines = [
        "upstream komas {",
        "    zone komas_workers 64k;  # all processes of nginx count together",
        "    least_conn;",
        *(_SERVER.format(_reached(door)) for door in doors),
        "}",
    ]
    if settings.trusted_proxies or doors[0].startswith(UNIX):
        return lines
    return [*lines, "# and for komas: KOMAS_TRUSTED_PROXIES=127.0.0.1, or all clients behind nginx count as one"]


def _address_of(bind: str, number: int) -> str:
    if bind.startswith(UNIX):
        path = PurePosixPath(bind.removeprefix(UNIX))
        return f"{UNIX}{path.with_name(f'{path.stem}.{number}{path.suffix}')}"
    host, _, port = bind.rpartition(":")
    if int(port) == 0:
        raise _cannot(f"{bind}: a proxy must know the ports; with --bind {host}:8000 they are 8000, 8001, ...")
    if int(port) + number > LAST_PORT:
        raise _cannot(f"{bind}: there is no port {int(port) + number}")
    return f"{host}:{int(port) + number}"


def _reached(bind: str) -> str:
    if bind.startswith(UNIX):
        return bind
    host, _, port = bind.rpartition(":")
    return f"{_EVERYWHERE.get(host, host)}:{port}"


def node_name(base: str, number: int) -> str:
    """What a worker is called among the nodes; raises ``SettingError`` where that is too long."""
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', base)}-{number}"
    if len(name) > NAME_LENGTH:
        raise _cannot(f"node_name {base} is too long: with the worker's number it has at most {NAME_LENGTH} letters")
    return name


def _cannot(reason: str) -> SettingError:
    return SettingError(f"workers: {reason}", field="workers")
