"""httpx-sse has no way to come back: the loop is that of its README, without stamina."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

last_id, pause_s = "", 1.0
with httpx.Client() as client:
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with connect_sse(client, "GET", sys.argv[1], headers=headers, timeout=None) as source:
                for sse in source.iter_sse():
                    print(json.dumps([sse.event, sse.id, sse.data]), flush=True)
                    last_id = sse.id
                    pause_s = pause_s if sse.retry is None else sse.retry / 1000
        except httpx.TransportError as error:
            print(repr(error), flush=True)
        time.sleep(pause_s)
