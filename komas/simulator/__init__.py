"""The exchange double: a Binance on the loopback interface that can be told to misbehave."""

from __future__ import annotations

from komas.simulator.binance import SimOptions, Simulator, simulate

__all__ = ["SimOptions", "Simulator", "simulate"]
