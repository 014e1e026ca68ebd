"""Load what stays until the end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# New objects before the youngest are looked at, and how often those go to the next of three generations.
SELDOM: Final = (5_000, 5, 400)


@contextmanager
def for_good() -> Iterator[None]:
    """Import in here what is never unloaded: the garbage collector looks at none of it, neither now nor ever after.

    For programs, not for libraries: everything that is there at the end stays.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def stays() -> None:
    """Call once the program has started: the collector looks at what is there never again, and at what comes seldom.

    A server's objects are freed by counting; of cycles there are few, and to look for them in all that lives stops
    everything: 50 ms and more, twice a second, while thousands of streams open.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
