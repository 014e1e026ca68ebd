"""What a worker is started with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from komas.cli.main import main
from komas.settings import Settings, load
from komas.workers.supervisor import worker_command


def test_a_worker_is_told_what_the_supervisor_was_and_where_to_listen(tmp_path: Path) -> None:
    """Its options as they were given, but for what differs between workers; variables and the file it reads itself."""
    given = {
        "workers": "4",
        "bind": "127.0.0.1:8000",
        "node_name": "host",
        "backplane": "redis://127.0.0.1",
        "upstream": "ws://127.0.0.1:9",
        "data_dir": "-a folder",
        "log_level": None,
    }
    program, *arguments = worker_command(given, ["127.0.0.1:8001", "unix:/run/k.1"], "host-1")
    assert program == sys.executable
    assert arguments[:3] == ["-m", "komas", "serve"]
    options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments[3:])
    settings = load({key.replace("-", "_"): text for key, text in options.items()}, {}, folder=tmp_path)
    assert settings == Settings(
        bind=("127.0.0.1:8001", "unix:/run/k.1"),
        node_name="host-1",
        backplane="redis://127.0.0.1",
        binance_upstream="ws://127.0.0.1:9",
        data_dir=Path("-a folder"),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no workers there")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers", "2"], "komas: workers: several processes share one exchange feed over Redis or Valkey: give"),
        (["--workers", "2", "--demo"], "komas: workers: the demo is one process"),
        (["--workers", "0"], "komas: --workers: got '0'; accepted: 1 to 128"),
        (
            ["--workers", "2", "--backplane", "redis://127.0.0.1", "--bind", "127.0.0.1:0"],
            "komas: workers: 127.0.0.1:0: a proxy must know the ports; with --bind 127.0.0.1:8000 they are",
        ),
    ],
)
def test_workers_that_cannot_be_are_one_line_and_status_2(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any process is started."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", *options, "--data-dir", str(tmp_path / "data")])
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "data").exists()
