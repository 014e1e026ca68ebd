"""``python -m komas``, and the command of that name."""

from __future__ import annotations

import sys

from komas.loading import for_good
from komas.stop import INTERRUPTED


def main() -> None:
    """Load the command line, and run it."""
    try:
        with for_good():
            from komas import cli  # noqa: PLC0415 - the block is for it

        cli.main()
    except KeyboardInterrupt:  # while something is loaded
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
