"""How much of the log is kept: by age and by bytes, the same for every store."""

from __future__ import annotations

import msgspec


class Retention(msgspec.Struct, frozen=True):
    """The log keeps what is younger than ``age_s``, within ``size`` bytes of headers and data.

    Entries are deleted in steps, when a step of ``step_s`` or of a hundredth of ``size`` has filled: so some more of
    both is kept. A node that was away for longer than the log reaches back has missed something, and sees that.
    """

    age_s: float = 120.0
    size: int = 512 * 2**20
    step_s: float = 1.0

    @property
    def step_size(self) -> int:
        """Bytes of a step."""
        return max(1, self.size // 100)
