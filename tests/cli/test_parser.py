"""What a wrong command line was meant to say."""

from __future__ import annotations

import argparse

import pytest

from komas.cli.main import main
from komas.cli.parser import Parser


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("serve --port 9000", "did you mean --bind 127.0.0.1:9000?"),
        ("serve --bind unix:/run/komas.sock --port 9000", "--port 9000; a Unix socket has no host and no port"),
        ("serve --port=9000 --bind=unix:/run/komas.sock", "--port=9000; a Unix socket has no host and no port"),
        ("serve --port=9000", "did you mean --bind 127.0.0.1:9000?"),
        ("serve -p 9000", "did you mean --bind 127.0.0.1:9000?"),
        ("serve -p9000", "did you mean --bind 127.0.0.1:9000?"),
        ("serve --port", "did you mean --bind 127.0.0.1:8000?"),
        ("serve --port 123456", "did you mean --bind 127.0.0.1:8000?"),
        ("serve --host 0.0.0.0", "did you mean --bind 0.0.0.0:8000?"),
        ("serve --port 9000 --host 10.0.0.1", "did you mean --bind 10.0.0.1:9000?"),
        ("serve --host ::1 --port 9000", "did you mean --bind [::1]:9000?"),
        ("serve --demo --port 9000 --journal 100", "did you mean --bind 127.0.0.1:9000?"),
        ("serve --listen :9000", "did you mean --bind 127.0.0.1:9000?"),
        ("serve --listen 9000", "did you mean --bind 127.0.0.1:9000?"),
        ("serve --address 10.0.0.1:9000", "did you mean --bind 10.0.0.1:9000?"),
        ("simulate --port 9000", "did you mean --bind 127.0.0.1:9000?"),
        ("watch trades BTCUSDT --port 9000", "did you mean --server http://127.0.0.1:9000?"),
        ("watch prices BTCUSDT --url http://x", "did you mean --server?"),
        ("serve --heartbet-s 5", "did you mean --heartbeat-s?"),
        ("serve --heartbet-s=5", "did you mean --heartbeat-s=5?"),
        ("serve --data_dir x", "did you mean --data-dir?"),
        ("serve --verbose", "did you mean --log-level DEBUG?"),
        ("serve --wibble", "komas serve --help lists what there is"),
        ("serve BTCUSDT", "komas serve --help lists what there is"),
        ("backup x --force", "did you mean --overwrite?"),
        ("vip list --wibble", "komas vip list --help lists what there is"),
        ("serv --demo", "invalid choice: 'serv'; did you mean komas serve?"),
        ("start", "did you mean komas serve?"),
        ("help", "did you mean komas --help?"),
        ("version", "did you mean komas --version?"),
        ("token", "komas token: say which: issue inspect admin"),
        ("token isue --user-id 1", "did you mean komas token issue?"),
        ("vip gra nt", "did you mean komas vip grant?"),
        ("signal help", "invalid choice: 'help' (choose from publish update)"),
        ("--bind 127.0.0.1:9000 serve", "unrecognized arguments: --bind; options go behind one of serve simulate"),
    ],
)
def test_a_wrong_line_is_answered_by_a_hint(line: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, and by the exit status of a wrong option."""
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert hint in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("given", [["one", "--number", "3"], ["one", "--num=3"]])
def test_a_right_line_is_read(given: list[str]) -> None:
    """As by argparse, which takes the beginning of an option for it."""
    parser = Parser(prog="test")
    parser.add_subparsers().add_parser("one").add_argument("--number", type=int)
    assert parser.parse_args(given) == argparse.Namespace(number=3)
