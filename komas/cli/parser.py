"""What is wrong with a command line, in one line, and what it may have been meant to say."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

WRONG_USAGE: Final = 2
ALL_INTERFACES: Final = "0.0.0.0"  # noqa: S104 - a word to look for, not an address to listen on
LOOPBACK: Final = "127.0.0.1"
PORT: Final = 8000
PORTS: Final = range(1, 65_536)

# What other programs call it. Those of the address are put together below.
_PORT: Final = ("--port", "-p")
_HOST: Final = ("--host", "--hostname", "--ip", "-b")
_ADDRESS: Final = ("--listen", "--address", "--addr", "-l")
_TCP: Final = (*_PORT, *_HOST)
_OTHER_NAMES: Final = {
    "-v": "--log-level DEBUG",
    "--verbose": "--log-level DEBUG",
    "--debug": "--log-level DEBUG",
    "--quiet": "--log-level WARNING",
    "--url": "--server",
    "-o": "--overwrite",
    "-f": "--overwrite",
    "--force": "--overwrite",
}
_VERBS: Final = {"help": "--help", "version": "--version", "start": "serve", "run": "serve", "demo": "serve --demo"}


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with a hint."""

    def error(self, message: str) -> NoReturn:
        """Say it in one line."""
        self.exit(WRONG_USAGE, f"{self.prog}: {message}\n")

    def parse_known_args(  # type: ignore[override]  # typeshed has overloads for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; whatever is not known is an error of the innermost verb, which knows its own options best."""
        given = sys.argv[1:] if args is None else list(args)
        if verbs := [name for action in self._actions for name in _verbs_of(action)]:
            self._check_verb(given, verbs)
        options, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown, given)}")
        return options, unknown

    def _check_verb(self, given: Sequence[str], known: Sequence[str]) -> None:
        if not given:
            self.error(f"say which: {' '.join(known)}")
        first = given[0]
        if first in self._option_string_actions or first in known:
            return
        if first.startswith("-"):
            self.error(f"unrecognized arguments: {first}; options go behind one of {' '.join(known)}")
        close = _VERBS.get(first) if self.prog == "komas" else None
        close = close or _closest(first, known)
        hint = f"; did you mean {self.prog} {close}?" if close else f" (choose from {' '.join(known)})"
        self.error(f"invalid choice: {first[:40]!r}{hint}")

    def _hint(self, unknown: Sequence[str], given: Sequence[str]) -> str:
        if _values(given).get("--bind", "").startswith("unix:") and any(name in _values(unknown) for name in _TCP):
            return "; a Unix socket has no host and no port"
        known = [name for name in self._option_string_actions if name.startswith("--")]
        if (meant := _address(unknown, known)) is None:
            first = next((word for word in unknown if word.startswith("-")), "")
            name, equals, value = first.partition("=")
            meant = _OTHER_NAMES.get(name, "")
            meant = meant if meant.partition(" ")[0] in known else _closest(name, known) or ""
            meant += f"{equals}{value}" if meant and " " not in meant else ""
        return f"; did you mean {meant}?" if meant else f"; {self.prog} --help lists what there is"


def _verbs_of(action: argparse.Action) -> list[str]:
    """The verbs that an action chooses between: their parsers by name, where an option's choices are a sequence."""
    return list(action.choices) if isinstance(action.choices, Mapping) else []


def _closest(word: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def _address(unknown: Sequence[str], known: Sequence[str]) -> str | None:
    """The address that ``--host`` and ``--port`` mean, as our own option; ``None`` where they are not asked for."""
    values = _values(unknown)
    port = next((values[name] for name in _PORT if name in values), None)
    host = next((values[name] for name in _HOST if name in values), None)
    address = next((values[name] for name in _ADDRESS if name in values), None)
    if port is None and host is None and address is None:
        return None
    if address is None:
        port = port if port and port.isascii() and port.isdigit() and int(port[:6]) in PORTS else str(PORT)
        host = f"[{host}]" if host and ":" in host and not host.startswith("[") else host
        address = f"{host or LOOPBACK}:{port}"
    elif address.startswith(":") or address.isdigit():
        address = f"{LOOPBACK}:{address.removeprefix(':')}"
    if "--bind" in known:
        return f"--bind {address}"
    return f"--server http://{address.replace(ALL_INTERFACES, LOOPBACK)}" if "--server" in known else None


def _values(words: Sequence[str]) -> dict[str, str]:
    """What stands behind each option: ``--port 9000``, ``--port=9000``, ``-p9000``."""
    values: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if word.startswith("-p") and word[2:].isdigit():
            name, value = "-p", word[2:]
        if name.startswith("-"):
            values[name] = value if equals or value else "" if following.startswith("-") else following
    return values
