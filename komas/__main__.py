"""``python -m komas``, and the command of that name."""

from __future__ import annotations

import sys

from komas.cli.loading import for_good
from komas.shutdown import INTERRUPTED


def main() -> None:
    """Load the command line, and run it."""
    try:
        with for_good():
            from komas.cli.main import main as run_command  # noqa: PLC0415 - the block is for it

        run_command()
    except KeyboardInterrupt:  # while something is loaded
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
