// What is known of the exchange's symbols: currencies, tick, status. Asked for once, 4 questions at a time.
import { feed } from "./page.js";

const QUOTES = ["USDT", "USDC", "FDUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY"];
const AT_A_TIME = 4;

const known = new Map();
const asked = new Set();
const waiting = [];
const listeners = new Set();
let running = 0;

/** Call back with a symbol whenever more is known of it. */
export function onSymbol(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** What is known of a symbol now; what is not is asked for. */
export function about(symbol) {
  if (known.has(symbol)) return known.get(symbol);
  if (!asked.has(symbol)) {
    asked.add(symbol);
    queue(() => find(symbol, 1));
  }
  const quote = QUOTES.find((name) => symbol.endsWith(name) && symbol.length > name.length);
  return { symbol, base: quote ? symbol.slice(0, -quote.length) : symbol, quote: quote ?? "" };
}

/** Symbols that match, best first; no query: the busiest. */
export async function find(query, limit = 50) {
  const { symbols } = await feed.get(`api/ws/symbols?query=${encodeURIComponent(query)}&limit=${limit}&market=spot`);
  for (const row of symbols) {
    const isNew = !known.has(row.symbol);
    known.set(row.symbol, row);
    if (isNew) for (const listener of listeners) listener(row.symbol);
  }
  return symbols;
}

/** Ask the server something when fewer than four questions are open; what fails is left out. */
export function queue(question) {
  waiting.push(question);
  if (running < AT_A_TIME) work();
}

async function work() {
  running += 1;
  while (waiting.length) {
    try {
      await waiting.shift()();
    } catch {
      /* an ornament less: its row says what matters */
    }
  }
  running -= 1;
}
