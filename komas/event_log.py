"""Loggers whose records are an event with keys, readable without komas's own log.

``log.info("connected", extra={"streams": 3})`` is shown by ``logging.basicConfig()``, which prints the text alone, as
``connected: streams=3``; komas's own log has the event and its keys apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

EVENT: Final = "event"  # the attribute of a record that has the event without its keys


class EventLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the keys of a record into its text, too."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401 - logging's
        """Take one record apart."""
        keys: Mapping[str, object] = kwargs.get("extra") or {}
        shown = " ".join(f"{key}={value!r}" for key, value in keys.items())
        kwargs["extra"] = {**keys, EVENT: msg}
        return f"{msg}: {shown}" if shown else msg, kwargs


def event_logger(name: str) -> EventLogger:
    """The logger of a module."""
    return EventLogger(logging.getLogger(name))
