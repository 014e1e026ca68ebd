"""Records: to the terminal for people, to a file for each day for ``GET /api/logs/today``."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from komas.errors import SettingError
from komas.event_log import event_logger
from komas.observability.logs import (
    ANSWER_BYTES,
    RECORDS_WAITING,
    DailyLog,
    JsonFormatter,
    TerminalLog,
    TextFormatter,
    hide_tokens,
    logging_to,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def _record(event: str, moment: datetime = NOON, level: int = logging.INFO, **keys: object) -> logging.LogRecord:
    record = logging.LogRecord("komas.x", level, "", 0, event, None, None)
    record.created = moment.timestamp()
    vars(record).update(keys)
    return record


def test_a_record_is_an_event_with_keys() -> None:
    """As JSON for machines, as a line for people."""
    record = _record("connected", streams=3, url="ws://x")
    assert json.loads(JsonFormatter().format(record)) == {
        "timestamp": "2026-11-21T12:00:00.000Z",
        "level": "INFO",
        "logger": "komas.x",
        "event": "connected",
        "streams": 3,
        "url": "ws://x",
    }
    assert TextFormatter().format(record) == "12:00:00 info    komas.x: connected streams=3 url='ws://x'"


def test_keys_in_the_text_do_not_stand_twice(caplog: pytest.LogCaptureFixture) -> None:
    """What ``basicConfig()`` shows with its keys is an event with keys in komas's own log."""
    caplog.set_level(logging.INFO)
    event_logger("komas.x").info("connected", extra={"streams": 3})
    event_logger("komas.x").info("at rest")
    record, plain = caplog.records
    assert caplog.messages == ["connected: streams=3", "at rest"]
    assert json.loads(JsonFormatter().format(record))["event"] == "connected"
    assert TextFormatter().format(record).endswith("komas.x: connected streams=3")
    assert TextFormatter().format(plain).endswith("komas.x: at rest")


def test_what_a_client_sends_stays_on_its_line() -> None:
    """No forged record, no escape sequence on anybody's terminal."""
    text = TextFormatter().format(_record("not found\n12:00:00 info forged\x1b[31m", path="/\nforged"))
    assert text.count("\n") == 0
    assert "\x1b" not in text
    assert JsonFormatter().format(_record("a\nb")).count("\n") == 0


def test_each_day_has_its_file_and_old_ones_go(tmp_path: Path) -> None:
    """Today's is what is read."""
    log = DailyLog(tmp_path, days=2)
    for day in (1, 2, 3, 4):
        log.emit(_record(f"day {day}", NOON.replace(day=day)))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "komas-2026-11-02.jsonl", "komas-2026-11-03.jsonl", "komas-2026-11-04.jsonl",
    ]  # fmt: skip
    assert [record["event"] for record in log.today(now=NOON.replace(day=4), limit=9)] == ["day 4"]
    assert log.today(now=NOON.replace(day=9), limit=9) == []
    log.close()


def test_today_is_filtered_and_newest_last(tmp_path: Path) -> None:
    """By level, then by number."""
    log = DailyLog(tmp_path, days=2)
    for number, level in enumerate((logging.INFO, logging.ERROR, logging.INFO, logging.ERROR, logging.WARNING)):
        log.emit(_record(str(number), level=level))
    assert [record["event"] for record in log.today(now=NOON, level="WARNING", limit=2)] == ["3", "4"]
    log.close()


def test_today_is_bounded_in_bytes(tmp_path: Path) -> None:
    """A thousand long records are no answer of 8 MB: the newest of them are."""
    log = DailyLog(tmp_path, days=2)
    for number in range(100):
        log.emit(_record(f"{number} {'x' * 20_000}"))
    records = log.today(now=NOON, limit=1000)
    assert str(records[-1]["event"]).startswith("99 ")
    assert 40 < len(records) <= ANSWER_BYTES // 20_000
    log.close()


@pytest.mark.parametrize("event", ["a\u2028b", "a\u0085b", "\udcff", "\x00"])
def test_odd_letters_do_not_lose_a_record(event: str, tmp_path: Path) -> None:
    """Separators that are no line ends, halves of letters."""
    log = DailyLog(tmp_path, days=2)
    log.emit(_record(event))
    log.emit(_record("next"))
    assert len(log.today(now=NOON, limit=9)) == 2
    log.close()


def test_a_line_that_was_cut_is_skipped(tmp_path: Path) -> None:
    """By a kill, in mid-write."""
    log = DailyLog(tmp_path, days=2)
    log.emit(_record("whole"))
    with (tmp_path / "komas-2026-11-21.jsonl").open("a") as file:
        file.write('{"event": "cu\n[1]\n')
    assert [record["event"] for record in log.today(now=NOON, limit=9)] == ["whole"]
    log.close()


def test_a_record_is_one_write_so_that_several_processes_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long one was two writes, and another process's record came to stand in its middle."""
    written: list[bytes] = []
    write = os.write

    def note(file: int, data: bytes) -> int:
        written.append(bytes(data))
        return write(file, data)

    monkeypatch.setattr(os, "write", note)
    log = DailyLog(tmp_path, days=2)
    for letters in ("x" * 50_000, "y"):
        log.emit(_record(letters))
    monkeypatch.undo()
    assert [line.count(b"\n") for line in written] == [1, 1]
    assert [len(str(record["event"])) for record in log.today(now=NOON, limit=9)] == [50_000, 1]
    log.close()


def test_a_record_says_which_process_wrote_it(tmp_path: Path) -> None:
    """Where they have names; who says one itself is believed to mean its own."""
    with logging_to(tmp_path, level="INFO", as_json=True, days=1, node="host-1") as log:
        logging.getLogger("komas.x").info("leads", extra={"term": 7})
        assert log.today(now=datetime.now(UTC), limit=1)[0]["node"] == "host-1"
    with logging_to(tmp_path, level="INFO", as_json=True, days=1) as log:
        logging.getLogger("komas.x").info("serves")
        assert "node" not in log.today(now=datetime.now(UTC), limit=1)[0]


def test_a_full_disk_is_told_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And never raised into whoever logs."""
    folder = tmp_path / "logs"
    log = DailyLog(folder, days=2)
    folder.write_text("not a folder")
    for _ in range(3):
        log.emit(_record("lost"))
    assert capsys.readouterr().err.count("no record is written") == 1
    log.close()


def test_a_lost_connection_to_the_database_is_no_traceback(tmp_path: Path) -> None:
    """Who read says so in a line; the pool wrote thirty for each connection that was lost in the middle of a read."""
    pool = logging.getLogger("sqlalchemy.pool.impl.QueuePool")
    with logging_to(tmp_path, level="INFO", as_json=False, days=2) as log:
        pool.error("Error closing cursor", exc_info=ConnectionError("it is gone"))
        assert not log.today(now=datetime.now(UTC), limit=9)


def test_logging_ends_with_its_block(tmp_path: Path) -> None:
    """The handlers are gone, the level is what it was."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    with logging_to(tmp_path / "logs", level="DEBUG", as_json=True, days=1) as log:
        logging.getLogger("komas.x").info("hello", extra={"n": 1})
        assert log.today(now=datetime.now(UTC), limit=1)[0]["n"] == 1
    assert (root.handlers, root.level) == (before, level)


async def test_a_server_without_file_descriptors_does_not_fill_the_log(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    """Trio tries again ten times a second, and strangers can keep it so; one line a minute, without a traceback."""
    listener = _FullListener()
    with logging_to(tmp_path / "logs", level="INFO", as_json=True, days=1), trio.move_on_after(30):
        await trio.serve_listeners(_no_handler, [listener])
    assert listener.tries > 100
    (line,) = "".join(file.read_text("utf-8") for file in (tmp_path / "logs").iterdir()).splitlines()
    assert "EMFILE" in line
    assert "Traceback" not in line


class _FullListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener of a process that may open no more files."""

    tries = 0

    async def accept(self) -> trio.abc.Stream:
        self.tries += 1
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, "Too many open files")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _no_handler(_stream: trio.abc.Stream) -> None:
    raise AssertionError("nothing was accepted")


def test_a_folder_that_cannot_be_made_is_a_setting(tmp_path: Path) -> None:
    """Said before anything starts."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingError, match="data_dir"),
        logging_to(tmp_path / "file" / "logs", level="INFO", as_json=False, days=1),
    ):
        pytest.fail("the block was entered")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Bearer eyJhbGciOi.eyJzdWIiOi.c2ln", "Bearer (token)"),
        ("bearer.eyJhbGciOi.eyJzdWIiOi.c2ln", "bearer.(token)"),
        ("/ws/eyJhbGciOi.eyJzdWIiOi.c2ln/x?token=eyJhbGciOi.eyJzdWIiOi.", "/ws/(token)/x?token=(token)"),
        ("my_eyJhbGciOi.eyJzdWIiOi.c2ln", "my_(token)"),
        ("a.b.c 1.25 btcusdt@trade eyJustAWord", "a.b.c 1.25 btcusdt@trade eyJustAWord"),
    ],
)
def test_what_looks_like_a_token_is_hidden(text: str, hidden: str) -> None:
    """Wherever it stands."""
    assert hide_tokens(text) == hidden


@pytest.mark.parametrize(("piece", "end"), [("eyJ", ""), ("eyJ.", ""), ("a.", "eyJ."), (".", ""), ("-", "eyJ.")])
def test_hiding_tokens_takes_no_longer_for_hostile_texts(piece: str, end: str) -> None:
    """Twice the text is twice the work: by squares, a megabyte would take hours."""
    assert "eyJ." not in hide_tokens(piece * 10**6 + end)


def test_a_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    """Records wait within bounds, the daily file has them all; once it is read, it is said how many were left out."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        terminal = TerminalLog(stream)
        terminal.setFormatter(JsonFormatter())
        count = RECORDS_WAITING + 1000
        for number in range(count):
            terminal.emit(_record(f"event {number} " + "x" * 200))
        terminal.close()  # it waits for nobody
        seen = b""
        while b"records were not written here" not in seen:
            seen += os.read(reading, 2**16)
    os.close(reading)
    lines = seen.decode().splitlines()
    written = [line for line in lines if '"event": "event' in line]
    assert json.loads(written[0])["event"].startswith("event 0 ")
    (left_out,) = [int(line.split()[1]) for line in lines if "were not written" in line]
    assert len(written) + left_out == count


@pytest.mark.parametrize("rotate", [Path.unlink, lambda path: path.rename(path.with_suffix(".1"))])
def test_a_file_that_was_rotated_is_begun_anew(rotate: Callable[[Path], object], tmp_path: Path) -> None:
    """Removed or renamed by another program: within a second."""
    log = DailyLog(tmp_path, days=2)
    log.emit(_record("before"))
    (file,) = tmp_path.iterdir()
    rotate(file)
    log.emit(_record("after", NOON + timedelta(seconds=1)))
    assert [record["event"] for record in log.today(now=NOON, limit=9)] == ["after"]
    log.close()
