"""Prometheus metrics from plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from komas.histogram import Histogram
from komas.observability.metrics import Registry, counter, gauge, histogram, info

# As Prometheus 2.42 asks.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def _read() -> Iterable[Metric]:
    waits = Histogram((0.1,))
    waits.observe(0.05)
    waits.observe(3)
    yield info("build", "What runs here", {"version": "1"})
    yield gauge("things", "How many", 2)
    yield counter("seen", "How often", {("spot", "cut"): 1, ("spot", "closed"): 0}, "venue", "reason")
    yield gauge("ages", "How old", {"spot": 0.5}, "venue")
    yield histogram("wait_seconds", "How long", {"spot": waits}, "venue")
    yield histogram("commit_seconds", "How long", waits)


def test_counters_gauges_and_histograms() -> None:
    """Named, explained, typed, labelled; a histogram's buckets hold those before them."""
    text = Registry(_read).render()[0].decode()
    assert "# HELP komas_things How many\n# TYPE komas_things gauge\nkomas_things 2.0\n" in text
    assert "# TYPE komas_seen_total counter\n" in text
    assert 'komas_seen_total{reason="cut",venue="spot"} 1.0\n' in text
    assert 'komas_seen_total{reason="closed",venue="spot"} 0.0\n' in text
    assert 'komas_ages{venue="spot"} 0.5\n' in text
    assert 'komas_build_info{version="1"} 1.0\n' in text
    for line in (
        'komas_wait_seconds_bucket{le="0.1",venue="spot"} 1.0',
        'komas_wait_seconds_bucket{le="+Inf",venue="spot"} 2.0',
        'komas_wait_seconds_count{venue="spot"} 2.0',
        'komas_wait_seconds_sum{venue="spot"} 3.05',
        'komas_commit_seconds_bucket{le="+Inf"} 2.0',
    ):
        assert f"{line}\n" in text, line


def test_everything_is_read_anew() -> None:
    """At each rendering."""
    values = iter([1.0, 2.0])
    registry = Registry(lambda: [gauge("things", "How many", next(values))])
    assert b"komas_things 1.0" in registry.render()[0]
    assert b"komas_things 2.0" in registry.render()[0]


def _one(name: str) -> list[Metric]:
    return [gauge(name, "How many", 1)]


def test_servers_share_nothing() -> None:
    """Two of them in one process have their own metrics, and the library's own registry none."""
    ours, others = (Registry(partial(_one, name)) for name in ("ours", "others"))
    assert b"komas_ours" in ours.render()[0]
    assert b"komas_ours" not in others.render()[0]
    assert not [metric.name for metric in REGISTRY.collect() if metric.name.startswith("komas_")]


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0; escaping=underscores", True),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=high", False),
        ("application/openmetrics-text;version=none", True),
        (";;,=,\x00", False),
    ],
)
def test_the_format_that_is_asked_for(accept: str, *, is_openmetrics: bool) -> None:
    """Text for whoever does not prefer OpenMetrics; both can be read, whatever is asked."""
    content, media_type = Registry(_read).render(accept)
    assert media_type.startswith("application/openmetrics-text; version=1.0.0;") == is_openmetrics
    parse = parse_openmetrics if is_openmetrics else parse_text
    names = {family.name for family in parse(content.decode())}
    assert {"komas_things", "komas_seen", "komas_wait_seconds"} <= names
    assert content.endswith(b"# EOF\n") == is_openmetrics
