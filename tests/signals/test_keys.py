"""Where keys come from: a setting, a file of the first run, a JWKS address."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec

from komas.errors import SettingError, Unauthorized
from komas.settings import Settings
from komas.signals.authenticator import Authenticator
from komas.signals.keys import (
    AGAIN_S,
    FETCH_S,
    REFRESH_S,
    Jwks,
    keys_of,
    rules_of,
    secret_file_of,
    secret_of,
    signer_of,
    stray_signer_of,
)
from komas.signals.services import open_signals
from komas.signals.tokens import TOKEN_LENGTH, Algorithm, Issuer, Keys, Rules, Verifier

NOW = 1_770_000_000
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("one", "two")}
URL = "https://issuer.example/jwks.json"


def _document(*names: str) -> bytes:
    tables = [jwt.get_algorithm_by_name("ES256").to_jwk(KEYS[name].public_key(), as_dict=True) for name in names]
    return json.dumps({"keys": [{**table, "kid": name} for name, table in zip(names, tables, strict=True)]}).encode()


def _token(name: str, kid: str | None = None) -> str:
    return jwt.encode({"sub": "1", "exp": NOW + 9}, KEYS[name], "ES256", headers={"kid": kid or name})


class _Issuer:
    """An issuer's address that answers as it is told, and counts."""

    def __init__(self, answer: Callable[[], httpx.Response]) -> None:
        self.answer = answer
        self.asked_at: list[float] = []
        self.keys = Keys.to_be_fetched(Algorithm.ES256)
        self.jwks = Jwks(URL, self.keys, httpx.MockTransport(self._handle))
        verifier = Verifier(Rules(algorithm=Algorithm.ES256), self.keys)
        self.authenticator = Authenticator(verifier, self.jwks, lambda: NOW * 1000)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        self.asked_at.append(trio.current_time())
        return self.answer()


def test_the_first_run_makes_a_secret_for_its_owner_alone(tmp_path: Path) -> None:
    """And every later one reads the same."""
    settings = Settings(data_dir=tmp_path / "new")
    secret = secret_of(settings)
    assert len(secret) >= 32
    assert secret_of(settings) == secret
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["jwt-secret"]
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "new" / "jwt-secret").stat().st_mode) == 0o600


def test_a_broken_secret_file_is_said(tmp_path: Path) -> None:
    """Not replaced: tokens that are out there would be void."""
    (tmp_path / "jwt-secret").write_text("short")
    with pytest.raises(SettingError, match="holds no secret"):
        secret_of(Settings(data_dir=tmp_path))
    (tmp_path / "jwt-secret").unlink()
    (tmp_path / "jwt-secret").mkdir()
    with pytest.raises(SettingError, match="cannot be read"):
        secret_of(Settings(data_dir=tmp_path))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(jwt_secret="x" * 32, jwt_public_key=Path("a.pem")),
        Settings(jwt_secret="x" * 32, jwt_jwks_url=URL),
        Settings(jwt_algorithm="ES256"),
        Settings(jwt_algorithm="ES256", jwt_secret="x" * 32, jwt_jwks_url=URL),
        Settings(jwt_algorithm="ES256", jwt_public_key=Path("a.pem"), jwt_jwks_url=URL),
        Settings(jwt_algorithm="ES256", jwt_public_key=Path("not-there.pem")),
    ],
)
def test_families_of_keys_are_never_mixed(settings: Settings) -> None:
    """Said at the start."""
    with pytest.raises(SettingError):
        keys_of(settings)


def test_rules_come_from_the_settings() -> None:
    """All four."""
    settings = Settings(jwt_algorithm="EdDSA", jwt_issuer="i", jwt_audience="a", jwt_leeway_s=3)
    assert rules_of(settings) == Rules(Algorithm.EDDSA, "i", "a", 3)
    keys, jwks = keys_of(Settings(jwt_algorithm="RS256", jwt_jwks_url=URL))
    assert jwks is not None
    assert isinstance(keys, Keys)


@asynccontextmanager
async def _issuing(answer: Callable[[], httpx.Response]) -> AsyncIterator[_Issuer]:
    """An issuer whose keys are kept fresh."""
    async with trio.open_nursery() as nursery:
        issuer = _Issuer(answer)
        nursery.start_soon(issuer.authenticator.run)
        yield issuer
        nursery.cancel_scope.cancel()


async def test_an_unknown_key_is_fetched_at_a_bounded_rate(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever invents names causes one request in ten seconds, and no stall."""
    async with _issuing(lambda: httpx.Response(200, content=_document("one"))) as issuer:
        assert (await issuer.authenticator.authenticate(_token("one"))).subject == "1"
        for number in range(100):
            with pytest.raises(Unauthorized):
                await issuer.authenticator.authenticate(_token("two", f"invented-{number}"))
        assert len(issuer.asked_at) == 1
        await trio.sleep(AGAIN_S)
        issuer.answer = lambda: httpx.Response(200, content=_document("one", "two"))
        assert (await issuer.authenticator.authenticate(_token("two"))).subject == "1"
        assert len(issuer.asked_at) == 2


async def test_many_at_once_cause_one_fetch(autojump_clock: trio.testing.MockClock) -> None:
    """They wait for the same answer, and who leaves does not take it away."""
    async with _issuing(lambda: httpx.Response(200, content=_document("one"))) as issuer:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(issuer.authenticator.authenticate, _token("one"))
            with trio.move_on_after(0):
                await issuer.authenticator.authenticate(_token("two"))
        assert len(issuer.asked_at) == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(500),
        lambda: httpx.Response(302, headers={"Location": "https://evil.example/"}),
        lambda: httpx.Response(200, content=b"<html>"),
        lambda: httpx.Response(200, content=b"[" * 100_000),
        lambda: httpx.Response(200, content=b"x" * 300_000),
    ],
)
async def test_known_keys_stay_when_a_fetch_fails(
    answer: Callable[[], httpx.Response], autojump_clock: trio.testing.MockClock
) -> None:
    """An error, a redirect, no JSON, too much."""
    async with _issuing(lambda: httpx.Response(200, content=_document("one"))) as issuer:
        await trio.sleep(AGAIN_S)
        issuer.answer = answer
        with pytest.raises(Unauthorized):
            await issuer.authenticator.authenticate(_token("two"))
        assert len(issuer.asked_at) == 2
        assert (await issuer.authenticator.authenticate(_token("one"))).subject == "1"


async def test_an_issuer_that_does_not_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """After five seconds, each time."""

    class _Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.sleep_forever()
            raise AssertionError

    async with trio.open_nursery() as nursery:
        jwks = Jwks(URL, Keys.to_be_fetched(Algorithm.ES256), _Silent())
        nursery.start_soon(jwks.run)
        began = trio.current_time()
        await jwks.refresh()
        assert trio.current_time() - began == FETCH_S
        nursery.cancel_scope.cancel()


async def test_a_withdrawn_key_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """No later than at the next refresh."""
    async with _issuing(lambda: httpx.Response(200, content=_document("one", "two"))) as issuer:
        await trio.sleep(1)
        assert (await issuer.authenticator.authenticate(_token("two"))).subject == "1"
        issuer.answer = lambda: httpx.Response(200, content=_document("one"))
        await trio.sleep(REFRESH_S)
        with pytest.raises(Unauthorized):
            await issuer.authenticator.authenticate(_token("two"))


def _twins(folder: Path) -> tuple[Settings, Settings]:
    """A server and the demo of the same user."""
    return Settings(data_dir=folder), Settings(data_dir=folder / "demo", demo=True)


def _issue(settings: Settings) -> str:
    return Issuer(secret_of(settings), rules_of(settings)).issue("1", now_s=NOW, ttl_s=60)


def test_the_store_of_a_token_is_found(tmp_path: Path) -> None:
    """The demo and a server have a secret each; which one signed a token is seen without a setting."""
    server, demo = _twins(tmp_path)
    ours, theirs = _issue(server), _issue(demo)
    for settings in (server, demo):
        assert signer_of(ours, settings) == secret_file_of(server)
        assert signer_of(theirs, settings) == secret_file_of(demo)
    assert stray_signer_of(ours, server) is None
    assert stray_signer_of(theirs, server) == secret_file_of(demo)
    assert stray_signer_of(ours, demo) == secret_file_of(server)
    with_secret = Settings(data_dir=tmp_path, jwt_secret="x" * 32)
    assert stray_signer_of(ours, with_secret) == secret_file_of(server)


@pytest.mark.parametrize("token", ["", "a.b.c", "é.é.é", "x" * (TOKEN_LENGTH + 1), _token("one")])
def test_a_token_of_no_store_is_of_none(token: str, tmp_path: Path) -> None:
    """Whatever strangers send; and no secret is made in order to find out."""
    assert signer_of(token, Settings(data_dir=tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


async def test_the_log_names_the_secret_of_a_stray_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the demo's at a server, and the reverse: for the log alone, once a minute; other bad tokens are not named."""
    for settings, other in (_twins(tmp_path), _twins(tmp_path)[::-1]):
        now_ms = NOW * 1000
        async with open_signals(settings, lambda: now_ms) as signals:  # noqa: B023 - used in this turn alone
            caplog.clear()
            for _ in range(90):
                now_ms += 1000
                for token in (_issue(other), "a.b.c", _issue(settings) + "x"):
                    with pytest.raises(Unauthorized) as refused:
                        await signals.authenticator.authenticate(token)
                    assert str(tmp_path) not in str(refused.value)
            told = [record for record in caplog.records if record.name == "komas.signals.authenticator"]
            assert [str(secret_file_of(other)) in str(vars(record)["reason"]) for record in told] == [True, True]
