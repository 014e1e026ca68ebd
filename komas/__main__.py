"""``python -m komas``."""

from komas.cli import main

main()
