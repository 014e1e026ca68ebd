"""Whether VIP is active, and until when. Sans-I/O.

What the store knows of a user goes before what a token says: a revocation wins, and so does a grant that is over.
"""

from __future__ import annotations

from komas.model.signals import Principal, Vip


def vip_until(principal: Principal, known: Vip | None) -> float | None:
    """The Unix second at which the principal's VIP ends, ``None`` where there is none; it may be over already."""
    if known is None:
        return principal.vip_until
    return None if known.revoked else known.until_s


def is_vip(principal: Principal, known: Vip | None, now_s: float) -> bool:
    """Whether VIP is active at a moment."""
    until = vip_until(principal, known)
    return until is not None and now_s < until
