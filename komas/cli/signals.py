"""Commands of the signal service: ``komas token``, ``komas vip`` and ``komas signal``. They open the store themselves.

A server that runs on the same store notices within a second, on PostgreSQL at once.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from komas.errors import CallerError, SettingError, StoreUnavailable, Unauthorized
from komas.model.signals import DAY_S, MOST_DAYS
from komas.settings import DEMO_FOLDER, FIELDS, Settings, load, twin_of

if TYPE_CHECKING:
    from komas.model.signals import Vip
    from komas.signals.database import SignalDatabase
    from komas.signals.tokens import Issuer

PUBLISHER: Final = "komas signal"  # who published, for signals that came from the command line
TTL_S: Final = 10 * 365 * DAY_S


def add_token(parser: argparse.ArgumentParser) -> None:
    """``komas token issue|inspect|admin``."""
    verbs = parser.add_subparsers(required=True, metavar="issue|inspect|admin")
    issue = verbs.add_parser("issue", help="print a new access token, and nothing else")
    issue.add_argument("--user-id", required=True, metavar="123", help="the user that the token speaks for")
    issue.add_argument(
        "--vip-days", type=_whole(1, MOST_DAYS), metavar="30", help="VIP for so long, if the store knows no more"
    )
    issue.add_argument(
        "--scope", action="append", default=[], metavar="signals:publish", help="what else it is good for"
    )
    issue.add_argument("--ttl", type=_whole(1, TTL_S), default=3600, metavar="3600", help="seconds until it expires")
    add_settings(issue)
    issue.set_defaults(run=_issue)
    inspect = verbs.add_parser("inspect", help="show what a token says, and whether this server would take it")
    inspect.add_argument("token", nargs="?", default="-", help="the token; from standard input without it")
    add_settings(inspect)
    inspect.set_defaults(run=_inspect)
    admin = verbs.add_parser("admin", help="print the administrator's token, and nothing else")
    add_settings(admin)
    admin.set_defaults(run=_admin)


def add_vip(parser: argparse.ArgumentParser) -> None:
    """``komas vip grant|revoke|list``."""
    verbs = parser.add_subparsers(required=True, metavar="grant|revoke|list")
    grant = verbs.add_parser("grant", help="make a user VIP for at least so many days from now")
    grant.add_argument("user_id", metavar="USER_ID")
    grant.add_argument("--days", type=_whole(1, MOST_DAYS), required=True, metavar="30")
    grant.set_defaults(run=_grant)
    revoke = verbs.add_parser("revoke", help="end a user's VIP now, on open connections too")
    revoke.add_argument("user_id", metavar="USER_ID")
    revoke.set_defaults(run=_revoke)
    listed = verbs.add_parser("list", help="every user of whom the store knows something")
    listed.set_defaults(run=_list)
    for verb in (grant, revoke, listed):
        add_settings(verb)


def add_signal(parser: argparse.ArgumentParser) -> None:
    """``komas signal publish|update``."""
    verbs = parser.add_subparsers(required=True, metavar="publish|update")
    publish = verbs.add_parser("publish", help="publish a signal to every VIP")
    publish.add_argument("--type", required=True, metavar="mexc_spot_futures", help="the signal's type")
    publish.add_argument("--key", help="makes a retry of the same signal the same signal")
    publish.set_defaults(run=_publish)
    update = verbs.add_parser("update", help="change fields of a signal")
    update.add_argument("id", type=_whole(1, 2**53), metavar="ID")
    update.set_defaults(run=_update)
    for verb in (publish, update):
        verb.add_argument("--data", required=True, metavar="JSON", help="""such as '{"coin_name": "NB"}'""")
        add_settings(verb)


def demo_token(settings: Settings) -> str | None:
    """A VIP token for who tries the demo; ``None`` where tokens are issued elsewhere."""
    if settings.jwt_algorithm != "HS256":
        return None
    return _issuer(settings).issue("demo", now_s=int(time.time()), ttl_s=DAY_S, vip_days=1)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Which data a command is about, as of ``komas serve``."""
    for key in ("data_dir", "database_url"):
        field = FIELDS[key]
        parser.add_argument("--" + key.replace("_", "-"), metavar="VALUE", help=f"{field.meaning} ({field.accepts})")
    parser.add_argument(
        "--demo", action="store_const", const="true", help="the secret and the store of `komas serve --demo`"
    )


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings; those of ``add_settings()`` are the command line's."""
    return load({key: getattr(options, key) for key in ("data_dir", "database_url", "demo")})


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:20]) <= high:
            raise argparse.ArgumentTypeError(f"got {text[:40]!r}; accepted: a whole number from {low} to {high}")
        return int(text)

    return parse


def _issuer(settings: Settings) -> Issuer:
    from komas.signals.keys import rules_of, secret_of
    from komas.signals.tokens import Issuer

    return Issuer(secret_of(settings), rules_of(settings))


def _issue(options: argparse.Namespace) -> None:
    issuer = _issuer(settings_of(options))
    token = issuer.issue(
        _user(options.user_id),
        now_s=int(time.time()),
        ttl_s=options.ttl,
        vip_days=options.vip_days,
        scopes=frozenset(scope for given in options.scope for scope in given.replace(",", " ").split()),
    )
    print(token)


def _admin(options: argparse.Namespace) -> None:
    from komas.web.access import admin_token_of

    print(admin_token_of(settings_of(options)))


def _inspect(options: argparse.Namespace) -> None:
    from komas.signals.keys import keys_of, rules_of, stray_signer_of
    from komas.signals.tokens import UnknownKey, Verifier, inspect

    token = sys.stdin.read().strip() if options.token == "-" else options.token  # noqa: S105 - standard input
    settings = settings_of(options)
    try:
        header, claims = inspect(token)
    except Unauthorized as error:
        raise CallerError(str(error)) from None
    verdict = "valid"
    try:
        Verifier(rules_of(settings), keys_of(settings)[0]).verify(token, time.time())
    except UnknownKey:
        verdict = "its key is fetched by the server alone"
    except Unauthorized as error:
        verdict = f"refused: {error}"
        if (file := stray_signer_of(token, settings)) is not None:
            verdict += f"; it is signed with {file}: {_choosing(file.parent)}"
    shown = {"header": header, "claims": claims, "checked_against": _key_source(settings), "verdict": verdict}
    print(json.dumps(shown, indent=2, ensure_ascii=False))


def _key_source(settings: Settings) -> str:
    """Where the key is that tokens are checked with; the demo and a server have data folders of their own."""
    from komas.signals.keys import secret_file_of

    if settings.jwt_jwks_url or settings.jwt_public_key:
        return str(settings.jwt_jwks_url or settings.jwt_public_key)
    if settings.jwt_secret:
        return "the setting jwt_secret"
    return str(secret_file_of(settings))


def why_unauthorized(token: str) -> str:
    """What this machine knows of a token that a server refused: most often it is the demo's, or is not."""
    from komas.signals.keys import signer_of
    from komas.signals.tokens import Keys, Rules, Verifier

    try:
        settings = load({})
        file = signer_of(token, settings)
    except SettingError:
        return ""
    if file is None:
        return "no secret of this machine signed the token; `komas token inspect` says what it is checked against"
    try:
        Verifier(Rules(), Keys.of_secret(file.read_bytes().strip())).verify(token, time.time())
    except Unauthorized as error:
        return f"the token is {error}"
    if file.parent.name == DEMO_FOLDER:
        return f"the token is the demo's ({file}); for any other server: komas token issue"
    return f"the token is signed with {file}; for `komas serve --demo`: komas token issue --demo"


def _choosing(data_dir: Path) -> str:
    """The option that takes this data folder, of the two that are there without any other setting."""
    is_demo = data_dir.name == DEMO_FOLDER
    if load({"demo": "true"} if is_demo else {}).data_dir != data_dir:
        return f"--data-dir {data_dir}"
    return "--demo" if is_demo else "without --demo"


def _grant(options: argparse.Namespace) -> None:
    user = _user(options.user_id)
    with _open_database(options) as database:
        vip = database.grant(user, options.days, int(time.time()))
    _record(options, "grant", user=user, days=options.days)
    _print_vip(vip)


def _revoke(options: argparse.Namespace) -> None:
    user = _user(options.user_id)
    with _open_database(options) as database:
        vip = database.revoke(user, int(time.time()))
    _record(options, "revoke", user=user)
    _print_vip(vip)


def _list(options: argparse.Namespace) -> None:
    with _open_database(options) as database:
        after = 0
        while page := database.vips(after):
            for vip in page:
                _print_vip(vip)
            after = page[-1].version


def _publish(options: argparse.Namespace) -> None:
    from komas.model.signals import SignalInsert
    from komas.signals.validation import check_data, check_key, check_type

    settings = settings_of(options)
    signal_type = check_type(options.type, settings.signal_types)
    draft = SignalInsert(signal_type, check_data(_data(options.data)), PUBLISHER, check_key(options.key))
    with _open_database(options) as database:
        event, _ = database.publish(draft, time.time_ns() // 10**6)
    _record(options, "publish", type=signal_type, signal=event.signal_id)
    print(bytes(event.data).decode())
    _say_where(settings)


def _update(options: argparse.Namespace) -> None:
    from komas.signals.validation import check_data

    changes = check_data(_data(options.data))
    with _open_database(options) as database:
        done = database.update(options.id, changes, time.time_ns() // 10**6)
    if done is None:
        raise CallerError(f"there is no signal {options.id} in {_database_name(settings_of(options))}")
    _record(options, "update", signal=options.id)
    print(bytes(done[0].data).decode())
    _say_where(settings_of(options))


def _record(options: argparse.Namespace, action: str, **facts: object) -> None:
    """Leave a record of what was written in the log file of today, where a server on the same folder leaves its own."""
    from komas.observability.audit import log_done
    from komas.observability.logs import adding_to, logs_of

    settings = settings_of(options)
    assert settings.data_dir is not None  # load() completes it
    by = f"the command line, {_account()}"
    with adding_to(logs_of(settings.data_dir), days=settings.log_days):
        log_done(action, {"by": by, **facts, "outcome": "done"})


def _account() -> str:
    """Who is at the command line; a container may run as an account that has no name."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "an account without a name"


def _say_where(settings: Settings) -> None:
    """On stderr, so that what is printed stays one JSON object."""
    from komas.signals.services import database_of

    hint = ""
    location = database_of(settings)
    if isinstance(location, Path) and (twin := twin_of(location.parent) / location.name).is_file():
        whose = "the demo's" if twin.parent.name == DEMO_FOLDER else "that of servers without --demo"
        hint = f"; {whose} is {twin}: {_choosing(twin.parent)}"
    print(f"written to {_database_name(settings)}{hint}", file=sys.stderr)


def _database_name(settings: Settings) -> str:
    """The database, without a password that its URL may hold."""
    from komas.signals.services import database_of

    location = database_of(settings)
    return str(location) if isinstance(location, Path) else "the database of the setting database_url"


@contextmanager
def _open_database(options: argparse.Namespace) -> Iterator[SignalDatabase]:
    from komas.signals.database import SignalDatabase
    from komas.signals.services import database_of

    location = database_of(settings_of(options))
    database = SignalDatabase(location)
    try:
        database.open()
        yield database
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{_database_name(settings_of(options))}: {error}") from error
    finally:
        database.close()


def _data(text: str) -> object:
    import msgspec

    from komas.model.codec import read_object

    try:
        return read_object(text)
    except msgspec.MsgspecError as error:
        raise CallerError(f"--data is not a JSON object: {error}") from None


def _user(text: str) -> str:
    from komas.signals.tokens import read_subject

    if (subject := read_subject(text)) is None:
        raise CallerError(f"got {text[:40]!r} for a user; accepted: 1 to 256 printable characters without spaces")
    return subject


def _print_vip(vip: Vip) -> None:
    from komas.model.codec import iso_ms

    state = "revoked" if vip.revoked else "active" if vip.is_active(time.time()) else "over"
    print(f"{vip.user_id}\t{state}\t{iso_ms(vip.until_s * 1000)}")
