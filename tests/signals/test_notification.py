"""What PostgreSQL carries between processes."""

from __future__ import annotations

import pytest

from komas.signals.notification import POSITION, SESSION, Notification, read_notification


@pytest.mark.parametrize(
    ("text", "kind", "number"),
    [
        ("position 12", POSITION, 12),
        ("session 0a1b2c3d-7", SESSION, None),
        ("", "", None),
        ("position", POSITION, None),
        ("position 1 2", POSITION, None),
        ("position -1", POSITION, None),
        ("position ٣", POSITION, None),
        (f"position {'9' * 5000}", POSITION, None),
    ],
)
def test_anything_can_be_notified_and_is_read(text: str, kind: str, number: int | None) -> None:
    """By whoever has access to the database; the longest number made Python raise."""
    read = read_notification(text)
    assert (read.kind, read.number) == (kind, number)


def test_what_is_written_is_read() -> None:
    """As it was."""
    assert read_notification(Notification(SESSION, "a-1").text) == Notification(SESSION, "a-1")
