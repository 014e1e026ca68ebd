"""sseclient-py reads what requests has opened; coming back is left to its user."""

import json
import sys
import time

import requests  # type: ignore[import-untyped]
import sseclient  # type: ignore[import-not-found]

last_id, pause_s = None, 1.0
while True:
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
    try:
        with requests.get(sys.argv[1], headers=headers, stream=True, timeout=None) as response:
            response.raise_for_status()
            for event in sseclient.SSEClient(response).events():
                print(json.dumps([event.event, event.id, event.data]), flush=True)
                last_id = event.id or last_id
                pause_s = pause_s if event.retry is None else int(event.retry) / 1000
    except requests.RequestException as error:
        print(repr(error), flush=True)
    time.sleep(pause_s)
