"""Trades with Python alone: trades.py [server]. Each once and in order, over any cut; what is missing is said."""

import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.request
from decimal import Decimal

URL = f"{sys.argv[1] if len(sys.argv) > 1 else 'http://localhost:8000'}/api/ws/sse/trades?symbol=BTCUSDT"
SILENCE_S = 45  # three of komas's heartbeats


def events(lines):
    """Name, id and data of each Server-Sent Event."""
    name, event_id, data = "message", None, []
    for line in lines:
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field in ("event", "id"):
            name, event_id = (value, event_id) if field == "event" else (name, value)
        elif not line.strip():
            if data:
                yield name, event_id, "\n".join(data)
            name, data = "message", []


def follow():
    """Name and data of each event, from one connection after another."""
    last, wait_s = None, 1.0
    while True:
        request = urllib.request.Request(URL, headers={"Last-Event-ID": last} if last else {})
        try:
            with urllib.request.urlopen(request, timeout=SILENCE_S) as response:
                for name, event_id, data in events(response):
                    yield name, json.loads(data, parse_float=Decimal)
                    last = event_id or last  # only now: what was not dealt with comes again
                    wait_s = 1.0
        except urllib.error.HTTPError as error:
            if error.code < 500:
                sys.exit(error.read().decode())  # it says what was wrong
        except (OSError, http.client.HTTPException) as error:
            print("cut:", error, file=sys.stderr)
        time.sleep(wait_s * random.uniform(0.5, 1.5))
        wait_s = min(30.0, 2 * wait_s)


for name, event in follow():
    if name == "message":
        trade = event["data"]
        print(trade["trade_id"], trade["price"], trade["quantity"], flush=True)
    elif name == "gap" and not event["filled"]:
        print("missing trades", event["from"], "to", event["to"], event.get("reason", ""), file=sys.stderr)
    elif name in ("lagged", "busy", "status", "health"):
        print(name, event, file=sys.stderr)
