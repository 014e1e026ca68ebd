"""The command line: one line and an exit status for what cannot be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from komas.cli import main
from komas.errors import Cause, SettingError, VenueError
from komas.server import hypercorn_config
from komas.settings import Settings


def _status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    code = caught.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--heartbeat-s", "99"], "komas: --heartbeat-s: got '99'; accepted: 0.1 to 30"),
        (["serve", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["simulate", "--speed", "fast"], "--speed"),
        (["simulate", "--speed", "-1", "--bind", "127.0.0.1:0"], "speed"),
        (["simulate", "--replay", "nothing.gz", "--bind", "127.0.0.1:0"], "nothing.gz"),
        (["watch", "weather"], "invalid choice: 'weather'"),
        (["watch", "prices", "BTCUSDT", "--server", "localhost:8000"], "accepted: http://host:port"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "required: VERB"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On stderr."""
    monkeypatch.chdir(tmp_path)
    assert _status(*arguments) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert errors.count("\n") == 1


def test_an_address_in_use_is_status_1(tmp_path: Path) -> None:
    """A failure of this moment, not a wrong option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "komas", "serve", "--bind", bind, "--upstream", "ws://127.0.0.1:1"]
        run = subprocess.run([*command, "--data-dir", str(tmp_path)], capture_output=True, timeout=60, check=False)
    assert run.returncode == 1
    assert run.stderr.decode().endswith("is the address to listen on free, and this machine's?\n")
    assert b"Traceback" not in run.stderr


def test_a_data_folder_that_cannot_be_made_is_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Before anything is served."""
    (tmp_path / "file").write_text("")
    arguments = (
        "serve",
        "--bind",
        "127.0.0.1:0",
        "--upstream",
        "ws://127.0.0.1:1",
        "--data-dir",
        str(tmp_path / "file"),
    )
    assert _status(*arguments) == 2
    assert "data_dir:" in capsys.readouterr().err


def test_a_failure_that_is_ours_is_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line as well."""

    def fail(_options: object) -> None:
        raise VenueError("the exchange is gone", cause=Cause.NETWORK)

    monkeypatch.setattr("komas.cli._serve", fail)
    assert _status("serve") == 1
    assert capsys.readouterr().err == "komas: the exchange is gone\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backlgo = 5", "no setting 'backlgo'"),
        ('backlog = "x"', "backlog: got 'x'; accepted: a number"),
        ("=", "--config"),
    ],
)
def test_a_wrong_hypercorn_file_is_a_setting_error(text: str, words: str, tmp_path: Path) -> None:
    """Hypercorn itself would take it without a word."""
    file = tmp_path / "hypercorn.toml"
    file.write_text(text)
    with pytest.raises(SettingError, match=words):
        hypercorn_config(Settings(config=file))


def test_hypercorns_file_is_read_and_ours_decides(tmp_path: Path) -> None:
    """TLS and backlog are its, Trio and HTTP/1.1 are not to be changed."""
    file = tmp_path / "hypercorn.toml"
    file.write_text('backlog = 7\nworker_class = "asyncio"\nalpn_protocols = ["h2"]\n')
    config = hypercorn_config(Settings(config=file))
    assert (config.backlog, config.worker_class, config.alpn_protocols) == (7, "trio", ["http/1.1"])


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "words"),
    [
        (["--worker-class", "trio", "--workers", "0"], {"KOMAS_MAX_SSE": "x"}, 2, "komas: KOMAS_MAX_SSE: got 'x'"),
        (["--worker-class", "asyncio", "--workers", "0"], {}, 1, 'komas needs worker_class = "trio"'),
    ],
)
def test_the_stock_command_says_what_is_wrong(
    arguments: list[str], variables: dict[str, str], status: int, words: str, tmp_path: Path
) -> None:
    """A wrong setting, a wrong worker."""
    command = [sys.executable, "-m", "hypercorn", *arguments, "--bind", "127.0.0.1:0", "komas.asgi:app"]
    environment = os.environ | {"KOMAS_DATA_DIR": str(tmp_path)} | variables
    run = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
    assert words in run.stderr.decode()
    assert run.returncode == status


def test_the_command_is_installed() -> None:
    """As ``python -m komas`` too."""
    run = subprocess.run([sys.executable, "-m", "komas", "--help"], capture_output=True, timeout=60, check=True)
    assert b"serve" in run.stdout
