"""Binance: its hosts and limits, wire formats, subscription protocol, feed, order books and listings."""
