"""Who is VIP: the store goes before the token."""

from __future__ import annotations

import pytest

from komas.model.signals import Principal, Vip
from komas.signals.entitlements import is_vip, vip_until

NOW = 1_770_000_000.5


@pytest.mark.parametrize(
    ("token_until", "known", "active"),
    [
        (None, None, False),
        (1_770_000_001, None, True),
        (1_770_000_000, None, False),
        (None, Vip("1", 1_770_000_001, revoked=False, version=1), True),
        (None, Vip("1", 1_770_000_000, revoked=False, version=1), False),
        (1_770_000_001, Vip("1", 1_770_000_000, revoked=False, version=1), False),
        (1_770_000_001, Vip("1", 1_770_000_000, revoked=True, version=1), False),
        (1_770_000_001, Vip("1", 1_880_000_000, revoked=True, version=1), False),
        (1_760_000_000, Vip("1", 1_880_000_000, revoked=False, version=1), True),
    ],
)
def test_vip_is_active(token_until: int | None, known: Vip | None, *, active: bool) -> None:
    """By a grant that is not over, or, of an unknown user, by the token; never after a revocation."""
    principal = Principal("1", 2_000_000_000, token_until)
    assert is_vip(principal, known, NOW) is active
    until = vip_until(principal, known)
    assert (until is not None and until > NOW) is active
