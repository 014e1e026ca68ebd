"""``python -m tests.conformance [part ...]``: one row for each counterpart; without a part, all of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from tests.conformance import (
    autobahn,
    description,
    exchange_clients,
    http_lint,
    messages,
    sse_clients,
    websocket_clients,
)
from tests.conformance.counterparts import Absent, Row

PARTS: Final[Mapping[str, Callable[[], Iterator[Row]]]] = {
    "openapi": description.run,
    "asyncapi": messages.run,
    "http": http_lint.run,
    "websocket-client": autobahn.run_client,
    "websocket-server": autobahn.run_server,
    "sse-clients": sse_clients.run,
    "websocket-clients": websocket_clients.run,
    "exchange-clients": exchange_clients.run,
}


def main() -> None:
    """Run what is asked for; the exit status is 1 if a case failed, not if a counterpart is absent."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part", help=f"of {' '.join(PARTS)}")
    good = True
    for name in parser.parse_args().parts or PARTS:
        try:
            for row in PARTS[name]():
                print(row, flush=True)
                good &= row.is_good
        except Absent as reason:
            print(f"--  {name}: skipped, {reason}", flush=True)
    sys.exit(not good)


main()
