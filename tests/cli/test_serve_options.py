"""The help of ``komas serve``."""

from __future__ import annotations

import re

import pytest

from komas.cli.main import main
from komas.cli.serve_options import GROUPS, OTHERS
from komas.settings import FIELDS, SECRETS, Settings, variable_of


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``komas serve --help`` prints, without its line ends."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    return re.sub(r"-\s+", "-", " ".join(capsys.readouterr().out.split()))


def test_every_setting_is_in_one_group(shown: str) -> None:
    """A new one is put into a group of ``GROUPS``."""
    grouped = [key for keys in GROUPS.values() for key in keys]
    assert sorted(grouped) == sorted(FIELDS)
    assert f"{OTHERS}:" not in shown
    assert [title for title in GROUPS if f" {title}: --" not in shown] == []


def test_the_help_has_defaults_and_variables(shown: str) -> None:
    """Of every setting; no secret has a default to show."""
    for key in FIELDS:
        assert f"--{key.replace('_', '-')} " in shown
        assert f"[{variable_of(key)}" in shown
    assert "[KOMAS_BIND; default 127.0.0.1:8000]" in shown
    assert "[KOMAS_HEARTBEAT_S; default 15]" in shown
    assert "[KOMAS_DIRECT_WRITES; default true]" in shown
    assert f"[KOMAS_SIGNAL_TYPES; default {','.join(Settings().signal_types)}]" in shown
    assert [key for key in SECRETS if f"[{variable_of(key)}]" not in shown] == []
