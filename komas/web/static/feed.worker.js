// One event stream for every tab of this origin, and one socket of signals for each token.
// Tabs say what they show; they ask for what has changed (pull), and get the rest when it happens.

import { Kept } from "./kept.js";
import { MarketConnection } from "./komas.js";
import { SignalList } from "./signals.js";

const ROOT = new URL("..", import.meta.url);
const CHECK_MS = 1000;
const HIDDEN_MS = 10_000; // for so long a hidden tab keeps its streams
const OWN_GAPS = 50; // that are kept, to be listed
const SILENT_MS = 15_000; // a tab says something every 5 s,
const SILENT_HIDDEN_MS = 180_000; // but the timers of a hidden one are slowed down to one a minute

/** @typedef {import("./signals.js").Signal} Signal */
/** @typedef {{ postMessage(message: unknown): void, onmessage: ((event: MessageEvent) => void) | null }} Port */

class Tab {
  /** @type {Set<string>} */ streams = new Set();
  /** @type {Map<string, import("./kept.js").Seen>} */ seen = new Map();
  /** @type {string | null} */ token = null;
  isVisible = true;
  saidAt = Date.now();
  hiddenAt = 0;

  /** @param {Port} port */
  constructor(port) {
    this.port = port;
  }

  get isReading() {
    return this.isVisible || Date.now() - this.hiddenAt < HIDDEN_MS;
  }

  get isGone() {
    return Date.now() - this.saidAt > (this.isVisible ? SILENT_MS : SILENT_HIDDEN_MS);
  }
}

/** @type {Set<Tab>} */ const tabs = new Set();
/** @type {Map<string, Kept>} */ const kept = new Map();
/** @type {Map<string, SignalList>} */ const signals = new Map();
/** @type {Set<string>} */ let wanted = new Set();
/** @type {Record<string, { health: string, reason: string | null }>} */ let unhealthy = {};
let version = 0;
let wasLost = false;
let isTelling = false;

const state = {
  state: "idle",
  since: Date.now(),
  reason: /** @type {string | null} */ (null),
  retryAt: /** @type {number | null} */ (null),
  answered: true,
  lastEventAt: /** @type {number | null} */ (null),
  reconnects: 0,
  gaps: 0,
  /** Those that were declared to this page, the newest last. */
  ownGaps: /** @type {import("./feed.js").Gap[]} */ ([]),
  lagged: 0,
  exchange: /** @type {Record<string, unknown>} */ ({}),
  simulated: /** @type {boolean | null} */ (null),
  version: /** @type {string | null} */ (null),
  server: /** @type {string | null} */ (null),
};

const market = new MarketConnection(
  ROOT,
  { history: 500, limit: 100 },
  {
    onEvent(stream, text) {
      state.lastEventAt = Date.now();
      kept.get(stream)?.put(text, ++version);
    },
    onNotice: take,
    onOpen({ simulated, version: release, server }) {
      Object.assign(state, { simulated, version: release, server, lastEventAt: Date.now() });
      for (const stream of Object.keys(unhealthy)) note(stream, "health", '{"health":"live","reason":null}');
      unhealthy = {}; // what is doubtful is said again
      tell();
    },
    onState(now) {
      if (now.state === "lost" || now.state === "busy") wasLost = true;
      if (now.state === "live" && wasLost) state.reconnects += 1;
      if (now.state === "live") wasLost = false;
      Object.assign(state, now, now.state === state.state ? {} : { since: Date.now() });
      tell();
    },
  },
);

/** @param {string} stream @param {string} event @param {string} text */
function note(stream, event, text) {
  kept.get(stream)?.notice(event, text, ++version);
}

/** @param {string} name @param {string} text */
function take(name, text) {
  const notice = JSON.parse(text);
  const stream = notice.stream ?? "";
  state.lastEventAt = Date.now();
  if (name === "status" && !stream) state.exchange = { ...state.exchange, [notice.market ?? ""]: notice };
  else if (name === "status") note(stream, "refused", text);
  else note(stream, name, text);
  if (name === "gap" && !notice.filled) declare(notice);
  if (name === "lagged") state.lagged += notice.dropped;
  if (name === "health") {
    const { [stream]: _, ...others } = unhealthy;
    unhealthy = others;
    if (notice.health !== "live") unhealthy[stream] = { health: notice.health, reason: notice.reason ?? null };
  }
  tell();
}

/** The same range again, after a reconnect, is the same gap. @param {import("./feed.js").Gap} gap */
function declare({ stream, from = null, to = null, reason = null }) {
  const others = state.ownGaps.filter((gap) => gap.stream !== stream || gap.from !== from || gap.to !== to);
  if (others.length === state.ownGaps.length) state.gaps += 1;
  state.ownGaps = [...others, { at: Date.now(), stream, from, to, reason }].slice(-OWN_GAPS);
}

/** Tell every tab the state, soon, and once. */
function tell() {
  if (isTelling) return;
  isTelling = true;
  setTimeout(() => {
    isTelling = false;
    const health = { live: wanted.size, quiet: 0, stale: 0, recovering: 0, pending: 0 };
    for (const { health: name } of Object.values(unhealthy)) {
      health.live -= 1;
      health[/** @type {keyof typeof health} */ (name)] += 1;
    }
    const all = { ...state, streams: wanted.size, health, unhealthy, tabs: tabs.size };
    for (const { port } of tabs) port.postMessage({ type: "state", state: all });
  }, 50);
}

/** What the tabs that are looked at show together is asked for; the rest is closed. */
function settle() {
  const leased = new Set([...tabs].flatMap((tab) => [...tab.streams]));
  const now = new Set([...tabs].filter((tab) => tab.isReading).flatMap((tab) => [...tab.streams]));
  // Without any reader the connection is closed, and resumed later: what was had stays true until then.
  for (const stream of kept.keys()) if (!leased.has(stream) || (now.size > 0 && !now.has(stream))) kept.delete(stream);
  for (const stream of now) if (!kept.has(stream)) kept.set(stream, new Kept(stream));
  for (const stream of Object.keys(unhealthy)) if (!now.has(stream)) delete unhealthy[stream];
  if (now.size !== wanted.size || [...now].some((stream) => !wanted.has(stream))) {
    wanted = now;
    market.want(now);
  }
  for (const [token, list] of signals)
    if (![...tabs].some((tab) => tab.token === token)) {
      list.close();
      signals.delete(token);
    }
  tell();
}

/** @param {Tab} tab @param {any} message */
function hear(tab, message) {
  tab.saidAt = Date.now();
  const isNew = !tabs.has(tab);
  if (message.type === "bye") {
    tabs.delete(tab);
    tab.token = null; // a page that comes back from the browser's cache says everything anew
    tab.seen.clear();
    settle();
  } else if (message.type === "tab") {
    tabs.add(tab);
    tab.streams = new Set(message.streams);
    for (const stream of tab.seen.keys()) if (!tab.streams.has(stream)) tab.seen.delete(stream);
    if (tab.isVisible && !message.visible) tab.hiddenAt = Date.now();
    tab.isVisible = message.visible;
    showSignals(tab, message.token);
    settle();
  } else if (message.type === "pull") tab.port.postMessage({ type: "changes", ...changesFor(tab) });
  else if (message.type === "retry") {
    market.retry();
    signals.get(tab.token ?? "")?.connection.retry();
  }
  if (isNew && message.type !== "bye" && message.type !== "tab") tab.port.postMessage({ type: "again" });
}

/** @param {Tab} tab */
function changesFor(tab) {
  /** @type {import("./kept.js").Change[]} */ const changes = [];
  for (const stream of tab.streams) {
    const here = kept.get(stream);
    if (here) tab.seen.set(stream, here.since(tab.seen.get(stream), changes));
  }
  return { changes, lastEventAt: state.lastEventAt };
}

/** @param {Tab} tab @param {string | null} token */
function showSignals(tab, token) {
  if (token === tab.token) return;
  tab.token = token;
  if (token === null) return;
  const list = signals.get(token);
  if (list) tab.port.postMessage(signalsMessage(list, [...list.signals.values()], true));
  else {
    const tellTabs = (
      /** @type {SignalList} */ list,
      /** @type {Signal[]} */ changed,
      /** @type {boolean} */ isAll,
    ) => {
      for (const each of tabs) if (each.token === token) each.port.postMessage(signalsMessage(list, changed, isAll));
    };
    signals.set(token, new SignalList(ROOT, token, tellTabs));
  }
}

/** @param {SignalList} list @param {Signal[]} changed @param {boolean} isAll */
const signalsMessage = (list, changed, isAll) => ({ type: "signals", state: list.state, changed, isAll });

/** @param {Port} port */
function connect(port) {
  const tab = new Tab(port);
  port.onmessage = ({ data }) => hear(tab, data);
}

setInterval(() => {
  for (const tab of tabs) if (tab.isGone) tabs.delete(tab);
  settleIfChanged();
}, CHECK_MS);

let lastReading = "";
function settleIfChanged() {
  const reading = [...tabs].map((tab) => tab.isReading).join();
  if (reading !== lastReading) settle();
  lastReading = reading;
}

self.addEventListener("online", () => market.retry());
if ("onconnect" in self)
  self.addEventListener("connect", (event) => connect(/** @type {MessageEvent} */ (event).ports[0]));
else connect(/** @type {any} */ (self));
