"""What is loaded, and when."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

import komas
from komas.cli.loading import SELDOM, for_good, stays


def test_what_is_loaded_for_good_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector is asked for nothing meanwhile, and is back afterwards, whatever happened."""
    said: list[str] = []
    for name in ("disable", "freeze", "enable"):
        monkeypatch.setattr(gc, name, lambda name=name: said.append(name))
    with pytest.raises(ImportError), for_good():
        assert said == ["disable"]
        raise ImportError
    assert said == ["disable", "freeze", "enable"]


def test_a_server_that_has_started_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full collections held the loop for 100 ms and more while clients opened thousands of streams."""
    said: list[object] = []
    monkeypatch.setattr(gc, "collect", lambda: said.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: said.append("freeze"))
    monkeypatch.setattr(gc, "set_threshold", lambda *numbers: said.append(numbers))
    stays()
    assert said == ["collect", "freeze", SELDOM]


def test_the_package_has_the_names_that_it_promises() -> None:
    """Each is loaded when it is asked for; another one is missing as from any module."""
    for name in komas.__all__:
        assert getattr(komas, name).__name__ == name
    assert set(komas.__all__) <= set(dir(komas))
    with pytest.raises(AttributeError, match="module 'komas' has no attribute 'nothing'"):
        _ = komas.nothing  # type: ignore[attr-defined]


def test_the_package_alone_loads_nothing() -> None:
    """Whoever wants one room does not wait for the others."""
    heavy = {"trio", "httpx", "msgspec", "quart"}
    program = f"import sys, komas; komas.errors.VenueError; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == ""
