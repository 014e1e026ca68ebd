"""What ``.ci/run`` runs, one session each: ``nox`` for all of it, ``nox -s lint`` for one."""

from __future__ import annotations

import nox

OLDEST, NEWEST = "3.11", "3.13"
PINNED = ("-c", "constraints.txt", "-e", ".[test]")


@nox.session(python=OLDEST)
def tests(session: nox.Session) -> None:
    """The tests, with the versions that users install."""
    session.install(*PINNED)
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session(python=NEWEST)
def tests_newest(session: nox.Session) -> None:
    """The same tests with the newest release of everything."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "-q", *session.posargs)


@nox.session(python=OLDEST)
def lint(session: nox.Session) -> None:
    """Format, lint, types and import contracts."""
    session.install(*PINNED)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python=OLDEST)
def package(session: nox.Session) -> None:
    """The wheel and the sdist, installed elsewhere, and their demo."""
    session.install("-c", "constraints.txt", "build")
    session.run("python", ".ci/check_package")
