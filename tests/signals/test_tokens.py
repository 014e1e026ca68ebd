"""Tokens: what is taken, and every attack that is not, each by its name."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from komas.errors import SettingError, Unauthorized
from komas.model.signals import Principal
from komas.signals.tokens import (
    TOKEN_LENGTH,
    Algorithm,
    Issuer,
    Keys,
    Rules,
    UnknownKey,
    Verifier,
    inspect,
    read_subject,
)

NOW = 1_770_000_000
SECRET = b"a secret of thirty-two bytes, and more"
GOOD = {"sub": "123", "exp": NOW + 60}

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[Algorithm, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = {
    Algorithm.RS256: RSA_KEY,
    Algorithm.ES256: EC_KEY,
    Algorithm.EDDSA: ED_KEY,
}


def _pem(algorithm: Algorithm) -> bytes:
    return (
        PRIVATE[algorithm]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def _jwk(algorithm: Algorithm, **more: object) -> dict[str, object]:
    table = jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE[algorithm].public_key(), as_dict=True)
    return {**table, **more}


def _segment(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _signed(claims: object, header: object = None, secret: bytes = SECRET) -> str:
    """A token with a good signature over whatever it is."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    body = f"{_segment(head)}.{_segment(claims)}"
    signature = jwt.get_algorithm_by_name("HS256").sign(body.encode(), secret)
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _verifier(**rules: Any) -> Verifier:
    return Verifier(Rules(**rules), Keys.of_secret(SECRET))


def test_a_good_token_speaks_for_its_user() -> None:
    """With what it is good for."""
    token = Issuer(SECRET, Rules()).issue(
        "123", now_s=NOW, ttl_s=60, vip_days=30, scopes=frozenset({"signals:publish"})
    )
    principal = _verifier().verify(token, NOW)
    assert principal == Principal("123", NOW + 60, NOW + 30 * 86_400, frozenset({"signals:publish"}))
    assert principal.user_id == 123


@pytest.mark.parametrize(
    ("subject", "user_id"),
    [("123", 123), ("0", 0), ("007", "007"), ("abc", "abc"), ("-1", "-1"), ("1.0", "1.0"), ("١٢٣", "١٢٣"), ("²", "²")],
)
def test_user_id_is_an_integer_when_sub_is_one(subject: str, user_id: int | str) -> None:
    """And nothing that only looks like one."""
    assert Principal(subject, 0).user_id == user_id


@pytest.mark.parametrize("algorithm", list(PRIVATE))
def test_each_algorithm_takes_its_own_tokens_and_no_others(algorithm: Algorithm) -> None:
    """By a PEM file, and by a JWKS document."""
    by_name = Keys.to_be_fetched(algorithm)
    assert by_name.replace(json.dumps({"keys": [_jwk(kind, kid=str(kind)) for kind in PRIVATE]}).encode()) == 1
    for keys in (Keys.of_pem(algorithm, _pem(algorithm)), by_name):
        verifier = Verifier(Rules(algorithm=algorithm), keys)
        for other, private in PRIVATE.items():
            token = jwt.encode(GOOD, private, other, headers={"kid": str(other)})
            if other is algorithm:
                assert verifier.verify(token, NOW).subject == "123"
            else:
                with pytest.raises(Unauthorized):
                    verifier.verify(token, NOW)


ATTACKS: Mapping[str, str] = {
    "no token": "",
    "garbage": "garbage",
    "three dots": "...",
    "not base64": "ä.ö.ü",
    "alg none": f"{_segment({'alg': 'none'})}.{_segment(GOOD)}.",
    "alg none, with capitals": f"{_segment({'alg': 'nOnE'})}.{_segment(GOOD)}.",
    "no alg": _signed(GOOD, {"typ": "JWT"}),
    "alg is a number": _signed(GOOD, {"alg": 1}),
    "another HMAC": jwt.encode(GOOD, SECRET * 2, "HS512"),
    "wrong secret": _signed(GOOD, secret=b"another secret of thirty-two bytes ..."),
    "signature cut": _signed(GOOD)[:-1],
    "signature of another token": f"{_segment({'alg': 'HS256'})}.{_segment(GOOD)}.{_signed({}).rpartition('.')[2]}",
    "kid is a path": _signed(GOOD, {"alg": "HS256", "kid": "../../dev/null"}, secret=b"\0" * 32),
    "kid is SQL": _signed(GOOD, {"alg": "HS256", "kid": "' UNION SELECT 'x' --"}, secret=b"x" * 32),
    "kid is a list": _signed(GOOD, {"alg": "HS256", "kid": ["a"]}),
    "critical header": _signed(GOOD, {"alg": "HS256", "crit": ["b64"], "b64": False}),
    "expired by a second": _signed({"sub": "123", "exp": NOW - 1}),
    "expires now": _signed({"sub": "123", "exp": NOW}),
    "not yet valid": _signed({**GOOD, "nbf": NOW + 1}),
    "issued in the future": _signed({**GOOD, "iat": NOW + 1}),
    "no exp": _signed({"sub": "123"}),
    "exp is null": _signed({"sub": "123", "exp": None}),
    "exp is a text": _signed({"sub": "123", "exp": str(NOW + 60)}),
    "exp is a truth": _signed({"sub": "123", "exp": True}),
    "exp is 1e400": _signed('{"sub": "123", "exp": 1e400}'),
    "exp is Infinity": _signed('{"sub": "123", "exp": Infinity}'),
    "exp has a thousand digits": _signed(f'{{"sub": "123", "exp": {"9" * 1000}}}'),
    "exp is far away": _signed({"sub": "123", "exp": 2**53 + 1}),
    "nbf is a text": _signed({**GOOD, "nbf": "0"}),
    "refresh token": _signed({**GOOD, "type": "refresh"}),
    "type is a number": _signed({**GOOD, "type": 1}),
    "sub missing": _signed({"exp": NOW + 60}),
    "sub is a number": _signed({"sub": 123, "exp": NOW + 60}),
    "sub is empty": _signed({"sub": "", "exp": NOW + 60}),
    "sub with a new line": _signed({"sub": "123\nadmin", "exp": NOW + 60}),
    "sub of a megabyte": _signed({"sub": "1" * 10**6, "exp": NOW + 60}),
    "sub of 257 letters": _signed({"sub": "1" * 257, "exp": NOW + 60}),
    "duplicate claims": _signed(f'{{"sub": "123", "exp": {NOW + 60}, "sub": "1"}}'),
    "duplicate header": _signed(GOOD, '{"alg": "HS256", "alg": "none"}'),
    "vip_until is a text": _signed({**GOOD, "vip_until": "9999999999"}),
    "scope is a table": _signed({**GOOD, "scope": {"signals:publish": True}}),
    "a hundred kilobytes": _signed({**GOOD, "x": "x" * 100_000}),
    "claims are a list": _signed([1, 2]),
    "deeply nested": _signed("[" * 3000 + "]" * 3000),
    "JSON with a surrogate": _signed('{"sub": "\\ud800", "exp": 9999999999}'),
    "space in base64": _signed(GOOD).replace(".", " .", 1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack(attack: str) -> None:
    """Refused, and the refusal does not quote the token."""
    token = ATTACKS[attack]
    with pytest.raises(Unauthorized) as caught:
        _verifier().verify(token, NOW)
    assert len(str(caught.value)) < 80
    assert not any(part in str(caught.value) for part in token.split(".") if len(part) > 8)


@pytest.mark.parametrize("algorithm", list(PRIVATE))
@pytest.mark.parametrize("form", ["pem", "raw", "jwk"])
def test_attack_hs256_signed_with_the_public_key(algorithm: Algorithm, form: str) -> None:
    """The key that everybody knows is no secret."""
    public = PRIVATE[algorithm].public_key()
    secret = {
        "pem": _pem(algorithm),
        "raw": public.public_bytes(
            *(
                (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
                if algorithm is Algorithm.EDDSA
                else (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            )
        ),
        "jwk": json.dumps(_jwk(algorithm)).encode(),
    }[form]
    verifier = Verifier(Rules(algorithm=algorithm), Keys.of_pem(algorithm, _pem(algorithm)))
    for header in ({"alg": "HS256"}, {"alg": str(algorithm)}):
        with pytest.raises(Unauthorized):
            verifier.verify(_signed(GOOD, header, secret=secret), NOW)


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_attack_a_token_that_brings_its_own_key(name: str) -> None:
    """Ignored: nothing is fetched, and the signature is not ours."""
    own = ec.generate_private_key(ec.SECP256R1())
    value = {"jku": "https://evil.example/jwks", "x5u": "https://evil.example/x5u", "x5c": ["MIIB"]}.get(name)
    header = {name: value or jwt.get_algorithm_by_name("ES256").to_jwk(own.public_key(), as_dict=True)}
    verifier = Verifier(Rules(algorithm=Algorithm.ES256), Keys.of_pem(Algorithm.ES256, _pem(Algorithm.ES256)))
    with pytest.raises(Unauthorized):
        verifier.verify(jwt.encode(GOOD, own, "ES256", headers=header), NOW)


def test_issuer_and_audience_are_checked_when_configured_and_only_then() -> None:
    """Missing is wrong, too."""
    strict = _verifier(issuer="https://issuer.example", audience="komas")
    claims = {**GOOD, "iss": "https://issuer.example", "aud": "komas"}
    assert strict.verify(_signed(claims), NOW).subject == "123"
    for wrong in (
        {**claims, "iss": "x"},
        {**claims, "aud": "x"},
        {**GOOD, "aud": "komas"},
        {**GOOD, "iss": claims["iss"]},
    ):
        with pytest.raises(Unauthorized):
            strict.verify(_signed(wrong), NOW)
    assert _verifier().verify(_signed({**claims, "aud": ["a", "b"]}), NOW).subject == "123"


def test_leeway_is_a_setting() -> None:
    """Both ways."""
    lenient = _verifier(leeway_s=5.0)
    assert lenient.verify(_signed({"sub": "1", "exp": NOW - 4, "nbf": NOW + 4}), NOW).expires_at == NOW - 4
    with pytest.raises(Unauthorized):
        lenient.verify(_signed({"sub": "1", "exp": NOW - 5}), NOW)


def test_times_may_have_a_fraction() -> None:
    """RFC 7519, 2: a NumericDate may be no whole number; it counts to its fraction."""
    claims = {"sub": "1", "exp": NOW + 0.5, "iat": NOW - 0.25, "nbf": NOW - 0.5}
    assert _verifier().verify(_signed(claims), NOW + 0.4).expires_at == NOW + 0.5
    with pytest.raises(Unauthorized, match="expired"):
        _verifier().verify(_signed(claims), NOW + 0.5)
    with pytest.raises(Unauthorized, match="not valid yet"):
        _verifier().verify(_signed(claims), NOW - 0.3)


def test_a_long_token_is_taken_and_one_too_long_is_said_to_be() -> None:
    """Of issuers with groups and roles in them; the limit is in the words."""
    long = _signed({"sub": "1", "exp": NOW + 60, "groups": ["x" * 100] * 80})
    assert 9_000 < len(long) < TOKEN_LENGTH
    assert _verifier().verify(long, NOW).subject == "1"
    with pytest.raises(Unauthorized, match=f"too long; accepted: {TOKEN_LENGTH}"):
        _verifier().verify(_signed({"sub": "1", "exp": NOW + 60, "groups": ["x" * 100] * 160}), NOW)


def test_a_user_has_one_way_of_being_written() -> None:
    """Composed and decomposed letters look alike, and are one user: NFC, on every road."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert read_subject(decomposed) == read_subject(composed) == composed
    assert _verifier().verify(_signed({"sub": decomposed, "exp": NOW + 60}), NOW).subject == composed


def test_scopes_are_a_text_or_a_list() -> None:
    """As issuers write them."""
    for scope in ("a signals:publish", ["a", "signals:publish"]):
        assert _verifier().verify(_signed({**GOOD, "scope": scope}), NOW).scopes == {"a", "signals:publish"}


def test_keys_are_found_by_name() -> None:
    """One key needs none; a name that is not there may be there after a fetch."""
    keys = Keys.to_be_fetched(Algorithm.ES256)
    verifier = Verifier(Rules(algorithm=Algorithm.ES256), keys)
    named = jwt.encode(GOOD, EC_KEY, "ES256", headers={"kid": "one"})
    with pytest.raises(UnknownKey):
        verifier.verify(named, NOW)
    keys.replace(json.dumps({"keys": [_jwk(Algorithm.ES256, kid="one")]}).encode())
    assert verifier.verify(named, NOW).subject == "123"
    assert verifier.verify(jwt.encode(GOOD, EC_KEY, "ES256"), NOW).subject == "123"
    with pytest.raises(UnknownKey):
        verifier.verify(jwt.encode(GOOD, EC_KEY, "ES256", headers={"kid": "../one"}), NOW)


def test_a_jwks_document_gives_only_what_fits() -> None:
    """Another use, another curve, a short key, a private key, a symmetric key: passed over."""
    other_curve = ec.generate_private_key(ec.SECP384R1()).public_key()
    documents = [
        _jwk(Algorithm.ES256, kid="enc", use="enc"),
        _jwk(Algorithm.ES256, kid="alg", alg="ES384"),
        {**jwt.get_algorithm_by_name("ES384").to_jwk(other_curve, as_dict=True), "kid": "curve"},
        {"kty": "oct", "k": _segment("x" * 32), "kid": "oct"},
        {**jwt.get_algorithm_by_name("ES256").to_jwk(EC_KEY, as_dict=True), "kid": "private"},
        {"kty": "EC", "crv": "P-256", "kid": "broken"},
        "text",
        None,
        _jwk(Algorithm.ES256, kid="good"),
    ]
    keys = Keys.to_be_fetched(Algorithm.ES256)
    assert keys.replace(json.dumps({"keys": documents}).encode()) == 1
    assert keys.find("good").key_id == "good"
    short = rsa.generate_private_key(65537, 1024).public_key()
    table = jwt.get_algorithm_by_name("RS256").to_jwk(short, as_dict=True)
    assert Keys.to_be_fetched(Algorithm.RS256).replace(json.dumps({"keys": [table]}).encode()) == 0
    for wrong in (b"[]", b'{"keys": 1}', b"<html>"):
        with pytest.raises(ValueError):
            keys.replace(wrong)
    assert keys.find("good").key_id == "good"


@pytest.mark.parametrize("algorithm", list(PRIVATE))
def test_a_wrong_pem_file_is_said_at_the_start(algorithm: Algorithm) -> None:
    """Another algorithm's, a private key, text."""
    others = [_pem(other) for other in PRIVATE if other is not algorithm]
    private = PRIVATE[algorithm].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for wrong in (*others, private, b"hello"):
        with pytest.raises(SettingError, match="jwt_public_key"):
            Keys.of_pem(algorithm, wrong)


def test_a_short_secret_is_said_at_the_start() -> None:
    """Thirty-one bytes."""
    with pytest.raises(SettingError, match="at least 32 bytes"):
        Keys.of_secret(b"x" * 31)


def test_tokens_are_issued_by_who_holds_the_secret() -> None:
    """With what the rules ask for."""
    rules = Rules(issuer="me", audience="you")
    token = Issuer(SECRET, rules).issue("a", now_s=NOW, ttl_s=1)
    assert Verifier(rules, Keys.of_secret(SECRET)).verify(token, NOW).subject == "a"
    with pytest.raises(SettingError, match="private key"):
        Issuer(SECRET, Rules(algorithm=Algorithm.ES256))
    header, claims = inspect(token)
    assert header["alg"] == "HS256"
    assert claims["aud"] == "you"


@given(st.text(max_size=200) | st.binary(max_size=150).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_nothing_but_unauthorized_is_raised(text: str) -> None:
    """Whatever comes."""
    for token in (text, f"{text}.{text}.{text}", f"{_segment({'alg': 'HS256'})}.{text}.x"):
        with pytest.raises(Unauthorized):
            _verifier().verify(token, NOW)
