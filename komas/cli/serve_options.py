"""The options of ``komas serve``: every setting, in groups for those who read ``--help``."""

from __future__ import annotations

import argparse
from typing import Final

from komas.settings import ALIASES, FIELDS, SECRETS, Settings, variable_of

OTHERS: Final = "other settings"
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "start": ("demo", "data_dir", "config", "default_symbols"),
    "listening": (
        "bind", "unix_socket_mode", "trusted_proxies", "heartbeat_s", "graceful_timeout_s", "drain_delay_s",
        "websocket_ping_s", "direct_writes", "gather_above",
    ),
    "exchange": (
        "binance_upstream", "binance_rest_upstream", "binance_usdm_upstream", "binance_usdm_rest_upstream",
        "connect_wait_s", "reconnect_attempts", "reconnect_max_s", "refused_max_s", "streams_per_connection",
        "redundancy", "backfill_s", "linger_s",
    ),
    "access": ("admin_token", "cors_origins"),
    "tokens": (
        "jwt_secret", "jwt_algorithm", "jwt_public_key", "jwt_jwks_url", "jwt_issuer", "jwt_audience", "jwt_leeway_s",
    ),
    "signals": ("database_url", "signal_types"),
    "several processes": (
        "backplane", "backplane_prefix", "backplane_window_ms", "role", "node_name", "lease_s", "standby",
        "workers",
    ),
    "limits": (
        "max_streams", "max_streams_per_address", "max_books_per_address", "max_symbols", "max_sse",
        "max_sse_per_address", "request_rate", "request_burst", "max_connections", "max_connections_per_address",
        "mailbox", "journal", "history_bytes", "signal_mailbox", "max_sockets", "max_sockets_per_address",
        "max_sockets_per_user",
    ),
    "logs": ("log_level", "log_format", "log_days"),
}  # fmt: skip
_EPILOG: Final = (
    "Each setting is also a variable, in brackets, and a key of komas.toml in the working folder: --log-level,"
    " KOMAS_LOG_LEVEL, log_level. An option beats a variable beats the file. docs/operations.md has them all."
)


def add_settings_to(parser: argparse.ArgumentParser) -> None:
    """Every setting as an option, and the older names of some."""
    parser.usage, parser.epilog = "%(prog)s [OPTION VALUE] ...", _EPILOG
    grouped = [key for keys in GROUPS.values() for key in keys]
    rest = tuple(key for key in FIELDS if key not in grouped)
    for title, keys in (*GROUPS.items(), (OTHERS, rest)):
        if keys:
            group = parser.add_argument_group(title)
            for key in keys:
                _add(group, key)
    for older in ALIASES:
        parser.add_argument(_option(older), metavar="VALUE", help=argparse.SUPPRESS)


def given_settings(options: argparse.Namespace) -> dict[str, str | None]:
    """What the options said, as ``settings.load()`` takes it."""
    return {key: getattr(options, key) for key in (*FIELDS, *ALIASES)}


def _add(group: argparse._ArgumentGroup, key: str) -> None:
    field = FIELDS[key]
    if key == "demo":
        text = f"{field.meaning} [{variable_of(key)}]"
        group.add_argument(_option(key), action="store_const", const="true", help=text)
        return
    default = _default(key)
    text = f"{field.meaning} ({field.accepts}) [{variable_of(key)}{f'; default {default}' if default else ''}]"
    group.add_argument(_option(key), metavar="VALUE", help=text.replace("%", "%%"))


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _default(key: str) -> str:
    """The default as one would write it; empty for none, and for those that depend on something else."""
    value = getattr(Settings(), key)
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case float():
            return f"{value:g}"
        case _:
            return "" if key in SECRETS else str(value)
