// What all parts of the page share: the feed, and what is looked at (view, symbol, interval), which the address keeps.
import { openFeed } from "./feed.js";
import { settings } from "./store.js";

export const feed = openFeed();

export const VIEWS = ["market", "watch", "signals", "admin"];
export const INTERVALS = [
  "1s",
  "1m",
  "3m",
  "5m",
  "15m",
  "30m",
  "1h",
  "2h",
  "4h",
  "6h",
  "8h",
  "12h",
  "1d",
  "3d",
  "1w",
  "1M",
];

export const looking = { view: "market", symbol: "BTCUSDT", interval: "1m" };

const listeners = new Map();

/** Call back when `view`, `symbol` or `interval` becomes another, with the new one. */
export function onLook(key, listener) {
  if (!listeners.has(key)) listeners.set(key, new Set());
  listeners.get(key).add(listener);
  return () => listeners.get(key).delete(listener);
}

/** Look at something else: `look({ symbol: "ETHUSDT" })`. */
export function look(changes) {
  const changed = Object.keys(changes).filter((key) => looking[key] !== changes[key]);
  if (!changed.length) return;
  Object.assign(looking, changes);
  settings.set("looking", { symbol: looking.symbol, interval: looking.interval });
  const address = `#${looking.view}/${looking.symbol}/${looking.interval}`;
  // Only another view is a step that "back" undoes.
  history[changed.includes("view") ? "pushState" : "replaceState"](null, "", address);
  tell(changed);
}

function tell(changed) {
  for (const key of changed) for (const listener of listeners.get(key) ?? []) listener(looking[key]);
}

function read() {
  const [view, symbol, interval] = decodeURIComponent(location.hash.slice(1)).split("/");
  const wanted = {};
  if (VIEWS.includes(view)) wanted.view = view;
  if (/^[\p{L}\p{N}_]{2,40}$/u.test(symbol ?? "")) wanted.symbol = symbol.toUpperCase();
  if (INTERVALS.includes(interval)) wanted.interval = interval;
  return wanted;
}

Object.assign(looking, settings.get("looking"), read());

addEventListener("popstate", () => {
  const wanted = read();
  const changed = Object.keys(wanted).filter((key) => looking[key] !== wanted[key]);
  Object.assign(looking, wanted);
  tell(changed);
});

/** Which streams are of a symbol, in the exchange's own names. */
export const stream = (symbol, suffix) => `${symbol.toLowerCase()}@${suffix}`;

/** The symbol of a stream's name. */
export const symbolOf = (name) => name.slice(0, name.indexOf("@")).toUpperCase();
