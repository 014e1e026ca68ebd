"""JWT → Principal; the only file that imports jwt. Sans-I/O.

The algorithm is the configuration's, never the token's, and one verifier knows one family of keys. A token is read
twice: by us, strictly (no duplicate names, no number that is none), then by PyJWT, for its signature.
"""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NoReturn

import jwt
import msgspec

from komas.errors import SettingError, Unauthorized
from komas.model.signals import DAY_S, Principal
from komas.settings import SECRET_BYTES

TOKEN_LENGTH: Final = 16_384  # characters; those of large issuers (groups, roles) reach nine thousand
SUBJECT_LENGTH: Final = 256
LATEST_S: Final = 2**53
SCOPE_PUBLISH: Final = "signals:publish"


class Algorithm(StrEnum):
    """What a token may be signed with."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


_KEY_TYPES: Final = {Algorithm.RS256: "RSA", Algorithm.ES256: "EC", Algorithm.EDDSA: "OKP"}
_RSA_BITS: Final = 2048  # RFC 7518, 3.3


class UnknownKey(Unauthorized):
    """The token names a key that is not among those that are known."""


class Rules(msgspec.Struct, frozen=True):
    """What a token must be; ``leeway_s`` is allowed between the issuer's clock and ours, in seconds."""

    algorithm: Algorithm = Algorithm.HS256
    issuer: str = ""
    audience: str = ""
    leeway_s: float = 0.0


class Keys:
    """The keys of one algorithm: one for all tokens, or several by their names (``kid``)."""

    def __init__(self, algorithm: Algorithm, only: jwt.PyJWK | None = None) -> None:
        self._algorithm = algorithm
        self._only = only
        self._named: Mapping[str, jwt.PyJWK] = {}

    @classmethod
    def of_secret(cls, secret: bytes) -> Keys:
        """One secret, for HS256; raises ``SettingError`` for a short one."""
        if len(secret) < SECRET_BYTES:
            raise SettingError(f"jwt_secret: {len(secret)} bytes given; accepted: at least {SECRET_BYTES} bytes")
        encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        return cls(Algorithm.HS256, jwt.PyJWK({"kty": "oct", "k": encoded}, Algorithm.HS256))

    @classmethod
    def of_pem(cls, algorithm: Algorithm, pem: bytes) -> Keys:
        """One public key; raises ``SettingError`` for what is none of the algorithm's."""
        try:
            maker = jwt.get_algorithm_by_name(algorithm)
            key = maker.prepare_key(pem)
            if hasattr(key, "private_bytes"):
                raise SettingError("jwt_public_key: this is a private key; accepted: the public key alone")
            table = maker.to_jwk(key, as_dict=True)
            return cls(algorithm, _checked_key(table, algorithm))
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise SettingError(
                f"jwt_public_key: no public key for {algorithm} ({type(error).__name__}); accepted: a PEM file"
            ) from error

    @classmethod
    def to_be_fetched(cls, algorithm: Algorithm) -> Keys:
        """No key yet: they come from a JWKS document."""
        return cls(algorithm)

    def replace(self, document: bytes) -> int:
        """Take the usable keys of a JWKS document instead of those known; returns how many.

        Raises ``ValueError`` for what is no such document.
        """
        table = json.loads(document)
        if not isinstance(table, dict) or not isinstance(table.get("keys"), list):
            raise ValueError("not a JWKS document")  # noqa: TRY004 - of what was fetched, not of the argument
        named: dict[str, jwt.PyJWK] = {}
        for key in table["keys"]:
            try:
                named[str(key.get("kid", ""))] = _checked_key(key, self._algorithm)
            except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):
                continue  # of another algorithm or use: a JWKS holds the issuer's keys for everything
        self._named = named
        return len(named)

    def find(self, name: str | None) -> jwt.PyJWK:
        """The key that a token names; raises ``UnknownKey``."""
        if self._only is not None:
            return self._only
        if name is None and len(self._named) == 1:
            return next(iter(self._named.values()))
        key = self._named.get(name or "")
        if key is None:
            raise UnknownKey("unknown key")
        return key


def _checked_key(table: Mapping[str, object], algorithm: Algorithm) -> jwt.PyJWK:
    if table.get("kty") != _KEY_TYPES.get(algorithm):
        raise ValueError("a key of another type")
    if algorithm is Algorithm.ES256 and table.get("crv") != "P-256":
        raise ValueError("another curve")
    if table.get("use", "sig") != "sig" or table.get("alg", algorithm) != algorithm:
        raise ValueError("a key for another use")
    key = jwt.PyJWK(dict(table), algorithm)
    if hasattr(key.key, "private_bytes"):
        raise ValueError("a private key has no place here")
    if algorithm is Algorithm.RS256 and key.key.key_size < _RSA_BITS:
        raise ValueError("a short key")
    return key


class Verifier:
    """Takes tokens apart; raises ``Unauthorized`` for every one that proves nothing."""

    def __init__(self, rules: Rules, keys: Keys) -> None:
        self._rules = rules
        self._keys = keys
        self._jwt = jwt.PyJWT(
            options={
                "enforce_minimum_key_length": True,
                "require": ["exp", "sub"],
                # Times are compared by us: PyJWT reads the system's clock, and cuts off fractions.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": bool(rules.audience),
            }
        )

    def verify(self, token: str, now_s: float) -> Principal:
        """Who a token speaks for; raises ``UnknownKey`` where fetching keys may help."""
        header, claims = _read(token)
        if header.get("alg") != self._rules.algorithm:
            raise Unauthorized("another algorithm")
        name = header.get("kid")
        if name is not None and not isinstance(name, str):
            raise Unauthorized("kid is not a text")
        key = self._keys.find(name)
        try:
            self._jwt.decode(
                token,
                key,
                algorithms=[self._rules.algorithm.value],
                issuer=self._rules.issuer or None,
                audience=self._rules.audience or None,
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthorized(type(error).__name__) from None  # its text may quote the token
        self._check_times(claims, now_s)
        return msgspec.structs.replace(_principal(claims), leeway_s=self._rules.leeway_s)

    def _check_times(self, claims: dict[str, object], now_s: float) -> None:
        expires, not_before, issued = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
        if expires is None or now_s >= expires + self._rules.leeway_s:
            raise Unauthorized("expired")
        if any(moment is not None and moment > now_s + self._rules.leeway_s for moment in (not_before, issued)):
            raise Unauthorized("not valid yet")


class Issuer:
    """Signs tokens with the secret that the server verifies them with."""

    def __init__(self, secret: bytes, rules: Rules) -> None:
        if rules.algorithm is not Algorithm.HS256:
            raise SettingError(f"jwt_algorithm is {rules.algorithm}: tokens are issued by who holds the private key")
        Keys.of_secret(secret)
        self._secret = secret
        self._rules = rules

    def issue(
        self, subject: str, *, now_s: int, ttl_s: int, vip_days: int | None = None, scopes: frozenset[str] = frozenset()
    ) -> str:
        """A token for ``ttl_s`` seconds from now."""
        claims: dict[str, object] = {"sub": subject, "type": "access", "iat": now_s, "exp": now_s + ttl_s}
        if vip_days is not None:
            claims["vip_until"] = now_s + vip_days * DAY_S
        if scopes:
            claims["scope"] = " ".join(sorted(scopes))
        if self._rules.issuer:
            claims["iss"] = self._rules.issuer
        if self._rules.audience:
            claims["aud"] = self._rules.audience
        return jwt.encode(claims, self._secret, Algorithm.HS256)


def is_signed_with(token: str, secret: bytes) -> bool:
    """Whether a token bears the signature of an HS256 secret, whatever it says."""
    try:
        _read(token)
        jwt.PyJWS().decode(token, secret, algorithms=[Algorithm.HS256.value])
    except (Unauthorized, jwt.PyJWTError, ValueError, TypeError):
        return False
    return True


def inspect(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Header and claims of a token, nothing verified; raises ``Unauthorized`` for what is none."""
    return _read(token)


def _read(token: str) -> tuple[dict[str, object], dict[str, object]]:
    if not token:
        raise Unauthorized("no token")
    if len(token) > TOKEN_LENGTH:
        raise Unauthorized(f"a token of {len(token)} characters is too long; accepted: {TOKEN_LENGTH}")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature: RFC 7515, 3.1
        raise Unauthorized("not a token")
    return _segment(parts[0]), _segment(parts[1])


def _segment(text: str) -> dict[str, object]:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        table = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (binascii.Error, ValueError, RecursionError):
        raise Unauthorized("not a token") from None
    if not isinstance(table, dict):
        raise Unauthorized("not a token")
    return table


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("duplicate names: readers differ on which of them counts (RFC 7519, 4)")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _moment(claims: dict[str, object], name: str) -> float | None:
    """A NumericDate (RFC 7519, 2): seconds since the epoch, possibly with a fraction."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LATEST_S:
        raise Unauthorized(f"{name} is not a number of seconds")
    return value


def _principal(claims: dict[str, object]) -> Principal:
    named, expires = claims["sub"], _moment(claims, "exp")
    assert expires is not None  # checked before
    subject = read_subject(named) if isinstance(named, str) else None
    if subject is None:
        raise Unauthorized("sub is not a user")
    if claims.get("type", "access") != "access":
        raise Unauthorized("not an access token")
    return Principal(subject, expires, _moment(claims, "vip_until"), _scopes(claims.get("scope", "")))


def read_subject(text: str) -> str | None:
    """The user that a text names, in Unicode's composed form (NFC): one way of writing each name.

    ``None`` for what can name no user: it has 1 to 256 printable characters, and no spaces.
    """
    subject = unicodedata.normalize("NFC", text)
    is_subject = 0 < len(subject) <= SUBJECT_LENGTH and subject.isprintable() and " " not in subject
    return subject if is_subject else None


def _scopes(value: object) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise Unauthorized("scope is neither a text nor a list of texts")
