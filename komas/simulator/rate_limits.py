"""What each address has used of its minute, and who is banned for not stopping at 429."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

MINUTE_S = 60.0
PATIENCE = 10  # calls in spite of 429 before the ban
FIRST_BAN_S = 120.0  # two minutes, growing up to three days
LONGEST_BAN_S = 3 * 86_400.0
BANNED = 418


class Verdict(NamedTuple):
    """Whether a call is served (200), and for how long to stay away when it is not."""

    status: int
    used: int
    retry_after_s: int = 0


@dataclass
class Account:
    """One address."""

    minute: int = 0
    used: int = 0
    ignored: int = 0
    banned_until_s: float = 0.0
    ban_s: float = FIRST_BAN_S


class Ledger:
    """Accounts by address; the minute is the clock's."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._accounts: dict[str, Account] = {}

    def charge(self, address: str, weight: int, now_s: float) -> Verdict:
        """Enter a call."""
        account = self._accounts.setdefault(address, Account())
        if now_s < account.banned_until_s:
            return Verdict(BANNED, account.used, _whole(account.banned_until_s - now_s))
        if account.minute != int(now_s // MINUTE_S):
            account.minute, account.used, account.ignored = int(now_s // MINUTE_S), 0, 0
        account.used += weight
        if account.used <= self.limit:
            return Verdict(HTTPStatus.OK, account.used)
        return self._exceeded(account, now_s)

    def _exceeded(self, account: Account, now_s: float) -> Verdict:
        account.ignored += 1
        if account.ignored <= PATIENCE:
            return Verdict(HTTPStatus.TOO_MANY_REQUESTS, account.used, _whole(MINUTE_S - now_s % MINUTE_S))
        account.banned_until_s = now_s + account.ban_s
        account.ban_s = min(LONGEST_BAN_S, account.ban_s * 2)
        return Verdict(BANNED, account.used, _whole(account.banned_until_s - now_s))


def _whole(seconds: float) -> int:
    return max(1, int(seconds + 0.999))
