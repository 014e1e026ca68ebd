"""A venue's own interface, offered by komas: what the web layer is handed of it, whichever venue it is.

A program that speaks the venue's protocol is pointed at komas and sees no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec


class DoorRequest(msgspec.Struct, frozen=True):
    """One REST call as it came: ``path`` is below the door's own, ``query`` as on the wire.

    Names of ``headers`` are lower case. ``address`` is whom it is counted by; ``connection`` tells programs of one
    address apart, as far as that can be.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[str, str]
    address: str
    connection: str


class DoorAnswer(msgspec.Struct, frozen=True):
    """What is answered, in the venue's own shape; ``rest`` goes behind ``body``, and is shared with other answers."""

    status: int
    body: bytes
    headers: dict[str, str]
    rest: bytes = b""


class RestDoor(Protocol):
    """The REST half of a door."""

    @property
    def name(self) -> str:
        """The first part of its paths, and what it is called by programs."""

    async def answer(self, request: DoorRequest) -> DoorAnswer:
        """Answer one call; an error is an answer, too."""
