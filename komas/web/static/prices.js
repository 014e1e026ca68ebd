// JSON.parse would turn a price into a double and cut its last digits: they are shown from the text as it came.
const digits = (text, key) => (text.match(new RegExp(`"${key}":(-?[0-9.]+)`)) || [, ""])[1];
const say = (text) => { document.getElementById("state").textContent = text; };
const RETRY_MS = 3000;
const rows = new Map();
let source = null;
let again = null;

function row(symbol) {
  if (!rows.has(symbol)) {
    const line = document.getElementById("rows").insertRow();
    for (let cell = 0; cell < 5; cell += 1) line.insertCell();
    line.cells[0].textContent = symbol;
    rows.set(symbol, line);
  }
  return rows.get(symbol);
}

function show(event) {
  const { data } = JSON.parse(event.data);
  const { cells } = row(data.symbol);
  const before = Number(cells[1].textContent);
  cells[1].textContent = digits(event.data, "price");
  cells[1].className = before && data.price !== before ? (data.price > before ? "up" : "down") : cells[1].className;
  cells[2].textContent = `${digits(event.data, "price_change_percent")} %`;
  cells[2].className = data.price_change_percent < 0 ? "down" : "up";
  cells[3].textContent = digits(event.data, "high");
  cells[4].textContent = digits(event.data, "low");
}

function watch(symbols) {
  rows.clear();
  document.getElementById("rows").replaceChildren();
  say("connecting …");
  // Relative, as every address here: the page may be shown under a prefix.
  connect(`api/ws/sse/prices?symbols=${encodeURIComponent(symbols)}`);
}

function connect(url) {
  clearTimeout(again);
  if (source) source.close();
  source = new EventSource(url);
  source.onmessage = show;
  source.onopen = () => say("live");
  source.onerror = () => {
    say("connection lost, trying again …");
    // It has given up, as on the 502 of a proxy while the server is started anew: only another one tries again.
    if (source.readyState === EventSource.CLOSED) ask(url, source);
  };
  source.addEventListener("status", (event) => {
    const { state, reason } = JSON.parse(event.data);
    say(state === "connected" ? "live" : `exchange: ${state}${reason ? ` (${reason})` : ""}`);
  });
  source.addEventListener("busy", (event) => say(JSON.parse(event.data).reason));
}

// An EventSource does not show what it was answered: the same question, for the server's own words.
async function ask(url, closed) {
  const abort = new AbortController();
  let refusal = null;
  try {
    const response = await fetch(url, { signal: abort.signal });
    if (response.status >= 400 && response.status < 500 && response.status !== 429) refusal = (await response.json()).detail;
  } catch { /* it is away, or a proxy answers for it */ }
  abort.abort();
  if (closed !== source) return;
  if (refusal) say(refusal);
  else again = setTimeout(connect, RETRY_MS * (0.5 + Math.random()), url);
}

document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  watch(document.getElementById("symbols").value);
});

fetch("api/ws/streams").then((response) => response.json()).then(({ streams }) => {
  const tickers = streams.filter(({ type }) => type === "ticker").map(({ symbol }) => symbol);
  document.getElementById("symbols").value = (tickers.length ? tickers : ["BTCUSDT", "ETHUSDT"]).join(",");
  watch(document.getElementById("symbols").value);
}).catch(() => say("the server does not answer"));
