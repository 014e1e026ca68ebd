"""Prometheus metrics from plain numbers; the components know no metrics library, and count without locks.

Everything is read when it is asked for: a counter that is a plain ``int`` costs an event next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from komas.histogram import Histogram

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS_TYPE: Final = "application/openmetrics-text"
_TEXT_TYPE: Final = "text/plain"

K = TypeVar("K", bound=str | tuple[str, ...])  # the values of the labels
S = TypeVar("S", bound=str)


def counter(name: str, meaning: str, values: float | Mapping[K, float], *labels: str) -> Family:
    """What only rises: one number, or one for each value of the labels."""
    return _filled(CounterMetricFamily(f"komas_{name}", meaning, labels=labels), values)


def gauge(name: str, meaning: str, values: float | Mapping[K, float], *labels: str) -> Family:
    """What is as it is now."""
    return _filled(GaugeMetricFamily(f"komas_{name}", meaning, labels=labels), values)


def histogram(name: str, meaning: str, found: Histogram | Mapping[S, Histogram], *labels: str) -> Family:
    """How often something took how long, in seconds."""
    family = HistogramMetricFamily(f"komas_{name}", meaning, labels=labels)
    for keys, each in [((), found)] if isinstance(found, Histogram) else [((key,), it) for key, it in found.items()]:
        buckets = [("+Inf" if math.isinf(bound) else str(bound), float(count)) for bound, count in each.cumulative()]
        family.add_metric(keys, buckets, each.sum)
    return family


def info(name: str, meaning: str, facts: Mapping[str, str]) -> Family:
    """Facts as labels, at the value 1."""
    return InfoMetricFamily(f"komas_{name}", meaning, value=dict(facts))


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: float | Mapping[K, float]) -> Family:
    if not isinstance(values, Mapping):
        family.add_metric((), values)
        return family
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


class _Families(Collector):
    def __init__(self, read: Callable[[], Iterable[Family]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Family]:
        return self._read()


class Registry:
    """One server's metrics: what ``read`` finds, and what is known of the process and of Python."""

    def __init__(self, read: Callable[[], Iterable[Family]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(read))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics and their media type: as OpenMetrics where ``accept`` prefers that, else as Prometheus text."""
        if _prefers_openmetrics(accept):
            return generate_openmetrics(self._registry), OPENMETRICS  # type: ignore[no-untyped-call]  # the library's
        return generate_latest(self._registry), TEXT


def _prefers_openmetrics(accept: str) -> bool:
    """As far as an ``Accept`` header names either (RFC 9110, 12.5.1); a wildcard is answered with text."""
    weights = {_OPENMETRICS_TYPE: 0.0, _TEXT_TYPE: 0.0}
    for part in accept.lower().split(","):
        media_type, *parameters = (each.strip() for each in part.split(";"))
        if media_type in weights:
            weights[media_type] = max(weights[media_type], _weight(parameters))
    return 0 < weights[_OPENMETRICS_TYPE] >= weights[_TEXT_TYPE]


def _weight(parameters: Iterable[str]) -> float:
    said = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    try:
        return float(said)
    except ValueError:
        return 0.0
