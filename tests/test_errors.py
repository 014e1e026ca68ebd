"""What errors promise, whatever raised them."""

from __future__ import annotations

import copy
import pickle
import pkgutil
from importlib import import_module

import pytest

import komas
from komas import CallbackError
from komas.backplane.ports import BackplaneError, EntryId, Fenced
from komas.errors import (
    CallerError,
    CallerErrors,
    Cause,
    Forbidden,
    KeyReused,
    KomasError,
    SettingError,
    SlowConsumer,
    StoreUnavailable,
    Unauthorized,
    VenueError,
    alone,
    words_of,
)
from komas.signals.tokens import UnknownKey
from komas.venues.binance.door.refusals import Refusal

ERRORS = [
    KomasError("x"),
    CallerErrors([CallerError("x", field="a"), CallerError("y")]),
    CallerError("x", field="symbols"),
    KeyReused("x", field="key"),
    SettingError("x"),
    SlowConsumer("x"),
    StoreUnavailable("x"),
    Unauthorized("x"),
    Forbidden("x"),
    UnknownKey("x"),
    VenueError("x", cause=Cause.REFUSED, status=429, retry_after_s=3.5, code=-1003, words="y"),
    CallbackError("btcusdt@trade", KeyError("mine")),
    Refusal(429, -1003, "x", retry_after_s=3),
    BackplaneError("x"),
    Fenced("x", newest=EntryId(1, 2)),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickle_and_copy(error: KomasError) -> None:
    """A ``ProcessPoolExecutor`` broke at ``VenueError`` and ``CallbackError``, whose constructors ask for more."""
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(again), str(again), again.args, vars(again)) == (type(error), str(error), error.args, vars(error))


def test_every_error_is_among_those() -> None:
    """One that is new is tried, too."""
    for module in pkgutil.walk_packages(komas.__path__, "komas."):
        if not module.name.startswith(("komas.signals.migrations", "komas.__main__")):
            import_module(module.name)

    def kinds(kind: type[KomasError]) -> set[type[KomasError]]:
        return {kind}.union(*map(kinds, kind.__subclasses__()))

    assert {kind for kind in kinds(KomasError) if kind.__module__.startswith("komas.")} == set(map(type, ERRORS))


def test_a_group_of_one_is_that_one() -> None:
    """However deep; of several, one that ends the program stands for all."""
    one = ValueError("x")
    several = ExceptionGroup("", [one, KeyError("y")])
    assert alone(one) is one
    assert alone(ExceptionGroup("", [ExceptionGroup("", [one])])) is one
    assert alone(several) is several
    leaving = SystemExit(3)
    assert alone(BaseExceptionGroup("", [several, BaseExceptionGroup("", [leaving])])) is leaving


def test_an_error_without_words_shows_its_cause() -> None:
    """``ConnectError`` alone told nobody that the certificate was not trusted."""
    bare = ConnectionError()
    assert words_of(bare) == "ConnectionError"
    bare.__cause__ = OSError()
    bare.__cause__.__context__ = ValueError("not trusted")
    assert words_of(bare) == "ConnectionError: OSError: not trusted"
    assert words_of(ValueError("words")) == "words"
