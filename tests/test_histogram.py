"""Counts of values by their size."""

from __future__ import annotations

import math

from komas.histogram import Histogram


def test_a_value_counts_in_the_first_bucket_that_holds_it_and_in_all_after_it() -> None:
    """A bound is within its own bucket, as Prometheus has it (``le``); infinity holds all."""
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.2, 1.0, 7.0):
        histogram.observe(value)
    assert list(histogram.cumulative()) == [(0.1, 2), (1.0, 4), (math.inf, 5)]
    assert histogram.sum == 8.3
