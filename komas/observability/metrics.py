"""Prometheus text from the components' statistics; the components know no metrics library."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Sample(msgspec.Struct, frozen=True):
    """One number: a counter only rises, a gauge is what it is now."""

    name: str
    meaning: str
    value: float
    is_counter: bool = False


class _Samples(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        for sample in self._read():
            family = CounterMetricFamily if sample.is_counter else GaugeMetricFamily
            metric = family(f"komas_{sample.name}", sample.meaning)
            metric.add_metric([], sample.value)
            yield metric


def render(read: Callable[[], Iterable[Sample]]) -> bytes:
    """All samples in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(read))
    return generate_latest(registry)
