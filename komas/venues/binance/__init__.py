"""Binance spot: its facts, its wire, its conversation, its feed."""
