"""Administrative actions of the present request, in the log and in the metrics; the one place that knows of them.

A view says whom it let in (``known_as``) and what it is about (``concerns``); here it is noted how it ended. Who may do
something leaves a record for each action, done or not. Strangers could fill the log: of those who are refused there is
one record a minute, which says how many were left out.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import trio
from quart import g, request

from komas.observability.audit import TEXT, listed, log_done, log_refused
from komas.observability.logs import LogLimit
from komas.web.access import Access, Caller
from komas.web.traffic import Traffic

ADMINISTRATOR: Final = "administrator"
LOCAL_PROGRAM: Final = "a program of this machine"
ACTIONS: Final = {
    "control.connect": "connect",
    "control.disconnect": "disconnect",
    "control.rotate": "rotate",
    "control.subscribe": "subscribe",
    "control.unsubscribe": "unsubscribe",
    "control.start_prices": "start_prices",
    "control.stop": "stop",
    "publish.create_signal": "publish",
    "publish.changed": "update",
    "vips.grant": "grant",
    "vips.revoke": "revoke",
    "admin.disconnect": "disconnect_user",
}
_REFUSALS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})
_ARGUMENTS: Final = {"user_id": "user", "signal_id": "signal", "session": "session"}  # of a route


def known_as(name: str) -> None:
    """Who asks has proved to be somebody."""
    g.known_as = name


def concerns(**facts: object) -> None:
    """What the present action is about; a list of names is cut."""
    about = g.setdefault("concerns", {})
    about.update({name: listed(value) if isinstance(value, list) else value for name, value in facts.items()})


class AuditTrail:
    """Notes how each action ended."""

    def __init__(self, access: Access, traffic: Traffic) -> None:
        self._access = access
        self._traffic = traffic
        self._log_limit = LogLimit()

    def note(self, status: int, problem: str | None, *, is_protected: bool) -> None:
        """The present request was answered; ``problem`` is why it was not done.

        Of what only administrators read (``is_protected``) refusals are noted alone.
        """
        action = _action()
        if action is None and not (is_protected and status in _REFUSALS):
            return
        g.is_noted = True
        who = g.get("known_as")
        if who is not None and status not in _REFUSALS:
            is_done = status < HTTPStatus.BAD_REQUEST
            if is_done:
                self._traffic.admin_actions[str(action)] += 1
            log_done(str(action), self._facts(who, "done" if is_done else f"not done: {problem}", status))
        elif (left_out := self._log_limit.due(trio.current_time())) is not None:
            facts = self._facts(who or "an unknown caller", f"refused: {problem}", status)
            log_refused(action or f"read {request.endpoint}", {**facts, "not_logged": left_out})

    def note_left(self) -> None:
        """The present request ended without an answer: its client left meanwhile, and it may have been done."""
        if (action := _action()) is not None and "is_noted" not in g and (who := g.get("known_as")) is not None:
            log_done(action, self._facts(who, "the client left before the answer: it may be done", None))

    def _facts(self, who: str, outcome: str, status: int | None) -> dict[str, object]:
        arguments = {_ARGUMENTS[name]: str(value) for name, value in (request.view_args or {}).items()}
        address = self._access.address(Caller.of(request.scope, request.headers))
        about = {**arguments, **g.get("concerns", {})}
        facts: dict[str, object] = {"by": who[:TEXT], "address": address, **about, "outcome": outcome}
        return facts if status is None else {**facts, "status": status}


def _action() -> str | None:
    return ACTIONS.get(str(request.endpoint))
