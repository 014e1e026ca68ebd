"""OpenAPI: schemathesis holds ``/openapi.json`` against the server that serves it.

Valid data must be accepted, invalid data refused, and every status, header, media type and body must be described.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conformance.counterparts import Row, folder, python_with
from tests.e2e.processes import serving, token_for

SCHEMATHESIS = "schemathesis==4.32.5"
SEED = 16
EXAMPLES = 20  # for each operation, beside those at the bounds of each parameter; all of them take 15 s
ADMIN = "admin-token-of-the-conformance-run"
ASSIGNED = "\u00a1-\u00ac\u00ae-\u0377"  # no pattern says what is unassigned in Unicode
USER_IDS = f"^[!-.0-~{ASSIGNED}]{{1,256}}$"
IN_COIN = f"!-+\\--~{ASSIGNED}"
COINS = f"^[{IN_COIN}]([ {IN_COIN}]{{0,62}}[{IN_COIN}])?$"
LISTED = ["BTCUSDT", "ETHUSDT"]  # no schema can say what an exchange lists
RUN_S = 300.0

CONFIGURATION = """
seed = {seed}
continue-on-failure = true
warnings = false

[generation]
max-examples = {examples}
deterministic = true

[phases]
stateful.enabled = false
fuzzing.enabled = {fuzzing}

[auth.openapi.admin]
bearer = "{admin}"

[auth.openapi.token]
bearer = "{token}"

# Event streams have no end. HEAD, which is described for this test, checks the same parameters.
[[operations]]
include-name = {streams}
enabled = false

# A key may have been used for another signal.
[[operations]]
include-name = "POST /api/signals"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "422"]

# No connection has a name that somebody makes up.
[[operations]]
include-name = "POST /api/ws/sse/stream/{{connection}}"
checks.positive_data_acceptance.expected-statuses = ["404"]
# Names without end are more than a body may have.
checks.negative_data_rejection.expected-statuses = ["400", "413"]

[[operations]]
include-name = "DELETE /api/admin/sessions/{{session}}"
checks.positive_data_acceptance.expected-statuses = ["401", "404"]

# No HTTP request is one of WebSocket, whatever its parameters.
[[operations]]
include-path-regex = "^/ws/"
checks.positive_data_acceptance.enabled = false
"""


def run() -> Iterator[Row]:
    """One row for who has every token, and one for who has none."""
    with folder() as place:
        python = python_with(place, SCHEMATHESIS)
        # A quick machine asks more often than one address may.
        with serving(place / "komas", "--demo", KOMAS_ADMIN_TOKEN=ADMIN, KOMAS_REQUEST_RATE="0") as server:
            schema = place / "openapi.json"
            schema.write_text(json.dumps(_testable(server.http.get("/openapi.json").json())))
            token = token_for(server.folder, "--scope", "signals:publish", "--vip-days", "1")
            yield _run("with tokens", python, schema, server.url, ADMIN, token)
            yield _run("with wrong tokens", python, schema, server.url, "wrong", "wrong")


def _testable(document: dict[str, Any]) -> dict[str, Any]:
    """The description, and what it cannot say or schemathesis cannot read."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    # Which symbols are listed. What was listed once can be unsubscribed, too.
    schemas["EverListed"] = {"type": "string", "pattern": "^[A-Z0-9]{1,40}$"}
    unsubscribe = json.dumps(schemas["SubscribeRequest"] | {"examples": []})
    schemas["UnsubscribeRequest"] = json.loads(unsubscribe.replace("schemas/Symbols", "schemas/EverListedSymbols"))
    schemas["EverListedSymbols"] = schemas["Symbols"] | {"items": {"$ref": "#/components/schemas/EverListed"}}
    schemas["Symbol"] = {"enum": LISTED}
    schemas["CoinName"] = schemas["CoinName"] | {"pattern": COINS}
    schemas["StreamName"] = {"enum": [f"{symbol.lower()}@trade" for symbol in LISTED]}
    body = paths["/api/ws/unsubscribe"]["post"]["requestBody"]["content"]["application/json"]
    body["schema"] = {"$ref": "#/components/schemas/UnsubscribeRequest"}
    for path, operations in paths.items():
        if "/sse/" in path and "get" in operations:
            operations["head"] = _head(operations["get"])
        for parameter in (item for operation in operations.values() for item in operation.get("parameters", ())):
            if parameter["name"] == "user_id" or (path, parameter["name"]) == ("/api/admin/vips", "after"):
                parameter["schema"]["pattern"] = USER_IDS
    return document


def _head(operation: dict[str, Any]) -> dict[str, Any]:
    """The same call as HEAD, which ends: it checks the same parameters and has the same status, but no body."""
    answers = {status: {"description": answer["description"]} for status, answer in operation["responses"].items()}
    return operation | {"responses": answers}


def _run(who: str, python: Path, schema: Path, url: str, admin: str, token: str) -> Row:
    paths = json.loads(schema.read_text())["paths"]
    streams = [f"GET {path}" for path, operations in paths.items() if "/sse/" in path and "get" in operations]
    file = schema.with_name("schemathesis.toml")
    file.write_text(
        CONFIGURATION.format(
            seed=SEED,
            examples=EXAMPLES,
            fuzzing=str(admin == ADMIN).lower(),  # without a token there is little behind the first check
            admin=admin,
            token=token,
            streams=json.dumps(streams),
        )
    )
    program = [str(python.with_name("schemathesis")), "--config-file", str(file), "run", str(schema), "--url", url]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=RUN_S, check=False, cwd=schema.parent, stdin=subprocess.DEVNULL
    )
    counts = re.search(r"(\d+) generated", done.stdout)
    found = re.search(r"found (\d+) unique failures", done.stdout)
    total = 0 if counts is None else int(counts[1])
    failed = 0 if done.returncode == 0 else 1 if found is None else int(found[1])
    notes = (done.stdout + done.stderr).splitlines() if failed else ()
    return Row(f"OpenAPI, {who}", SCHEMATHESIS, max(0, total - failed), total, tuple(notes))
