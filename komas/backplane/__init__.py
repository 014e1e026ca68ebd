"""Pub/sub between processes: one log of market data that every process mirrors whole."""
