"""``python -m tests.hostile NAME``: attack a running server, or be the exchange that attacks it.

    python -m tests.hostile --list
    python -m tests.hostile lingering-streams --url http://127.0.0.1:8000 --seconds 10
    python -m tests.hostile wide-depth --bind 127.0.0.1:9444
    komas serve --binance-upstream ws://127.0.0.1:9444      # and read ETHUSDT: the attack comes with it

What was found is printed at the end: how requests were answered, or how often the exchange struck.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections import Counter
from typing import Final

import trio

from tests.hostile.catalogue import CLIENTS, EXCHANGES, summary
from tests.hostile.exchange import PAIR, Plan, symbol
from tests.hostile.target import Found, Target, target_of

FIRST_SOURCE: Final = 2  # 127.0.0.2; the server may trust 127.0.0.1 more than others
MOST_SOURCES: Final = 250


def main() -> None:
    """Run one attack."""
    options = _options()
    if options.list:
        for name in (*CLIENTS, *EXCHANGES):
            print(f"{name:24}{summary(name)}")
    elif options.name in EXCHANGES:
        trio.run(_exchange, options.name, options.bind, options.seconds)
    else:
        _show(trio.run(_client, options.name, _target(options), options.seconds or 10.0))


async def _client(name: str, target: Target, seconds: float) -> Found:
    found: Found = Counter()
    with trio.move_on_after(seconds):
        await CLIENTS[name](target, found)
    return found


async def _exchange(name: str, bind: str, seconds: float) -> None:
    exchange = EXCHANGES[name]()
    try:
        with trio.move_on_after(seconds or float("inf")):
            async with trio.open_nursery() as nursery:
                port = await nursery.start(exchange.serve, bind)
                print(f"{name} listens on ws://{bind.rpartition(':')[0]}:{port}", flush=True)
    except* KeyboardInterrupt:
        sys.stderr.write("\n")
    _show(exchange.found)


def _show(found: Found) -> None:
    print(json.dumps(found), flush=True)


def _target(options: argparse.Namespace) -> Target:
    host, port = target_of(options.url)
    sources = [f"127.0.0.{FIRST_SOURCE + number}" for number in range(options.addresses)]
    is_here = host.startswith("127.") and sys.platform == "linux"  # elsewhere there is but one such address
    return Target(host, port, sources if is_here else (), options.token, _symbols(options.symbols_of))


def _symbols(url: str) -> list[str]:
    """The names that an exchange lists; without one, those of ``honest``."""
    if not url:
        return [symbol(number) for number in range(Plan().symbols)]
    with urllib.request.urlopen(f"{url}/api/v3/exchangeInfo", timeout=10) as answer:
        found = json.load(answer)["symbols"]
    return [row["symbol"] for row in found if row["status"] == "TRADING" and row["symbol"] != PAIR]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", metavar="NAME", choices=[*CLIENTS, *EXCHANGES], help="see --list")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the server (http://127.0.0.1:8000)")
    parser.add_argument("--bind", default="127.0.0.1:9444", help="where an exchange listens (127.0.0.1:9444)")
    parser.add_argument("--seconds", type=float, default=0.0, help="for so long (10; an exchange: until Ctrl-C)")
    parser.add_argument("--addresses", type=int, default=1, help="come from 127.0.0.2 and so many in all (1; Linux)")
    parser.add_argument("--token", default="", help="a VIP's, for attacks on signals: komas token issue ...")
    parser.add_argument("--symbols-of", default="", metavar="URL", help="a REST host (default: names of 'honest')")
    options = parser.parse_args()
    if options.name is None and not options.list:
        parser.error("name an attack, or ask for --list")
    if not 1 <= options.addresses <= MOST_SOURCES:
        parser.error(f"--addresses is a number from 1 to {MOST_SOURCES}")
    return options


if __name__ == "__main__":
    main()
