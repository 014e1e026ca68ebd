"""Simulated signals for ``komas serve --demo``: plausible, and marked ``"simulated": true``."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import trio

from komas.errors import StoreUnavailable
from komas.model.signals import Principal
from komas.signals.service import SignalService
from komas.signals.tokens import SCOPE_PUBLISH
from komas.signals.validation import NewSignal, SignalChanges

log = logging.getLogger(__name__)

FIRST_S: Final = 10.0
EVERY_S: Final = (15.0, 40.0)
UPDATE_S: Final = (4.0, 10.0)
_COINS: Final = ("NB", "PEPE", "WIF", "TAO", "ONDO", "JUP", "SEI", "币安人生")
_PRODUCER: Final = Principal("demo", 0, scopes=frozenset({SCOPE_PUBLISH}))


async def publish_demo_signals(
    service: SignalService, signal_types: Sequence[str], chance: random.Random | None = None
) -> None:
    """Publish a signal now and then, and update it once, until cancelled."""
    chance = chance or random.Random()  # noqa: S311 - guards nothing
    await trio.sleep(FIRST_S)
    while True:
        try:
            spread = Decimal(chance.randrange(150, 1500)).scaleb(-2)
            event = await service.publish(_PRODUCER, _imagine(chance, signal_types, spread))
            await trio.sleep(chance.uniform(*UPDATE_S))
            moved = spread + Decimal(chance.randrange(-100, 100)).scaleb(-2)
            await service.update(_PRODUCER, event.signal_id, SignalChanges({"spread": moved}))
        except StoreUnavailable:
            log.debug("no simulated signal")  # the store has said why
        await trio.sleep(chance.uniform(*EVERY_S))


def _imagine(chance: random.Random, signal_types: Sequence[str], spread: Decimal) -> NewSignal:
    price = Decimal(chance.randrange(10**4, 10**7)).scaleb(-8)
    data: dict[str, object] = {
        "coin_name": chance.choice(_COINS),
        "position": chance.choice(("LONG", "SHORT")),
        "spread": spread,
        "mexc_spot_price": price,
        "simulated": True,
    }
    return NewSignal(chance.choice(signal_types), data)
