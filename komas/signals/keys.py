"""Where the keys that tokens are verified with come from: a setting, a file made at the first run, a JWKS address."""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import trio

from komas.errors import SettingError, words_of
from komas.secret_files import read_or_make
from komas.settings import SECRET_BYTES, Settings, twin_of
from komas.signals.tokens import Algorithm, Keys, Rules, is_signed_with
from komas.venues.core.proxies import LOOPBACK_DIRECT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

log = logging.getLogger(__name__)

SECRET_FILE: Final = "jwt-secret"  # noqa: S105 - the file's name
FETCH_S: Final = 5.0
REFRESH_S: Final = 600.0  # a key that its issuer has withdrawn is forgotten no later than that
AGAIN_S: Final = 10.0  # an attacker invents key names as fast as the line allows: it costs one request in ten seconds
DOCUMENT_BYTES: Final = 256 * 1024


def secret_file_of(settings: Settings) -> Path:
    """Where the secret is kept that the first run makes."""
    assert settings.data_dir is not None  # load() completes it
    return settings.data_dir / SECRET_FILE


def signer_of(token: str, settings: Settings) -> Path | None:
    """The file whose secret a token is signed with, of this data folder or its twin: the demo's, or a server's."""
    own = secret_file_of(settings)
    for file in (own, twin_of(own.parent) / SECRET_FILE):
        with suppress(OSError):
            if is_signed_with(token, file.read_bytes().strip()):
                return file
    return None


def stray_signer_of(token: str, settings: Settings) -> Path | None:
    """The same, unless tokens are verified with the secret in that file."""
    is_verified_with_own = settings.jwt_algorithm == Algorithm.HS256 and not settings.jwt_secret
    file = signer_of(token, settings)
    return None if is_verified_with_own and file == secret_file_of(settings) else file


def rules_of(settings: Settings) -> Rules:
    """What tokens must be."""
    return Rules(
        Algorithm(settings.jwt_algorithm), settings.jwt_issuer, settings.jwt_audience, leeway_s=settings.jwt_leeway_s
    )


def secret_of(settings: Settings) -> bytes:
    """The secret of HS256: the setting's, or the one that the first run made in the data folder."""
    if settings.jwt_secret:
        return settings.jwt_secret.encode()
    file = secret_file_of(settings)
    secret = read_or_make(file)
    if len(secret) < SECRET_BYTES:
        raise SettingError(
            f"data_dir: {file} holds no secret of {SECRET_BYTES} bytes; remove it to have a new one made"
        )
    return secret


def keys_of(settings: Settings) -> tuple[Keys, Jwks | None]:
    """The keys that the settings name; those of a JWKS address are fetched by ``Jwks.run()``."""
    algorithm = Algorithm(settings.jwt_algorithm)
    if algorithm is Algorithm.HS256:
        if settings.jwt_public_key or settings.jwt_jwks_url:
            raise SettingError(
                "jwt_algorithm is HS256, which has no public keys; accepted with them: RS256 ES256 EdDSA"
            )
        return Keys.of_secret(secret_of(settings)), None
    if settings.jwt_secret or bool(settings.jwt_public_key) == bool(settings.jwt_jwks_url):
        raise SettingError(
            f"jwt_algorithm is {algorithm}: set jwt_public_key or jwt_jwks_url, one of them, and no secret"
        )
    if settings.jwt_public_key:
        try:
            pem = settings.jwt_public_key.read_bytes()
        except OSError as error:
            raise SettingError(f"jwt_public_key: {settings.jwt_public_key} cannot be read: {error.strerror}") from error
        return Keys.of_pem(algorithm, pem), None
    keys = Keys.to_be_fetched(algorithm)
    return keys, Jwks(settings.jwt_jwks_url, keys)


class Jwks:
    """The issuer's published keys: fetched at the start, now and then, and when a token names an unknown one.

    Only ``run()`` fetches: a cancelled caller does not cancel the fetch that others wait for.
    """

    def __init__(self, url: str, keys: Keys, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._url = url
        self._keys = keys
        self._transport = transport
        self._fetched_at = -AGAIN_S
        self._is_wanted = trio.Event()
        self._attempted = trio.Event()

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            self._is_wanted = trio.Event()
            await self._attempt()
            self._fetched_at = trio.current_time()
            self._attempted.set()
            self._attempted = trio.Event()
            with trio.move_on_after(REFRESH_S):
                await self._is_wanted.wait()

    async def refresh(self) -> None:
        """Wait for keys that are fetched from now on; returns at once when that was done just now."""
        if trio.current_time() - self._fetched_at >= AGAIN_S:
            self._is_wanted.set()
            await self._attempted.wait()

    async def _attempt(self) -> None:
        """Fetch the keys; those known stay when it fails."""
        import httpx  # noqa: PLC0415 - only an issuer's address needs it

        try:
            with trio.fail_after(FETCH_S):
                count = self._keys.replace(await self._fetch())
            log.info("keys fetched", extra={"usable": count})
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError, trio.TooSlowError) as error:
            log.warning("keys could not be fetched: %s", words_of(error))

    async def _fetch(self) -> bytes:
        import httpx  # noqa: PLC0415 - as above

        async with (
            httpx.AsyncClient(transport=self._transport, timeout=FETCH_S, mounts=LOOPBACK_DIRECT) as client,
            client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != httpx.codes.OK:  # a redirect is none of the address's owner's promises
                raise ValueError(f"HTTP {response.status_code}")
            document = b""
            async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes())) as chunks:
                async for chunk in chunks:
                    document += chunk
                    if len(document) > DOCUMENT_BYTES:
                        raise ValueError(f"longer than {DOCUMENT_BYTES} bytes")
            return document
