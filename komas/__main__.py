"""``python -m komas``, and the command of that name."""

from __future__ import annotations

from komas.loading import for_good


def main() -> None:
    """Load the command line, and run it."""
    with for_good():
        from komas import cli  # noqa: PLC0415 - the block is for it

    cli.main()


if __name__ == "__main__":
    main()
