"""Where Redis or Valkey is, as its URL says; what is said about it never has the password."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from komas.errors import SettingError

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
HIGHEST_PORT: Final = 65535
ACCEPTED: Final = (
    "redis://[user:password@]host[:port][/db], rediss:// for TLS with [?ca=FILE], unix:///path[?db=0], "
    "or redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]"
)
SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
HIDDEN: Final = "***"


class RedisUrl(msgspec.Struct, frozen=True, kw_only=True):
    """One Redis, or the Sentinels that know which of several it is. Its ``str()`` and ``repr()`` are fit for a log."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    username: str = ""
    password: str = ""
    db: int = 0
    is_tls: bool = False
    ca: str = ""

    def __str__(self) -> str:
        """Where it is."""
        if self.path:
            return self.path
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.service} of the sentinels {hosts}" if self.service else hosts

    def __repr__(self) -> str:
        return f"<Redis at {self}>"

    def without_secrets(self, words: str) -> str:
        """What was said, without the password: a server may repeat what it did not understand."""
        for secret in {self.password, quote(self.password, safe="")} - {""}:
            words = words.replace(secret, HIDDEN)
        return words


def parse_redis_url(text: str) -> RedisUrl:
    """Read a URL; raises ``SettingError``, which does not repeat it."""
    try:
        return _parse(text)
    except ValueError as error:
        raise SettingError(f"backplane: {error}; accepted are {ACCEPTED}", field="backplane") from None


def _parse(text: str) -> RedisUrl:
    if not text.isprintable() or " " in text:
        raise ValueError("a URL has neither blanks nor control characters")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("the URL's host cannot be read") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the URL must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.fragment:
        raise ValueError("the URL has a #: write it as %23 in a password")
    credentials, _, hosts = parts.netloc.rpartition("@")
    if "@" in credentials:
        raise ValueError("the URL has several @: write it as %40 in a password")
    username, _, password = credentials.partition(":")
    if credentials and not password:
        raise ValueError("the URL has a user without a password")
    is_tls = parts.scheme.startswith("rediss")
    options = _options(parts.query, {"ca"} if is_tls else {"db"} if parts.scheme == "unix" else set())
    url = RedisUrl(username=unquote(username), password=unquote(password), is_tls=is_tls, ca=options.get("ca", ""))
    if parts.scheme == "unix":
        return _unix(url, hosts, unquote(parts.path), options.get("db", ""))
    if "sentinel" in parts.scheme:
        return _sentinel(url, hosts, parts.path)
    places = _hosts(hosts, PORT)
    if len(places) > 1:
        raise ValueError("the URL has several hosts, which only Sentinel URLs have")
    return msgspec.structs.replace(url, hosts=places, db=_db(parts.path.removeprefix("/")))


def _unix(url: RedisUrl, host: str, path: str, db: str) -> RedisUrl:
    if host or not path.startswith("/") or path == "/":
        raise ValueError("a Unix socket's path is absolute, with three slashes before it")
    return msgspec.structs.replace(url, path=path, db=_db(db))


def _sentinel(url: RedisUrl, hosts: str, path: str) -> RedisUrl:
    service, _, db = path.removeprefix("/").partition("/")
    if not service:
        raise ValueError("the URL of Sentinels lacks the service, which is the name of what they watch")
    return msgspec.structs.replace(url, hosts=_hosts(hosts, SENTINEL_PORT), service=unquote(service), db=_db(db))


def _options(query: str, known: set[str]) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs) or not options.keys() <= known or not all(options.values()):
        raise ValueError(f"after the ? comes {' or '.join(f'{name}=...' for name in known) or 'nothing in such a URL'}")
    return options


def _hosts(text: str, port: int) -> tuple[tuple[str, int], ...]:
    return tuple(_host(each, port) for each in text.split(","))


def _host(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]/]+))(?::(\d{1,5}))?", text, re.ASCII)
    if found is None:
        raise ValueError("the URL's host and port cannot be read")
    bracketed, name, number = found.groups()
    if number is not None and not 0 < int(number) <= HIGHEST_PORT:
        raise ValueError("the URL's port is not one")
    try:
        (name or "").encode("idna")  # what resolving it does
    except UnicodeError:
        raise ValueError("the URL's host is no name") from None
    return bracketed or name, int(number or port)


def _db(text: str) -> int:
    if not re.fullmatch(r"\d{0,5}", text, re.ASCII):
        raise ValueError("the URL's database is a number")
    return int(text or 0)
