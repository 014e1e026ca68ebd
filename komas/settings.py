"""Settings: option beats ``KOMAS_*`` variable beats ``komas.toml`` beats default; validated once, then frozen.

Every setting is one row of ``FIELDS``: how its text is read, and what is accepted, in words. A wrong value is a
``SettingError`` whose one line names the key, what was given and what is accepted.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import platformdirs

from komas.errors import CallerError, SettingError
from komas.model import origins
from komas.model.addresses import parse_network
from komas.model.origins import parse_pattern
from komas.model.streams import parse_symbol

SETTINGS_FILE: Final = "komas.toml"
ENVIRONMENT_PREFIX: Final = "KOMAS_"
DEMO_FOLDER: Final = "demo"
MOST_WORKERS: Final = 128
CLOSING_S: Final = 5.0  # to close what is behind the web layer, on a slow machine
TOKEN_LENGTH: Final = 16  # shorter admin tokens can be guessed over a fast network
SECRET_BYTES: Final = 32  # RFC 7518, 3.2: an HS256 key is at least as long as the hash

# Connections beside those of SSE clients and signal sockets: of requests, and of clients that are on their way out.
OTHER_CONNECTIONS: Final = 5000
OTHER_CONNECTIONS_PER_ADDRESS: Final = 424  # 1024 in all, by default

# Roles of one process of many, beside the default.
FEED: Final = "feed"  # leads, and is not for readers
EDGE: Final = "edge"  # for readers, and never leads

# What a setting was called before there were several markets; both names are read.
ALIASES: Final = {
    "upstream": "binance_upstream",
    "rest_upstream": "binance_rest_upstream",
    "futures_upstream": "binance_usdm_upstream",
    "futures_rest_upstream": "binance_usdm_rest_upstream",
}

# What other servers call it.
_OTHER_NAMES: Final = {"port": "bind", "host": "bind", "listen": "bind", "address": "bind"}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one komas process was told. Times are in seconds."""

    bind: tuple[str, ...] = ("127.0.0.1:8000",)
    unix_socket_mode: str = "660"
    binance_upstream: str = ""
    binance_rest_upstream: str = ""
    binance_usdm_upstream: str = ""
    binance_usdm_rest_upstream: str = ""
    data_dir: Path | None = None
    demo: bool = False
    config: Path | None = None
    admin_token: str = ""
    cors_origins: tuple[str, ...] = ("*",)
    trusted_proxies: tuple[str, ...] = ()
    default_symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT")
    heartbeat_s: float = 15.0
    linger_s: float = 30.0
    connect_wait_s: float = 10.0
    graceful_timeout_s: float = 5.0
    drain_delay_s: float = 0.0
    reconnect_attempts: int = 0
    reconnect_max_s: float = 10.0
    refused_max_s: float = 60.0
    streams_per_connection: int = 400
    redundancy: int = 1
    backfill_s: float = 15.0
    max_streams: int = 10_000
    max_streams_per_address: int = 512
    max_books_per_address: int = 64
    max_symbols: int = 200
    max_sse: int = 5000
    max_sse_per_address: int = 500
    request_rate: float = 50.0
    request_burst: int = 500
    max_connections: int = 0
    max_connections_per_address: int = 0
    mailbox: int = 2048
    journal: int = 4096
    history_bytes: int = 2**29
    direct_writes: bool = True
    gather_above: int = 0
    websocket_ping_s: float = 20.0
    jwt_secret: str = ""
    jwt_algorithm: str = "HS256"
    jwt_public_key: Path | None = None
    jwt_jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_leeway_s: float = 5.0
    database_url: str = ""
    signal_types: tuple[str, ...] = ("mexc_spot_futures", "funding_rate", "mexc_dex")
    signal_mailbox: int = 256
    max_sockets: int = 10_000
    max_sockets_per_address: int = 100
    max_sockets_per_user: int = 10
    backplane: str = ""
    backplane_prefix: str = "komas"
    backplane_window_ms: float = 2.0
    role: str = "auto"
    node_name: str = ""
    lease_s: float = 3.0
    standby: str = "cold"
    workers: int = 1
    log_level: str = "INFO"
    log_format: str = "text"
    log_days: int = 14

    @property
    def connections(self) -> int:
        """How many connections there may be in all."""
        return self.max_connections or self.max_sse + self.max_sockets + OTHER_CONNECTIONS

    @property
    def connections_per_address(self) -> int:
        """How many of them one address may have."""
        own = self.max_sse_per_address + self.max_sockets_per_address + OTHER_CONNECTIONS_PER_ADDRESS
        return self.max_connections_per_address or own

    @property
    def stop_s(self) -> float:
        """How long a process may take from the signal to its end."""
        return self.drain_delay_s + self.graceful_timeout_s + CLOSING_S


class Field(msgspec.Struct, frozen=True):
    """How one setting is read: ``parse`` raises ``ValueError``; ``accepts`` says in words what it takes."""

    parse: Callable[[str], object]
    accepts: str
    meaning: str


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    return parse


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return parse


def _list(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    return lambda text: tuple(parse(part.strip()) for part in text.split(",") if part.strip())


def _some(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    def parse_some(text: str) -> tuple[str, ...]:
        values = _list(parse)(text)
        if not values:
            raise ValueError
        return values

    return parse_some


def _address(text: str) -> str:
    if text.startswith("unix:"):
        return _socket_path(text)
    host, colon, port = text.rpartition(":")
    if not colon or not host or not 0 <= int(port) <= 65535:  # noqa: PLR2004 - the largest port
        raise ValueError
    return text


def _socket_path(text: str) -> str:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path or re.search(r":\d+$", path):  # it has no port
        raise ValueError
    return text


def _mode(text: str) -> str:
    if not re.fullmatch(r"[67][0-7]{2}", text):  # its owner can always connect
        raise ValueError
    return text


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        # .port raises ValueError on nonsense; user:password would end up in logs.
        if parts.scheme not in schemes or not parts.hostname or parts.port == 0 or parts.username is not None:
            raise ValueError
        parts.hostname.encode("idna")  # what resolving it would do
        if not parts.hostname.isprintable() or " " in parts.hostname:
            raise ValueError
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError
        return text.rstrip("/")

    return parse


def _boolean(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError from None


def _token(text: str) -> str:
    if len(text) < TOKEN_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for word in words:
            if text.lower() == word.lower():
                return word
        raise ValueError

    return parse


def _symbol(text: str) -> str:
    try:
        return parse_symbol(text)
    except CallerError as error:
        raise ValueError(str(error)) from error


def _secret(text: str) -> str:
    if len(text.encode()) < SECRET_BYTES:
        raise ValueError
    return text


def _fetched_url(text: str) -> str:
    parts = urlsplit(text)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or parts.username is not None or parts.port == 0:
        raise ValueError
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise ValueError  # who can change the keys on their way can sign tokens
    return text


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


def _database(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme == "sqlite":
        if parts.netloc or parts.query or parts.path in ("", "/", "/:memory:"):
            raise ValueError  # signals in memory would be gone with the process
    elif parts.scheme != "postgresql+psycopg" or parts.port == 0:  # .port raises ValueError on nonsense
        raise ValueError
    return text


def _backplane(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel") or not text.isprintable():
        raise ValueError
    if parts.scheme == "unix" and not parts.path.startswith("/"):
        raise ValueError
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise ValueError
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,64}", text):
        raise ValueError
    return text


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # ~nobody
        raise ValueError(str(error)) from error


_HOUR_S: Final = 3600.0

FIELDS: Final[dict[str, Field]] = {
    "bind": Field(
        _some(_address), "host:port or unix:/path (which has no port), several with commas", "where to listen"
    ),
    "unix_socket_mode": Field(
        _mode, "600 to 777, in octal", "who may connect to unix:/path: its owner, its group (6 in the middle), all"
    ),
    "binance_upstream": Field(
        _url("ws", "wss"),
        "ws://host:port or wss://host:port",
        "Binance's stream host (default: wss://stream.binance.com:9443; `upstream` is its older name)",
    ),
    "binance_rest_upstream": Field(
        _url("http", "https"),
        "http://host:port or https://host:port",
        "Binance's REST host (default: the stream host's own; beside a host that is not Binance's, the same host and"
        " port; older name `rest_upstream`)",
    ),
    "binance_usdm_upstream": Field(
        _url("ws", "wss"),
        "ws://host:port or wss://host:port",
        "the stream host of Binance's USD-M futures (default: the one that belongs to `binance_upstream`; older name"
        " `futures_upstream`)",
    ),
    "binance_usdm_rest_upstream": Field(
        _url("http", "https"),
        "http://host:port or https://host:port",
        "the REST host of USD-M futures, likewise (older name `futures_rest_upstream`)",
    ),
    "data_dir": Field(
        _path,
        "a folder",
        "where logs, signals, the secret and the admin token are kept (default: the user's data folder)",
    ),
    "demo": Field(_boolean, "true or false", "run on a built-in simulated exchange, no internet needed"),
    "config": Field(_path, "a hypercorn.toml file", "Hypercorn's own settings: TLS, backlog, ..."),
    "admin_token": Field(
        _token,
        f"at least {TOKEN_LENGTH} printable ASCII characters without spaces",
        "the administrator's Bearer token (default: made once, kept in data_dir/admin-token); once set, market control"
        " calls need it on this machine, too",
    ),
    "cors_origins": Field(
        _list(parse_pattern),
        origins.ACCEPTED,
        "web pages that may read, and open /ws/signals; only those that are named may also control, with a token",
    ),
    "trusted_proxies": Field(
        _list(parse_network),
        "IP addresses and networks such as 10.0.0.0/8, with commas, but not all addresses",
        "proxies whose X-Forwarded-For, -Host and -Proto, or Forwarded, are believed; a Unix socket's always are",
    ),
    "default_symbols": Field(_some(_symbol), "symbols such as BTCUSDT, with commas", "what quick/start-prices starts"),
    "heartbeat_s": Field(_number(0.1, 30), "0.1 to 30", "silence after which an SSE client gets a comment"),
    "linger_s": Field(
        _number(0, _HOUR_S), "0 to 3600", "how long a stream outlives its last SSE client; less where room is short"
    ),
    "connect_wait_s": Field(_number(0.1, 60), "0.1 to 60", "how long connect and subscribe wait for the exchange"),
    "graceful_timeout_s": Field(
        _number(0.1, 300), "0.1 to 300", "how long a stop may take, once `drain_delay_s` is over"
    ),
    "drain_delay_s": Field(
        _number(0, 300),
        "0 to 300",
        "how long a server that was asked to stop still serves, also who comes anew, while /readyz says 503",
    ),
    "reconnect_attempts": Field(
        _count(0, 10**9), "0 or more", "failed attempts to connect in a row before giving up; 0: never"
    ),
    "reconnect_max_s": Field(_number(0.1, _HOUR_S), "0.1 to 3600", "longest wait between dials after network trouble"),
    "refused_max_s": Field(_number(0.1, _HOUR_S), "0.1 to 3600", "longest wait between dials after a refusal"),
    "streams_per_connection": Field(_count(1, 1024), "1 to 1024", "streams over one connection to the exchange"),
    "redundancy": Field(_count(1, 2), "1 or 2", "connections for the same streams; 2: the break of one is invisible"),
    "backfill_s": Field(
        _number(0, 300), "0 to 300", "how long live trades wait for missing ones before a gap is declared"
    ),
    "max_streams": Field(_count(1, 10**5), "1 to 100000", "streams open at the exchange"),
    "max_streams_per_address": Field(
        _count(1, 1024),
        "1 to 1024",
        "of them, how many may be open for clients of one address, those included that linger",
    ),
    "max_books_per_address": Field(
        _count(1, 1024), "1 to 1024", "of those, how many order books: each takes a snapshot of the exchange's budget"
    ),
    "max_symbols": Field(_count(1, 1024), "1 to 1024", "symbols in one request"),
    "max_sse": Field(_count(1, 10**6), "1 to 1000000", "SSE clients in all"),
    "max_sse_per_address": Field(_count(1, 10**6), "1 to 1000000", "SSE clients from one address"),
    "request_rate": Field(
        _number(0, 10**6),
        "0 to 1000000",
        "REST requests a second from one address, but for probes and the administrator's; 0: no limit",
    ),
    "request_burst": Field(
        _count(1, 10**6), "1 to 1000000", "how many may come at once; SSE clients: max_sse_per_address more"
    ),
    "max_connections": Field(
        _count(0, 10**6),
        "0 to 1000000",
        "connections in all, idle ones make room; never more than open files allow (default, 0: 5000 beside max_sse and"
        " max_sockets)",
    ),
    "max_connections_per_address": Field(
        _count(0, 10**6),
        "0 to 1000000",
        "of them, from one address; trusted proxies may have more (default, 0: 424 beside max_sse_per_address and"
        " max_sockets_per_address: 1024)",
    ),
    "mailbox": Field(_count(16, 10**6), "16 to 1000000", "trades that wait for one slow SSE client"),
    "journal": Field(
        _count(16, 10**6),
        "16 to 1000000",
        "trades and closed candles kept for clients that come back, for each stream",
    ),
    "history_bytes": Field(
        _count(2**20, 2**40),
        "1048576 to 1099511627776",
        "memory for all that is kept for clients that come back; beyond it, streams that nobody reads give first",
    ),
    "direct_writes": Field(
        _boolean, "true or false", "write to clients past Hypercorn's protocol, many times as fast; also over TLS"
    ),
    "gather_above": Field(
        _count(0, 10**6),
        "0 to 1000000",
        "with more readers of one stream than that, what comes gathers for twice as long as writing to them took last: "
        "far less processor for a few milliseconds; 0: never",
    ),
    "websocket_ping_s": Field(
        _number(1, 60), "1 to 60", "how often a signal socket is pinged, for proxies that cut what is silent"
    ),
    "jwt_secret": Field(
        _secret,
        f"at least {SECRET_BYTES} bytes",
        "what HS256 tokens are signed with (default: made once, kept in data_dir/jwt-secret)",
    ),
    "jwt_algorithm": Field(
        _one_of("HS256", "RS256", "ES256", "EdDSA"), "HS256 RS256 ES256 EdDSA", "the one algorithm that tokens may have"
    ),
    "jwt_public_key": Field(_path, "a PEM file", "the issuer's public key, for RS256, ES256 and EdDSA"),
    "jwt_jwks_url": Field(
        _fetched_url, "https://... (http:// on this machine)", "where the issuer publishes its keys, instead of a file"
    ),
    "jwt_issuer": Field(_text, "a text", "the `iss` that tokens must have (default: not checked)"),
    "jwt_audience": Field(_text, "a text", "the `aud` that tokens must have (default: not checked)"),
    "jwt_leeway_s": Field(_number(0, 300), "0 to 300", "how far the issuer's clock may be off"),
    "database_url": Field(
        _database, "sqlite:///file or postgresql+psycopg://...", "the database of signals (default: data_dir/komas.db)"
    ),
    "signal_types": Field(_some(_word), "words of a-z 0-9 _, with commas", "what a signal may be"),
    "signal_mailbox": Field(_count(1, 10**6), "1 to 1000000", "signals that wait for one slow VIP before 1013"),
    "max_sockets": Field(_count(1, 10**6), "1 to 1000000", "signal sockets in all"),
    "max_sockets_per_address": Field(_count(1, 10**6), "1 to 1000000", "signal sockets from one address"),
    "max_sockets_per_user": Field(_count(1, 10**6), "1 to 1000000", "signal sockets of one user"),
    "backplane": Field(
        _backplane,
        "redis://host:port/db, rediss://, unix:///path or redis+sentinel://host:port/service",
        "Redis or Valkey, over which several processes share one exchange feed (docs/scaling.md)",
    ),
    "backplane_prefix": Field(_name, "letters, digits, dots, dashes", "what all keys in there begin with"),
    "backplane_window_ms": Field(
        _number(0.0, 100.0), "0 to 100", "milliseconds in which what comes from the exchange shares one write to it"
    ),
    "role": Field(
        _one_of("auto", EDGE, FEED),
        "auto, edge or feed",
        "auto: serves, and may be the one that is connected to the exchange; edge: only serves; feed: only feeds",
    ),
    "node_name": Field(
        _name, "letters, digits, dots, dashes", "what the process is called among the others (default: host and pid)"
    ),
    "lease_s": Field(
        _number(0.5, 60.0), "0.5 to 60", "seconds without a word after which another process connects to the exchange"
    ),
    "standby": Field(
        _one_of("cold", "hot"),
        "cold or hot",
        "hot: connected to the exchange while another process leads, too, to go on without REST when that one ends",
    ),
    "workers": Field(
        _count(1, MOST_WORKERS),
        f"1 to {MOST_WORKERS}",
        "processes of `komas serve` on this machine, each at the next port or at a socket file of its own; needs"
        " backplane",
    ),
    "log_level": Field(_one_of("DEBUG", "INFO", "WARNING", "ERROR"), "DEBUG INFO WARNING ERROR", "least severe record"),
    "log_format": Field(_one_of("text", "json"), "text or json", "how records look on stderr"),
    "log_days": Field(_count(1, 3650), "1 to 3650", "days for which log files are kept"),
}

SECRETS: Final = frozenset({"admin_token", "jwt_secret", "database_url", "backplane"})


def load(
    options: Mapping[str, str | None],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
) -> Settings:
    """Read all settings; ``options`` are the command line's, ``folder`` is where ``komas.toml`` is looked for.

    Raises ``SettingError`` for the first value that cannot be used.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, object] = {}
    file = (folder or Path.cwd()) / SETTINGS_FILE
    if file.is_file():
        values |= _from_file(file)
    variables = {key: environment.get(variable_of(key)) or None for key in (*FIELDS, *ALIASES)}
    variables |= {key: text for key in SECRETS if (text := _secret_of(key, environment)) is not None}
    values |= _read_all(variables, variable_of)
    _refuse_misspelt(environment)
    values |= _read_all(options, lambda key: "--" + key.replace("_", "-"))
    return _completed(msgspec.convert(values, Settings))


def twin_of(data_dir: Path) -> Path:
    """The data folder of the demo beside a server's, and the server's beside the demo's."""
    return data_dir.parent if data_dir.name == DEMO_FOLDER else data_dir / DEMO_FOLDER


def variable_of(key: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + key.upper()


def secret_file_of(key: str) -> str:
    """The environment variable that names a file with a secret, as Docker and systemd hand them over."""
    return f"{variable_of(key)}_FILE"


def _secret_of(key: str, environment: Mapping[str, str]) -> str | None:
    """What is in the file, if one is named; a line break at its end is none of it."""
    named = secret_file_of(key)
    if not (file := environment.get(named)):
        return None
    if environment.get(variable_of(key)):
        raise SettingError(f"{variable_of(key)} and {named} are the same setting: give one of them", field=key)
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingError(f"{named}: {file} cannot be read: {reason}", field=key) from error
    if not text:
        raise SettingError(f"{named}: {file} is empty", field=key)
    return text


def _read_all(given: Mapping[str, str | None], named: Callable[[str], str]) -> dict[str, object]:
    """Read what one source says, older names as the present ones; ``named`` is how a key is written there."""
    values: dict[str, object] = {}
    for key, text in given.items():
        if text is None:
            continue
        known = ALIASES.get(key, key)
        if known in values:
            raise SettingError(f"{named(key)} and {named(known)} are the same setting: give one of them", field=known)
        values[known] = _read(known, text, named(key))
    return values


# Set by others: for ``komas watch``, by the supervisor of workers (lifeline.py), and by Kubernetes and Docker for
# services whose name begins with ours.
_OTHERS: Final = re.compile(
    r"KOMAS_(TOKEN|SUPERVISOR_FD|(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|NAME))"
)

_PORT: Final = variable_of("port")  # theirs is tcp://10.0.0.1:8000


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Refuse a variable that is named as a setting's and is none: what it was meant to say would not count."""
    names = [*(variable_of(key) for key in (*FIELDS, *ALIASES)), *map(secret_file_of, SECRETS)]
    for name, value in environment.items():
        is_others = _OTHERS.fullmatch(name) and not (name == _PORT and value.isdigit())
        if name.startswith(ENVIRONMENT_PREFIX) and name not in names and not is_others:
            other = _OTHER_NAMES.get(name.removeprefix(ENVIRONMENT_PREFIX).lower())
            close = [variable_of(other)] if other else difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.8)
            hint = f"did you mean {close[0]}?" if close else "docs/operations.md lists those that there are"
            raise SettingError(f"{name}: unknown setting; {hint}", field=name)


def _from_file(file: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{file.name} cannot be read: {error}") from error
    return _read_all({key: _as_text(key, value) for key, value in table.items()}, lambda key: f"{file.name}: {key}")


def _as_text(key: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(item, str) for item in value):
            return ",".join(value)
        case _:
            raise SettingError(
                f"{SETTINGS_FILE}: {key} is a {type(value).__name__}, not a text, number or list of texts"
            )


def _read(key: str, text: str, named: str) -> object:
    field = FIELDS.get(key)
    if field is None:
        close = [_OTHER_NAMES[key]] if key in _OTHER_NAMES else difflib.get_close_matches(key, FIELDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys: {' '.join(FIELDS)}"
        raise SettingError(f"{named}: unknown setting; {hint}", field=key)
    try:
        return field.parse(text)
    except ValueError:
        given = f"{len(text)} characters given" if key in SECRETS else f"got {text!r}"
        raise SettingError(f"{named}: {given}; accepted: {field.accepts}", field=key) from None


def _completed(settings: Settings) -> Settings:
    """Fill in what depends on other settings or on the machine."""
    folder = settings.data_dir
    if folder is None:
        folder = Path(platformdirs.user_data_dir("komas", appauthor=False))
        folder = folder / DEMO_FOLDER if settings.demo else folder  # no simulated signal among real ones
    return msgspec.structs.replace(settings, data_dir=folder)
