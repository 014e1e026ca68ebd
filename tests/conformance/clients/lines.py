"""What a program prints: one line at a time, whichever thread it comes from."""

import json
import threading

_ONE_AT_A_TIME = threading.Lock()


def show(*told: object) -> None:
    """Print a row as JSON."""
    with _ONE_AT_A_TIME:
        print(json.dumps(told), flush=True)


def remark(text: object) -> None:
    """Print what is no row."""
    with _ONE_AT_A_TIME:
        print(text, flush=True)
