"""The command line: one line and an exit status for what cannot be."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
import trio

from komas.cli.main import main
from komas.cli.signals import why_unauthorized
from komas.errors import Cause, SettingError, VenueError
from komas.server import hypercorn_config
from komas.settings import Settings
from komas.signals.database import VIPS_PAGE, SignalDatabase
from komas.signals.keys import secret_of
from komas.signals.tokens import Issuer, Rules


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
        (["watch", "weather"], "invalid choice: 'weather'; choose from prices klines"),
        (["watch"], "required: prices|klines|trades|depth|signals|status\n"),
        (
            ["watch", "prices", "--server", "http://u:p@127.0.0.1:1"],
            "komas: http://127.0.0.1:1 cannot be asked for its",
        ),
        (["watch", "BTCUSDT"], "did you mean komas watch prices BTCUSDT?"),
        (["watch", "klines", "BTCUSDT", "--interval", "60m"], "got '60m'; did you mean 1h? accepted: 1s 1m 3m"),
        (["watch", "klines", "BTCUSDT", "--interval", "7D"], "did you mean 1w?"),
        (["watch", "klines", "BTCUSDT", "--interval", "1month"], "did you mean 1M?"),
        (["watch", "klines", "BTCUSDT", "--interval", "7m"], "got '7m'; accepted: 1s 1m 3m"),
        (["watch", "trades", "BTCUSDT,ETHUSDT"], "watch trades takes one symbol, got 2; watch prices takes many"),
        (["watch", "status", "BTCUSDT"], "watch status takes no symbols; got BTCUSDT"),
        (["watch", "signals"], "give --token, or set KOMAS_TOKEN"),
        (["watch", "signals", "--token", "x", "--server", "localhost:8000"], "accepted: http://host:port"),
        (["watch", "prices", "BTCUSDT", "--server", "localhost:8000"], "accepted: http://host:port"),
        (["watch", "prices", "BTCUSDT", "--server", "http://localhost:99999"], "accepted: http://host:port"),
        (["watch", "signals", "--token", "x", "--server", "http://localhost:8000?x=1"], "accepted: http://host:port"),
        (["dance"], "invalid choice: 'dance' (choose from serve simulate"),
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


def test_an_address_in_use_is_status_1_and_another_is_named(tmp_path: Path) -> None:
    """A failure of this moment, not a wrong option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bind = f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "komas", "serve", "--bind", bind, "--upstream", "ws://127.0.0.1:1"]
        run = subprocess.run([*command, "--data-dir", str(tmp_path)], capture_output=True, timeout=60, check=False)
    assert run.returncode == 1
    last = run.stderr.decode().splitlines()[-1]
    assert (found := re.fullmatch(rf"komas: {bind} is taken by another program; try --bind 127\.0\.0\.1:(\d+)", last))
    assert port < int(found[1]) <= port + 20
    assert b"Traceback" not in run.stderr


def test_a_simulator_whose_address_is_in_use_names_another(capsys: pytest.CaptureFixture[str]) -> None:
    """As a server does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        assert _status("simulate", "--bind", bind) == 2
    assert f"komas: {bind} is taken by another program; try --bind 127.0.0.1:" in capsys.readouterr().err


def test_without_a_word_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Short, on stderr, and no success: nothing was done. Every verb is there."""
    assert _status() == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "komas serve --demo" in shown.err
    assert shown.err.count("\n") < 12
    for verb in ("serve", "simulate", "token", "vip", "signal", "backup", "watch"):
        assert re.search(rf"\b{verb}\b", shown.err)


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

    async def fail(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise VenueError("the exchange is gone", cause=Cause.NETWORK)

    monkeypatch.setattr("komas.server.serve", fail)
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
        (["--worker-class", "trio", "--workers", "0"], {"KOMAS_WORKERS": "2"}, 2, "komas: workers: only `komas serve`"),
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


def test_the_import_of_the_application_does_nothing(tmp_path: Path) -> None:
    """No setting is read, no part of Hypercorn replaced, no folder made: all that is the lifespan's."""
    code = (
        "import hypercorn.trio.run as run, hypercorn.protocol.h11 as h11, hypercorn.config as config\n"
        "before = [dict(vars(part)) for part in (run, h11, h11.H11Protocol, config.Config)]\n"
        "import komas.asgi\n"
        "assert before == [dict(vars(part)) for part in (run, h11, h11.H11Protocol, config.Config)]\n"
    )
    environment = os.environ | {"KOMAS_MAX_SSE": "wrong", "KOMAS_DATA_DIR": str(tmp_path / "data")}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=True)
    assert not (tmp_path / "data").exists()


def test_the_command_is_installed() -> None:
    """As ``python -m komas`` too."""
    run = subprocess.run([sys.executable, "-m", "komas", "--help"], capture_output=True, timeout=60, check=True)
    assert b"serve" in run.stdout


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For a report of a bug."""
    assert _status("--version") == 0
    assert capsys.readouterr().out == f"komas {metadata.version('komas')}\n"


def _komas(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KOMAS_")}
    command = [sys.executable, "-m", "komas", *arguments, "--data-dir", str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, input=given, timeout=60
    )


def test_tokens_are_issued_and_inspected(tmp_path: Path) -> None:
    """The token alone on stdout; inspected from an argument or from standard input."""
    issued = _komas(tmp_path, "token", "issue", "--user-id", "123", "--vip-days", "30", "--scope", "signals:publish")
    assert issued.returncode == 0
    token = issued.stdout.strip()
    assert issued.stdout == f"{token}\n"
    for arguments, given in ((["inspect", token], ""), (["inspect"], token)):
        seen = json.loads(_komas(tmp_path, "token", *arguments, given=given).stdout)
        assert seen["claims"]["sub"] == "123"
        assert seen["claims"]["scope"] == "signals:publish"
        assert seen["claims"]["exp"] - seen["claims"]["iat"] == 3600
        assert seen["verdict"] == "valid"
    elsewhere = json.loads(_komas(tmp_path / "other", "token", "inspect", token).stdout)
    assert elsewhere["verdict"] == "refused: InvalidSignatureError"


def test_the_demo_has_a_store_of_its_own_and_what_is_shown_says_so(tmp_path: Path) -> None:
    """A token of the one is refused by the other: which secret it is signed with, and how to choose the other store."""
    server, demo = tmp_path, tmp_path / "demo"
    ours, theirs = (_komas(folder, "token", "issue", "--user-id", "1").stdout.strip() for folder in (server, demo))
    for folder, stray, signer in ((server, theirs, demo), (demo, ours, server)):
        shown = json.loads(_komas(folder, "token", "inspect", stray).stdout)
        assert shown["checked_against"] == str(folder / "jwt-secret")
        signed = f"; it is signed with {signer / 'jwt-secret'}: --data-dir {signer}"
        assert shown["verdict"] == f"refused: InvalidSignatureError{signed}"
    publish = ("signal", "publish", "--type", "mexc_dex", "--data", '{"n": 1}')
    assert _komas(server, *publish).stderr == f"written to {server / 'komas.db'}\n"
    for folder, other, whose in ((demo, server, "that of servers without --demo"), (server, demo, "the demo's")):
        hint = f"; {whose} is {other / 'komas.db'}: --data-dir {other}"
        assert _komas(folder, *publish).stderr == f"written to {folder / 'komas.db'}{hint}\n"


def test_what_is_known_of_a_refused_token_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is over, one that nobody here has signed; a wrong setting explains nothing."""
    monkeypatch.setenv("KOMAS_DATA_DIR", str(tmp_path))
    secret = secret_of(Settings(data_dir=tmp_path))
    assert why_unauthorized(Issuer(secret, Rules()).issue("1", now_s=1, ttl_s=1)) == "the token is expired"
    assert why_unauthorized("a.b.c").startswith("no secret of this machine signed the token")
    monkeypatch.setenv("KOMAS_LINGER_S", "-1")
    assert why_unauthorized("a.b.c") == ""


def test_the_demo_is_chosen_by_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any other setting it is the folder below."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path))
    for name in [name for name in os.environ if name.startswith("KOMAS_")]:
        monkeypatch.delenv(name)
    main(["token", "issue", "--user-id", "1", "--demo"])
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_vips_are_granted_revoked_and_listed(tmp_path: Path) -> None:
    """One line for each user."""
    assert re.fullmatch(r"123\tactive\t\S+Z\n", _komas(tmp_path, "vip", "grant", "123", "--days", "30").stdout)
    assert re.fullmatch(r"abc\trevoked\t\S+Z\n", _komas(tmp_path, "vip", "revoke", "abc").stdout)
    listed = _komas(tmp_path, "vip", "list").stdout.splitlines()
    assert [line.split("\t")[:2] for line in listed] == [["123", "active"], ["abc", "revoked"]]


def test_the_list_of_vips_is_read_in_pages_and_whole(tmp_path: Path) -> None:
    """More than one page of them, each once."""
    database = SignalDatabase(tmp_path / "komas.db")
    database.open()
    database.close()
    with closing(sqlite3.connect(tmp_path / "komas.db")) as connection, connection:
        rows = [(f"user{number}", 2**31, 0, number, 0) for number in range(1, 2 * VIPS_PAGE + 2)]
        connection.executemany("INSERT INTO vips VALUES (?, ?, ?, ?, ?)", rows)
    listed = _komas(tmp_path, "vip", "list").stdout.splitlines()
    assert [line.split("\t")[0] for line in listed] == [row[0] for row in rows]


def test_what_the_command_line_changes_is_in_the_log_of_the_day(tmp_path: Path) -> None:
    """Where a server on the same folder has its own; its refusals and its questions are not."""
    _komas(tmp_path, "vip", "grant", "123", "--days", "30")
    _komas(tmp_path, "vip", "revoke", "123")
    _komas(tmp_path, "vip", "list")
    _komas(tmp_path, "signal", "publish", "--type", "mexc_dex", "--data", '{"coin_name": "NB"}')
    _komas(tmp_path, "signal", "update", "1", "--data", '{"spread": 9.10}')
    _komas(tmp_path, "signal", "update", "7", "--data", '{"spread": 9.10}')
    [file] = tmp_path.glob("logs/komas-*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    about = [(each["event"].partition(": ")[2], each.get("user"), each.get("signal")) for each in records]
    assert about == [("grant", "123", None), ("revoke", "123", None), ("publish", None, 1), ("update", None, 1)]
    assert {(each["level"], each["outcome"], each["by"].partition(",")[0]) for each in records} == {
        ("INFO", "done", "the command line")
    }


def test_a_log_that_cannot_be_written_undoes_no_signal(tmp_path: Path) -> None:
    """It was committed: a failure now would have it published again."""
    (tmp_path / "logs").write_text("no folder")
    done = _komas(tmp_path, "signal", "publish", "--type", "mexc_dex", "--data", '{"coin_name": "NB"}')
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, 1)
    assert "no record is written" in done.stderr


def test_signals_are_published_and_updated(tmp_path: Path) -> None:
    """With their digits; a retry with a key is the same signal."""
    publish = (
        "signal",
        "publish",
        "--type",
        "mexc_dex",
        "--data",
        '{"coin_name": "NB", "spread": 8.840}',
        "--key",
        "k",
    )
    first, again = _komas(tmp_path, *publish), _komas(tmp_path, *publish)
    assert '{"id":1,"coin_name":"NB","spread":8.840,"created_at":' in first.stdout
    assert again.stdout == first.stdout
    updated = _komas(tmp_path, "signal", "update", "1", "--data", '{"spread": 9.10}')
    assert '"spread":9.10,' in updated.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["token", "issue"], "required: --user-id"),
        (["token", "issue", "--user-id", "a b"], "got 'a b' for a user"),
        (["token", "issue", "--user-id", "1", "--ttl", "-5"], "accepted: a whole number from 1"),
        (["token", "issue", "--user-id", "1", "--vip-days", "x"], "got 'x'; accepted: a whole number"),
        (["token", "inspect", "garbage"], "not a token"),
        (["vip", "grant", "1"], "required: --days"),
        (["vip", "grant", "1", "--days", "0"], "accepted: a whole number from 1"),
        (["signal", "publish", "--type", "other", "--data", "{}"], "signal_type is one of"),
        (["signal", "publish", "--type", "mexc_dex", "--data", "{"], "--data is not a JSON object"),
        (["signal", "publish", "--type", "mexc_dex", "--data", '{"spread": "8"}'], "data.spread is a number"),
        (["signal", "update", "x", "--data", "{}"], "got 'x'"),
        (["signal", "update", "7", "--data", '{"a": 1}'], "there is no signal 7"),
    ],
)
def test_what_the_desk_cannot_do_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    """And status 2."""
    done = _komas(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    """And status 1: it may be mended."""
    (tmp_path / "komas.db").write_bytes(b"this is no database" * 100)
    done = _komas(tmp_path, "vip", "list")
    assert (done.returncode, done.stderr) == (1, f"komas: {tmp_path / 'komas.db'}: file is not a database\n")
