const NAMES = ["message", "status", "gap", "health", "lagged", "busy", "open", "streams"];

/** Read with an EventSource, the browser's or another; what is handed out is [name, id, data]. */
export function watch(EventSource, url, print, lastId = "") {
  const position = lastId && `&last_event_id=${encodeURIComponent(lastId)}`;
  const source = new EventSource(url + position);
  let last = lastId;
  for (const name of NAMES) {
    source.addEventListener(name, (event) => {
      if (event.data === undefined) return; // its own "open", of the same name as komas's
      last = event.lastEventId || last;
      print([name, event.lastEventId, event.data]);
    });
  }
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(watch, 1000 + 1000 * Math.random(), EventSource, url, print, last);
    }
  };
}
