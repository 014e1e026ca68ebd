"""What a signal socket says beside signals, and what its client may say. Sans-I/O.

``new_signal`` and ``signal_update`` are in ``komas.model.signals``. Times are Unix seconds, whole where they are.
"""

from __future__ import annotations

import msgspec


class Connected(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="connected"):
    """The first message; ``expires_at`` is when the token ends, in Unix seconds.

    ``position`` is there for those who asked for it: the signals that follow come after it. ``ignored`` are parameters
    that there are not.
    """

    message: str
    user_id: int | str
    expires_at: int | float
    position: int | msgspec.UnsetType = msgspec.UNSET
    ignored: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Expiring(msgspec.Struct, frozen=True, tag_field="type", tag="expiring"):
    """The token ends in a minute; ``refresh`` brings a new one."""

    expires_at: int | float


class Refreshed(msgspec.Struct, frozen=True, tag_field="type", tag="refreshed"):
    """The new token counts from now on."""

    expires_at: int | float


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Either side may ask whether the other is there; the server does so every 30 s.

    ``position`` is the server's, for those who asked for it and of whose filter nothing came: nothing is on its way.
    """

    position: int | msgspec.UnsetType = msgspec.UNSET


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to a ping."""


class Refusal(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """The last message was not understood (``malformed``, ``unknown_type``), or a refresh was refused; it goes on."""

    code: str
    message: str


class Refresh(msgspec.Struct, frozen=True, tag_field="type", tag="refresh"):
    """From the client: a new token of the same user, in place of the old one."""

    token: str
