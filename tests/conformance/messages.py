"""AsyncAPI: its own parser reads ``/asyncapi.json``, which checks it against the standard's JSON schema."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.conformance.counterparts import Absent, Row, folder, install
from tests.e2e.processes import PATIENCE_S, serving

PARSER: Final = "@asyncapi/parser@3.6.6"
PROGRAM: Final = """
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
const { document, diagnostics } = await new Parser().parse(readFileSync("asyncapi.json", "utf8"));
const messages = document ? document.allMessages().all().length : 0;
const said = diagnostics.map(({ path, message }) => `${path.join(".")}: ${message}`);
console.log(JSON.stringify({ messages, said }));
"""


def run() -> Iterator[Row]:
    """One row; a case is a message that the parser finds."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise Absent("there is no npm here")
    with folder() as place:
        (place / "package.json").write_text('{"private": true, "type": "module"}')
        install([npm, "install", "--silent", "--no-audit", "--no-fund", PARSER], place)
        with serving(place / "komas", "--demo") as server:
            described = server.http.get("/asyncapi.json").json()
        yield _row(node, place, described)


def _row(node: str, place: Path, described: object) -> Row:
    (place / "asyncapi.json").write_text(json.dumps(described))
    (place / "check.js").write_text(PROGRAM)
    done = subprocess.run([node, "check.js"], cwd=place, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    found = json.loads(done.stdout)
    messages: int = found["messages"]
    passed = 0 if found["said"] else messages
    return Row("AsyncAPI, event streams and sockets", PARSER, passed, messages, (*found["said"],))
