"""Fault scripts: the two notations, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from komas.errors import CallerError
from komas.simulator.fault_script import Abort, Clock, Outage, Refuse, Stall, parse_faults, read_script

TOML = """
[[fault]]
fault = "refuse"
dials = 3
status = 503

[[fault]]
fault = "abort"
dial = 4
after_frames = 10

[[fault]]
fault = "outage"
at = 12.5
seconds = 4
"""
JSON = b"""[{"fault": "refuse", "dials": 3, "status": 503}, {"fault": "abort", "dial": 4, "after_frames": 10},
            {"fault": "outage", "at": 12.5, "seconds": 4}]"""
EXPECTED = (Refuse(dials=3, status=503), Abort(dial=4, after_frames=10), Outage(at=12.5, seconds=4))


@pytest.mark.parametrize(
    ("name", "content"), [("s.toml", TOML.encode()), ("s.json", JSON), ("s.json", b'{"fault":%b}' % JSON)]
)
def test_reads_both_notations(tmp_path: Path, name: str, content: bytes) -> None:
    """TOML tables, a JSON list, and a JSON object that holds one say the same."""
    path = tmp_path / name
    path.write_bytes(content)
    assert read_script(path) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.toml", "[[fault]", "cannot be read"),
        ("s.toml", "", "got {}; accepted: "),
        ("s.json", "[", "cannot be read"),
        ("s.json", '[{"fault":"abort"}]', "neither 'at' nor 'dial'"),
        ("s.json", '[{"fault":"drop","at":-1}]', "entry 1: drop: at: got -1"),
        ("s.json", '[{"fault":"close","dial":0}]', "entry 1: close: dial: got 0"),
        ("s.json", '[{"fault":"garbage","at":1,"kind":"soup"}]', "entry 1: garbage: kind: got 'soup'"),
    ],
)
def test_a_wrong_script_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    """The error names the file and what is wrong in it."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(CallerError) as caught:
        read_script(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    """So is one that is not there."""
    with pytest.raises(CallerError, match=r"none\.toml"):
        read_script(tmp_path / "none.toml")


def test_a_call_may_be_one_object() -> None:
    """The live notation is that of a script's entry."""
    assert parse_faults(b'{"fault":"clock","offset_ms":-1300}') == (Clock(offset_ms=-1300),)
    assert parse_faults(b'[{"fault":"stall","streams":["a@trade"]}]') == (Stall(streams=("a@trade",)),)
