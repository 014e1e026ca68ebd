"""The command line: ``komas serve|simulate|token|vip|signal|backup|watch``. Thin: a verb reads its options."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import trio

from komas.cli.backup import add_backup
from komas.cli.loading import for_good, stays
from komas.cli.parser import WRONG_USAGE, Parser
from komas.cli.ports import is_taken, say_taken
from komas.cli.progress import Progress
from komas.cli.serve_options import add_settings_to, given_settings
from komas.cli.signals import add_signal, add_token, add_vip
from komas.cli.watch.options import add_watch
from komas.cli.welcome import welcome
from komas.errors import CallerError, KomasError, first_of
from komas.settings import Settings, load
from komas.shutdown import INTERRUPTED, first_signal

FAILED: Final = 1
USAGE: Final = """\
komas sends Binance's prices to browsers over SSE, and trading signals to VIPs.

  komas serve --demo            try it: simulated prices and signals, no account, no internet
  komas serve                   prices of Binance, on http://127.0.0.1:8000
  komas watch trades BTCUSDT    a live view in the terminal of what a server sends

Others: simulate token vip signal backup. komas --help, and komas serve --help, tell more.
"""
STDOUT: Final = 1
STDERR: Final = 2


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than all the rest of the parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        print("komas", metadata.version("komas"))
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; the exit status is 0, 1 for a failure, 2 for a wrong option or setting."""
    _open_standard_files()
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        sys.stderr.write(USAGE)
        sys.exit(WRONG_USAGE)
    options = _parser().parse_args(given)
    try:
        options.run(options)
    except CallerError as error:
        _leave(WRONG_USAGE, str(error))
    except KomasError as error:
        _leave(FAILED, str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _exit_on_closed_output()
    except BaseExceptionGroup as group:
        _leave_with_group(group)


def _open_standard_files() -> None:
    """Open what the process was started without (``>&-``): the next file would take its number, and its text."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        continue
    os.close(number)
    for name, file in (("stdout", STDOUT), ("stderr", STDERR)):
        if getattr(sys, name) is None:  # as Python has it then; every print would have to ask
            setattr(sys, name, os.fdopen(file, "w"))


def _exit_on_closed_output() -> NoReturn:
    """The reader of our output has ended: ``komas watch ... | head``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
    sys.exit(0)


def _leave(status: int, message: str) -> NoReturn:
    sys.stderr.write(f"komas: {message}\n")
    sys.exit(status)


def _leave_with_group(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """One line for what the user can mend, the whole traceback for a bug."""
    if group.subgroup(KeyboardInterrupt) is not None:
        sys.exit(INTERRUPTED)
    if group.split(BrokenPipeError)[1] is None:
        _exit_on_closed_output()
    callers, rest = group.split(CallerError)
    if rest is None and callers is not None:
        _leave(WRONG_USAGE, str(first_of(callers)))
    system, rest = group.split(OSError)
    if rest is None and system is not None:
        _leave(FAILED, f"{first_of(system)}; is the address to listen on free, and this machine's?")
    logging.getLogger("komas").critical("komas failed", exc_info=group)
    sys.exit(FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="komas", description="Binance market streams to browsers over SSE, trading signals to VIPs.")
    parser.add_argument("--version", "-V", action=_Version, nargs=0, help="print the version")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    serve = verbs.add_parser("serve", help="serve prices, candles and trades over REST and SSE, and signals to VIPs")
    add_settings_to(serve)
    serve.set_defaults(run=_serve)
    _add_simulate(verbs.add_parser("simulate", help="be a Binance look-alike, from a replay or a seeded market"))
    add_token(verbs.add_parser("token", help="issue and inspect access tokens"))
    add_vip(verbs.add_parser("vip", help="grant, revoke and list VIPs"))
    add_signal(verbs.add_parser("signal", help="publish and update signals"))
    add_backup(verbs.add_parser("backup", help="copy the database of signals, also of a server that runs"))
    add_watch(verbs.add_parser("watch", help="a live view in the terminal of what a komas server sends"))
    return parser


def _serve(options: argparse.Namespace) -> None:
    settings = load(given_settings(options))
    if settings.workers > 1:
        _supervise(settings, given_settings(options))
    # Imported by the verb that needs it: `komas --help` must not wait for a web server.
    with for_good():
        from komas.server import serve

    try:
        trio.run(partial(serve, settings, ready=partial(_started, settings)))
    except BaseExceptionGroup as group:
        if is_taken(first_of(group)):
            _leave(FAILED, say_taken(settings.bind))
        raise


def _supervise(settings: Settings, given: dict[str, str | None]) -> NoReturn:
    from komas.workers.addresses import nginx_upstream
    from komas.workers.supervisor import supervise

    def ready() -> None:
        if settings.role != "feed":
            head = f"{settings.workers} workers listen; for nginx, in place of `upstream komas` of deploy/nginx.conf:"
            _write(head, *nginx_upstream(settings))

    sys.exit(trio.run(partial(supervise, settings, given, reload=partial(load, given), ready=ready)))


def _started(settings: Settings, binds: list[str]) -> None:
    _say_where(settings, binds)
    stays()


def _say_where(settings: Settings, binds: list[str]) -> None:
    _write(*welcome(settings, binds))


def _write(*lines: str) -> None:
    """Print lines at one go: records that go to the same terminal are written by another thread."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bind", default="127.0.0.1:9443", help="host:port, one for WebSocket and REST")
    parser.add_argument("--replay", nargs="+", type=Path, default=[], metavar="FILE.gz", help="captures to replay")
    parser.add_argument("--speed", type=float, default=1.0, help="1 is true speed, 60 a minute a second, inf unpaced")
    parser.add_argument("--loop", action="store_true", help="begin the replay again at its end")
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic market")
    parser.add_argument("--symbols", default="", help="of the synthetic market, with commas")
    parser.add_argument("--script", type=Path, help="a file of faults")
    parser.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> None:
    from komas.simulator import SimOptions, Simulator, simulate

    chosen = SimOptions(
        bind=options.bind,
        replay=tuple(options.replay),
        speed=options.speed,
        loop=options.loop,
        seed=options.seed,
        script=options.script,
    )
    symbols = tuple(symbol.strip().upper() for symbol in options.symbols.split(",") if symbol.strip())
    if symbols:
        from msgspec.structs import replace

        chosen = replace(chosen, symbols=symbols)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            try:
                simulator: Simulator = await nursery.start(partial(simulate, chosen, report=progress))
            except CallerError as error:
                if is_taken(error.__cause__):
                    raise CallerError(say_taken([chosen.bind])) from error
                raise
            progress.clear()
            _write(f"simulated exchange on {simulator.ws_url} and {simulator.rest_url}")

    with Progress() as progress:
        trio.run(_until_signalled, run)


async def _until_signalled(work: Callable[[], Awaitable[None]]) -> None:
    """Run until it ends or a signal asks to stop; either is a success."""
    async with trio.open_nursery() as nursery:
        await nursery.start(first_signal, nursery.cancel_scope.cancel)
        await work()
        nursery.cancel_scope.cancel()
