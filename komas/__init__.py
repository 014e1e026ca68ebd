"""Komas: Binance market streams to browsers over SSE, and to Python callers, on Trio."""
