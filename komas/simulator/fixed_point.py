"""Prices and quantities as whole numbers of 1e-8: exact, quick to add, and written with eight decimals."""

from __future__ import annotations

UNIT = 10**8  # Binance writes eight decimals, trailing zeros kept
DECIMALS = 8


def written(amount: int) -> str:
    """The amount as the exchange writes it: eight decimals, never an exponent."""
    if amount < 0:
        return f"-{written(-amount)}"
    return f"{amount // UNIT}.{amount % UNIT:08d}"


def decimals(grid: int) -> int:
    """How many decimals the multiples of a grid need."""
    return len(written(grid).rstrip("0").partition(".")[2])


def parsed(text: str) -> int:
    """The amount that a captured text stands for; digits past the eighth decimal are not expected and are cut."""
    if text[-DECIMALS - 1 : -DECIMALS] == ".":  # as the exchange writes it: hundreds of thousands in a capture
        return int(text[: -DECIMALS - 1] + text[-DECIMALS:])
    whole, _, part = text.partition(".")
    sign = -1 if whole.startswith("-") else 1
    return sign * (abs(int(whole)) * UNIT + int(part[:DECIMALS].ljust(DECIMALS, "0")))


def product(price: int, quantity: int) -> int:
    """What ``quantity`` costs at ``price``, cut to the eighth decimal."""
    return price * quantity // UNIT


def ratio(part: int, whole: int) -> int:
    """``part / whole`` as an amount; zero where there is nothing to divide by."""
    return part * UNIT // whole if whole else 0
