"""Runs in an environment of its own, with httplint: reads exchanges (JSON, one a line), prints the notes of each."""

import base64
import json
import sys

from httplint import HttpRequestLinter, HttpResponseLinter  # type: ignore[import-not-found]


def lint(exchange: dict) -> list[str]:  # type: ignore[type-arg]
    """What is wrong, or may be."""
    request = HttpRequestLinter()
    request.process_request_topline(exchange["method"].encode(), exchange["url"].encode(), b"1.1")
    request.process_headers([(name.encode(), value.encode()) for name, value in exchange["asked"]])
    request.finish_content(True)
    response = HttpResponseLinter(start_time=exchange["at_s"], no_content=exchange["method"] == "HEAD")
    response.request = request
    request.response = response
    response.base_uri = exchange["url"]
    response.process_response_topline(b"1.1", str(exchange["status"]).encode(), exchange["reason"].encode())
    response.process_headers([(name.encode(), value.encode()) for name, value in exchange["headers"]])
    response.feed_content(base64.b64decode(exchange["body"]))
    response.finish_content(exchange["complete"])
    found = list(response.notes) + [child for note in response.notes for child in note.subnotes]
    return [f"{note.level.name}: {note.summary}" for note in found if note.level.name in ("WARN", "BAD")]


for line in sys.stdin:
    print(json.dumps(lint(json.loads(line))), flush=True)
