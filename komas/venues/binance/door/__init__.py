"""Binance's own interface, offered by komas: its bots are pointed here and share what komas knows."""
