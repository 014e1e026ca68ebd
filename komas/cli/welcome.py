"""What ``komas serve`` prints once it listens: where, and how to try it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from komas.cli.signals import demo_token
from komas.settings import Settings
from komas.web.socket_file import UNIX


def welcome(settings: Settings, binds: Sequence[str]) -> list[str]:
    """The lines; ``binds`` are as Hypercorn has them: ``http://127.0.0.1:8000``, ``http://unix:/run/komas.sock``."""
    lines = [f"komas listens on {_shown(bind)}" for bind in binds]
    if not settings.demo:
        return lines
    url, curl = next((each for each in map(_reached, binds) if each[1] == "curl"), _reached(binds[0]))
    is_page = curl == "curl"
    symbols = ",".join(settings.default_symbols[:2])
    lines += [
        f"simulated prices, no account needed; {f'open {url}/ in a browser, or ' if is_page else ''}run:",
        f"  {curl} -N '{url}/api/ws/sse/prices?symbols={symbols}'",
    ]
    if is_page and (token := demo_token(settings)) is not None:
        lines += [
            "simulated signals, for VIPs; with this token, which is good for a day:",
            f"  komas watch signals --server {url} --token {token}",
        ]
    return [
        *lines,
        "for komas token, vip and signal to work on the demo's data:",
        f"  export KOMAS_DATA_DIR={shlex.quote(str(settings.data_dir))}",
    ]


def _shown(bind: str) -> str:
    url, curl = _reached(bind)
    return bind if curl == "curl" else f"{bind.partition('://')[2]}; {curl} {url}/readyz"


def _reached(bind: str) -> tuple[str, str]:
    """The address to ask, and the command that does."""
    scheme, _, place = bind.partition("://")
    if not place.startswith(UNIX):
        return bind, "curl"
    return f"{scheme}://localhost", f"curl --unix-socket {shlex.quote(place.removeprefix(UNIX))}"
