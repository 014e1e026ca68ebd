"""Structured logs: to stderr for people, and to one JSON file a day that ``GET /api/logs/today`` reads.

A record is an event with keys: modules write ``log.info("connected", extra={"streams": 3})``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import Final, TextIO

from komas.errors import SettingError
from komas.event_log import EVENT

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "color_message",
    "taskName",
    EVENT,
}
_FILE_NAME: Final = "komas-%Y-%m-%d.jsonl"
COMPLAIN_EVERY_S: Final = 60.0
RECORDS_WAITING: Final = 10_000  # for stderr: some megabytes
LAST_RECORDS_S: Final = 0.5
LOOK_EVERY_S: Final = 1.0
ANSWER_BYTES: Final = 2**20  # of the records that are given out at once, as they stand in the file
_TAIL_BYTES: Final = 8 * 2**20  # what of a day's file is read for an answer; a quiet server writes far less


# Parts with points between them: a JSON Web Token has three. Any text of that shape is masked, whatever its source.
_PARTS: Final = re.compile(r"(?<![\w.-])[\w-]*+(?:\.[\w-]*+)+")
_BEGIN: Final = "eyJ"  # base64 of {" at the beginning of an object


def hide_tokens(text: str) -> str:
    """A text without what looks like a token: none should come this far, and none must get any further."""
    return _PARTS.sub(_hide, text) if _BEGIN in text else text


def _hide(parts: re.Match[str]) -> str:
    before, begin, token = parts[0].partition(_BEGIN)
    return f"{before}(token)" if begin and "." in token else parts[0]


def keys_of(record: logging.LogRecord) -> dict[str, object]:
    """The keys that a record was given in ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def event_of(record: logging.LogRecord) -> str:
    """What happened, without the keys that ``event_log`` puts into the text."""
    return str(getattr(record, EVENT, None) or record.getMessage())


class LogLimit:
    """Keeps what strangers can cause from filling the log: one record of a kind in ``every_s`` seconds."""

    def __init__(self, every_s: float = COMPLAIN_EVERY_S) -> None:
        self._every_s = every_s
        self._next_at = -math.inf
        self._left_out = 0

    def due(self, now: float) -> int | None:
        """Whether to log now: how many were left out since the last time, or ``None`` for not yet; time in seconds."""
        if now < self._next_at:
            self._left_out += 1
            return None
        self._next_at = now + self._every_s
        left_out, self._left_out = self._left_out, 0
        return left_out


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, object] = {
            "timestamp": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "event": event_of(record),
            **keys_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return hide_tokens(json.dumps(line, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """One line for a person: time, level, event, keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        # Values may come from the network: repr() keeps them on their line.
        keys = " ".join(f"{key}={value!r}" for key, value in keys_of(record).items())
        head = f"{_moment(record):%H:%M:%S} {record.levelname.lower():<7} {record.name}"
        text = _plain(f"{head}: {event_of(record)} {keys}".rstrip())
        return hide_tokens(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)


class TerminalLog(logging.Handler):
    """Writes records to stderr from a thread of its own: a pipe that nobody reads must not stop the server.

    ``RECORDS_WAITING`` wait at most; more are counted, and the count is written once the pipe is read again.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(RECORDS_WAITING)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write_all, name="log to stderr", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Let one record be written."""
        self.write(self.format(record))

    def write(self, line: str) -> None:
        """Let a line be written."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def close(self) -> None:
        """Wait for what waits to be written, but not for a pipe that nobody reads."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=LAST_RECORDS_S)
        self._thread.join(LAST_RECORDS_S)
        super().close()

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._write(line)
            if (left_out := self._left_out) and self._waiting.empty():
                self._left_out -= left_out
                self._write(f"komas: {left_out} records were not written here: stderr was not read")

    def _write(self, line: str) -> None:
        if self._stream is None:
            return  # the process was started with a closed stderr
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        with suppress(OSError, ValueError):  # closed, or its reader has gone: the daily file has the record
            try:
                # Past Python's own buffer, whose lock would hold up the end of the process while a write waits.
                file = self._stream.fileno()
            except (OSError, ValueError):
                self._stream.write(data.decode())
                return
            while data:
                data = data[os.write(file, data) :]


class DailyLog(logging.Handler):
    """A file for each day (UTC) in ``folder``; files older than ``days`` are removed.

    A file that was moved or removed meanwhile is begun anew. ``complain`` is called with a line when none can be
    written. Several processes may write to one folder: a record is one write to the end of the file, which the system
    does as one step.
    """

    def __init__(self, folder: Path, days: int, complain: Callable[[str], object] | None = None) -> None:
        super().__init__()
        self._write_complaint = complain or _to_stderr
        self._looked_at = -math.inf
        self.setFormatter(JsonFormatter())
        self._folder = folder
        self._days = days
        self._day = ""
        self._file: FileIO | None = None
        self._log_limit = LogLimit()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a full disk must not stop prices, so a failure is told on stderr, now and then."""
        try:
            file = self._open(_moment(record))
            # A path or the exchange's words may hold what UTF-8 cannot: a record must not raise into who logs it.
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            while line:
                line = line[os.write(file.fileno(), line) :]
        except OSError as error:
            self._complain(record.created, error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._day = ""
        super().close()

    def today(self, *, now: datetime, level: str = "DEBUG", limit: int) -> list[dict[str, object]]:
        """The newest records of today that are at least as severe as ``level``, newest last.

        There are ``limit`` of them, or fewer where they would exceed ``ANSWER_BYTES``.
        """
        lowest = logging.getLevelNamesMapping()[level]
        path = self._path(now)
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
        records, size = list[dict[str, object]](), 0
        for line in reversed(lines):
            record = _read(line)
            if record is None or _level_of(record) < lowest:
                continue
            size += len(line)
            if len(records) == limit or (records and size > ANSWER_BYTES):
                break
            records.append(record)
        return records[::-1]

    def _complain(self, now: float, error: OSError) -> None:
        if self._log_limit.due(now) is not None:
            self._write_complaint(f"komas: no record is written to {self._folder}: {error}")

    def _open(self, moment: datetime) -> FileIO:
        day = moment.strftime(_FILE_NAME)
        if self._file is None or day != self._day or self._is_gone(self._file, moment):
            if self._file is not None:
                self._file.close()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path(moment).open("ab", buffering=0)
            self._day = day
            self._remove_old(moment)
        return self._file

    def _is_gone(self, file: FileIO, moment: datetime) -> bool:
        """Whether the file is not the one of that name any more; asked once a second."""
        if -LOOK_EVERY_S < moment.timestamp() - self._looked_at < LOOK_EVERY_S:
            return False
        self._looked_at = moment.timestamp()
        try:
            return not _is_same(file, self._path(moment))
        except OSError:
            return True

    def _path(self, moment: datetime) -> Path:
        return self._folder / moment.strftime(_FILE_NAME)

    def _remove_old(self, moment: datetime) -> None:
        oldest = (moment - timedelta(days=self._days)).strftime(_FILE_NAME)
        for path in self._folder.glob("komas-????-??-??.jsonl"):
            if path.name < oldest:
                path.unlink(missing_ok=True)


def logs_of(data_dir: Path) -> Path:
    """The folder of the daily files."""
    return data_dir / "logs"


def make_folder(folder: Path) -> None:
    """Make the folder of logs, where it is not there; ``SettingError`` says why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"data_dir: {folder} cannot be made: {error.strerror}; accepted: a folder to write to"
        ) from None


class _OutOfFiles(logging.Filter):
    """Trio logs ten times a second while the process has no file descriptors left; strangers can cause that."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LogLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        left_out = self._limit.due(record.created)
        record.exc_info = None  # the message says it all
        record.not_logged = left_out
        return left_out is not None


class _Named(logging.Filter):
    """Says whose a record is, where several processes write to one log."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def filter(self, record: logging.LogRecord) -> bool:
        record.node = self._node
        return True


@contextmanager
def logging_to(folder: Path, *, level: str, as_json: bool, days: int, node: str = "") -> Iterator[DailyLog]:
    """Send every record of the process to stderr and to the daily file while the block lasts; ``node`` names it."""
    make_folder(folder)
    terminal = TerminalLog(sys.stderr)
    daily = DailyLog(folder, days, terminal.write)
    terminal.setFormatter(JsonFormatter() if as_json else TextFormatter())
    # Hypercorn's own command gives its logger a handler of its own: such a record is on the terminal already.
    terminal.addFilter(lambda record: not logging.getLogger(record.name).handlers)
    root = logging.getLogger()
    before = root.level
    root.setLevel(level)
    for handler in (terminal, daily):
        if node:
            handler.addFilter(_Named(node))
        root.addHandler(handler)
    # These write several records for each message that passes, or each start.
    for name in ("trio-websocket", "httpx", "httpcore", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A traceback for each connection to the database that is lost in the middle of a read; who read says so in a line.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    listeners, limit = logging.getLogger("trio.serve_listeners"), _OutOfFiles()
    listeners.addFilter(limit)
    try:
        yield daily
    finally:
        listeners.removeFilter(limit)
        for handler in (daily, terminal):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before)


@contextmanager
def adding_to(folder: Path, *, days: int) -> Iterator[None]:
    """Send records to the daily file alone while the block lasts, beside a server that may write to it, too.

    What cannot be written is said on stderr. A file that root begins belongs to the folder's owner: a server that is
    not root goes on writing to it.
    """
    daily = DailyLog(folder, days)
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    root.addHandler(daily)
    try:
        yield
    finally:
        root.removeHandler(daily)
        root.setLevel(before)
        daily.close()
        with suppress(OSError):
            _give_to_owner(folder)


def _give_to_owner(folder: Path) -> None:
    if sys.platform != "win32" and os.geteuid() == 0:
        owner = folder.parent.stat()
        for path in (folder, *folder.glob("komas-????-??-??.jsonl")):
            if path.lstat().st_uid == 0:
                os.lchown(path, owner.st_uid, owner.st_gid)


def _plain(text: str) -> str:
    """A text without what a terminal would act upon: a new line, an escape sequence."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _is_same(file: FileIO, path: Path) -> bool:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _read(line: str) -> dict[str, object] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None  # a line cut by a kill, or the first of the tail
    return record if isinstance(record, dict) else None


def _level_of(record: dict[str, object]) -> int:
    return logging.getLevelNamesMapping().get(str(record.get("level")), 0)
