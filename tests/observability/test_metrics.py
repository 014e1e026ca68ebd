"""Prometheus text from plain numbers."""

from __future__ import annotations

from komas.observability.metrics import Sample, render


def test_counters_and_gauges() -> None:
    """Named, explained, typed; read at each rendering."""
    values = iter([1.0, 2.0])

    def read() -> list[Sample]:
        return [Sample("things", "How many", next(values)), Sample("seen", "How often", 5, is_counter=True)]

    text = render(read).decode()
    assert "# HELP komas_things How many\n# TYPE komas_things gauge\nkomas_things 1.0\n" in text
    assert "# TYPE komas_seen_total counter\nkomas_seen_total 5.0\n" in text
    assert "komas_things 2.0" in render(read_again).decode()


def read_again() -> list[Sample]:
    """What another moment would read."""
    return [Sample("things", "How many", 2.0)]
