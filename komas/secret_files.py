"""Small files that the first run makes and only their owner may read: the secret of tokens, the admin token."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from komas.errors import SettingError

log = logging.getLogger(__name__)

RANDOM_BYTES: Final = 48


def read_or_make(file: Path) -> bytes:
    """What is in a file, which is made with a random one where it is not there.

    Raises ``SettingError`` when it can be neither read nor made.
    """
    try:
        if not file.exists():
            _make(file)
        text = file.read_bytes().strip()
        mode = file.stat().st_mode
    except OSError as error:
        raise SettingError(f"data_dir: {file} cannot be read or made: {error.strerror}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        log.warning("others can read or change %s: chmod 600 it", file)
    return text


def _make(file: Path) -> None:
    """Write whole, then link into place: of two first runs at the same time, one wins and both read its text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # readable by its owner alone
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w") as writer:
            writer.write(secrets.token_urlsafe(RANDOM_BYTES))
            writer.flush()
            os.fsync(writer.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
        log.info("made %s", file)
    finally:
        draft.unlink(missing_ok=True)
