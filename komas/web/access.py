"""Who is calling, what that caller may do, and which web pages may read.

VIPs, signals and logs always need a token. The market's control calls (connect, subscribe, ...) are also taken without
one from a program of the server's own machine, so that ``curl`` works there as printed; ``Access.check_control()`` says
which, and ``docs/decisions/who-may-control.md`` why.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
import trio
from werkzeug.datastructures import Headers

from komas.errors import SettingError
from komas.model.addresses import CONTRADICTED, UNIX_PEER, Proxies
from komas.model.forwarded import parse_forwarded
from komas.model.origins import OriginList, host_and_port, parse_origin
from komas.observability.logs import LogLimit
from komas.secret_files import read_or_make
from komas.settings import FIELDS, TOKEN_LENGTH, Settings
from komas.web.bearer import bearer_of
from komas.web.cors import Page
from komas.web.local_programs import Endpoint, SpeaksForItself, plain
from komas.web.problems import ProblemError

log = logging.getLogger(__name__)

TOKEN_FILE: Final = "admin-token"  # noqa: S105 - the file's name
ORIGIN_SHOWN: Final = 100  # characters of a page's origin in a log line
_FORWARDED: Final = (
    "Forwarded", "X-Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto",
    "X-Forwarded-Server", "X-Original-Host", "X-Real-Ip", "Via", "Cf-Connecting-Ip", "Client-Ip", "True-Client-Ip",
    "X-Client-Ip", "X-Cluster-Client-Ip", "Fly-Client-Ip", "Fastly-Client-Ip", "Tailscale-User-Login",
)  # fmt: skip
_HOST: Final = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)
_OWN_PAGE_OR_NONE: Final = ("", "none", "same-origin")  # Sec-Fetch-Site
_NEEDS_TOKEN: Final = (
    "this call needs 'Authorization: Bearer <admin token>': the setting admin_token (KOMAS_ADMIN_TOKEN), or without one"
    f" what is in data_dir/{TOKEN_FILE}; `komas token admin` prints it"
)


class Caller:
    """What is known of a caller before it proved anything: both ends of its connection, and the request's headers."""

    __slots__ = ("headers", "ours", "peer", "peer_port")

    def __init__(self, peer: Endpoint | None, ours: Endpoint | None, headers: Headers) -> None:
        """The ends are ``None`` for a Unix socket."""
        self.peer, self.peer_port = ("", 0) if peer is None else _readable(peer)
        self.ours = ours
        self.headers = headers

    @classmethod
    def of(cls, scope: Mapping[str, Any], headers: Headers) -> Caller:
        """The caller of an ASGI scope."""
        return cls(_end(scope.get("client")), _end(scope.get("server")), headers)


class AccessStatistics(msgspec.Struct, frozen=True):
    """Web pages that were not let in because ``cors_origins`` does not list them."""

    origins_refused: int


class Access:
    """Decides for every caller; made once, from the settings."""

    def __init__(
        self,
        settings: Settings,
        admin_token: str,
        *,
        is_exposed: Callable[[], bool],
        speaks_for_itself: SpeaksForItself,
    ) -> None:
        """``is_exposed`` says whether the server listens beyond loopback, which is known once it listens."""
        self._proxies = Proxies(settings.trusted_proxies)
        self._admin_token = admin_token.encode()
        self._may_lack_token = not (settings.admin_token or settings.trusted_proxies)
        self._origins = OriginList(settings.cors_origins)
        self._is_exposed = is_exposed
        self._speaks_for_itself = speaks_for_itself
        self._origins_refused = 0
        self._log_limit = LogLimit()
        self._contradiction_log = LogLimit()
        self._is_unix_said = False

    def address(self, caller: Caller) -> str:
        """The address to count by: the peer's, or the one that trusted proxies say they forward for."""
        headers = caller.headers
        address = self._proxies.client(caller.peer, headers.getlist("X-Forwarded-For"), headers.getlist("Forwarded"))
        if address == UNIX_PEER and not self._is_unix_said:
            self._is_unix_said = True
            log.warning(
                "callers over the Unix socket count as one address for all limits: one sent no X-Forwarded-For; a proxy"
                " must send it"
            )
        elif address.startswith(CONTRADICTED):
            self._say_contradicted(address)
        return address

    def _say_contradicted(self, address: str) -> None:
        if (left_out := self._contradiction_log.due(trio.current_time())) is not None:
            log.warning(
                "X-Forwarded-For and Forwarded name two clients, or one cannot be read: all such count as one address;"
                " a proxy must remove the one that it does not write",
                extra={"counted_as": address, "not_logged": left_out},
            )

    def is_admin(self, caller: Caller) -> bool:
        """Whether the caller has the admin token."""
        return hmac.compare_digest(bearer_of(caller.headers).encode(), self._admin_token)

    def check_admin(self, caller: Caller) -> None:
        """Raise a problem unless the caller has the admin token."""
        if not self.is_admin(caller):
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, _NEEDS_TOKEN, headers={"WWW-Authenticate": 'Bearer realm="komas"'}
            )

    async def check_control(self, caller: Caller) -> None:
        """Raise a problem unless the caller may control the market connections.

        With the admin token, from anywhere. Without a token, a program of this machine that speaks for itself, while
        nothing says that others reach us: no proxy is trusted and nothing is bound beyond loopback, the peer is
        loopback and calls us by a loopback name (a web page that was rebound to 127.0.0.1 does not), no header tells
        of a proxy, and not for a web page of another origin. With the setting ``admin_token`` the token is needed.
        """
        if "Authorization" not in caller.headers and self._is_local(caller) and caller.ours is not None:
            peer = caller.peer, caller.peer_port
            if await self._speaks_for_itself(peer, caller.ours):
                return
        self.check_admin(caller)

    def page_of(self, caller: Caller) -> Page:
        """What the page that calls, if it is one, is to the setting ``cors_origins``."""
        if (origin_of(caller) or "") in self._origins:
            return Page.LISTED
        return Page.ANY if self._origins.is_any else Page.STRANGER

    def lets_page_in(self, caller: Caller) -> bool:
        """Whether the page that calls, if it is one, may open a signal socket: the token is the proof, no cookie is.

        With ``*`` every page may, else those that are listed and our own. A refusal is counted, and at times logged.
        """
        if self.page_of(caller) is not Page.STRANGER or self.is_same_origin(caller):
            return True
        self._origins_refused += 1
        if (left_out := self._log_limit.due(trio.current_time())) is not None:
            log.warning(
                "page refused: its origin %r is not listed in cors_origins",
                (origin_of(caller) or "")[:ORIGIN_SHOWN],
                extra={"refused": self._origins_refused, "not_logged": left_out},
            )
        return False

    def is_same_origin(self, caller: Caller) -> bool:
        """Whether the page that calls, if it is one, came from this server, as a trusted proxy may call it."""
        text = origin_of(caller)
        if text is None:
            return True
        try:
            host = self._forwarded(caller, "X-Forwarded-Host", "host") or caller.headers.get("Host", "")
            scheme = self._forwarded(caller, "X-Forwarded-Proto", "proto").lower()
            origin = parse_origin(text)
            is_ours = host_and_port(host, origin.scheme) == (origin.host, origin.port)
        except ValueError:
            return False
        return is_ours and origin.scheme in ("http", "https") and scheme in ("", origin.scheme)

    def statistics(self) -> AccessStatistics:
        """Counts, for metrics."""
        return AccessStatistics(self._origins_refused)

    def _is_local(self, caller: Caller) -> bool:
        return (
            self._may_lack_token
            and not self._is_exposed()
            and is_loopback(caller.peer)
            and not any(name in caller.headers for name in _FORWARDED)
            and is_loopback_name(_name_of(caller.headers.get("Host", "")))
            and caller.headers.get("Sec-Fetch-Site", "") in _OWN_PAGE_OR_NONE
            and self.is_same_origin(caller)
        )

    def _forwarded(self, caller: Caller, header: str, parameter: str) -> str:
        """What a trusted proxy itself wrote, behind what its client may have written; empty for nothing.

        In the header, or as a parameter of ``Forwarded``; raises ``ValueError`` where the two differ.
        """
        if not self._proxies.trusts(caller.peer):
            return ""
        # Some proxies add a line of their own.
        said = ",".join(caller.headers.getlist(header)).rsplit(",", 1)[-1].strip()
        elements = parse_forwarded(caller.headers.getlist("Forwarded"))
        also = elements[-1].get(parameter, "") if elements else ""
        if said and also and said.lower() != also.lower():
            raise ValueError(f"{header} is {said}, Forwarded {also}")
        return said or also


def admin_token_of(settings: Settings) -> str:
    """The admin token: the setting's, or the one that the first run made in the data folder.

    Raises ``SettingError`` when that cannot be read, or holds none.
    """
    if settings.admin_token:
        return settings.admin_token
    assert settings.data_dir is not None  # load() completes it
    file = settings.data_dir / TOKEN_FILE
    token = read_or_make(file).decode("latin-1")
    if len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        accepts = FIELDS["admin_token"].accepts
        raise SettingError(f"data_dir: {file} holds no token ({accepts}); remove it to have a new one made")
    return token


def who_may_control(settings: Settings, *, is_exposed: bool | None) -> str:
    """One line for the start; ``is_exposed`` is ``None`` where what is bound is Hypercorn's own affair."""
    token = "the admin_token that is set" if settings.admin_token else f"the token in {settings.data_dir}/{TOKEN_FILE}"
    reason = (
        "admin_token is set" if settings.admin_token
        else "trusted_proxies is set" if settings.trusted_proxies
        else "the server is bound beyond loopback" if is_exposed
        else "only Unix sockets are bound" if is_exposed is not None and all(map(_is_unix, settings.bind))
        else ""
    )  # fmt: skip
    if reason:
        return f"control needs {token}: {reason}"
    unless = ", unless Hypercorn is bound beyond loopback" if is_exposed is None else ""
    return f"market control is open to this machine's own programs{unless}; all else needs {token}"


def _is_unix(bind: str) -> bool:
    return bind.startswith("unix:")


def is_beyond_loopback(bind: str) -> bool:
    """Whether an address to listen on (``host:port``) can be reached from other machines."""
    return not is_loopback_name(_name_of(bind))


def is_loopback_name(name: str | None) -> bool:
    """Whether a host's name means this machine alone."""
    return name is not None and (name == "localhost" or name.endswith(".localhost") or is_loopback(name))


def is_loopback(address: str) -> bool:
    """Whether an IP address is this machine's own."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def origin_of(caller: Caller) -> str | None:
    """The page's origin; several, which no browser sends, are none that is listed or ours."""
    found = caller.headers.getlist("Origin")
    return ",".join(found).lower() if found else None


def _name_of(host: str) -> str | None:
    """The name in a ``Host`` header; ``None`` where it is not a name or an address with a port (RFC 9110, 7.2)."""
    match = _HOST.fullmatch(host)
    return None if match is None else match[1].strip("[]").lower()


def _end(end: tuple[str, int | None] | None) -> Endpoint | None:
    return None if end is None or end[1] is None else (end[0], end[1])


def _readable(end: Endpoint) -> Endpoint:
    """An end whose address may be anything an ASGI server writes."""
    try:
        return plain(end)
    except ValueError:
        return end
