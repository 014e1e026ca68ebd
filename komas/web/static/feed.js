// A tab's side of the feed: what it shows is leased from the worker, what changed is asked for in a frame.

import { parse } from "./digits.js";
import { KomasError as ApiError } from "./komas.js";

export { ApiError };

const ROOT = new URL("..", import.meta.url);
const WORKER = new URL("feed.worker.js", import.meta.url).href;
const PULL_MS = 100;
const MANY = 24; // streams that change together: more than eyes follow,
const PULL_MANY_MS = 240; // and each frame of so many costs the browser a redrawn list
const UNANSWERED_MS = 5000;
const PING_MS = 5000;

/** @typedef {{ stream: string, event: string, type: string, data: any, backfilled: boolean }} Change */
/** @typedef {import("./signals.js").Signal} Signal */
/** @typedef {{ stream: string, from: number | null, to: number | null, reason: string | null, at: number }} Gap */
/**
 * @typedef {object} FeedState
 * @property {"idle" | "connecting" | "live" | "lost" | "busy"} state
 * @property {number} since
 * @property {string | null} reason
 * @property {number | null} retryAt
 * @property {boolean} answered
 * @property {number | null} lastEventAt
 * @property {number} streams
 * @property {Record<"live" | "quiet" | "stale" | "recovering" | "pending", number>} health
 * @property {Record<string, { health: string, reason: string | null }>} unhealthy
 * @property {number} reconnects
 * @property {number} gaps
 * @property {Gap[]} ownGaps newest last
 * @property {number} lagged
 * @property {Record<string, { state: string, reason: string | null, retry_in_s: number | null }>} exchange
 * @property {boolean | null} simulated
 * @property {string | null} version
 * @property {string | null} server
 * @property {number} tabs
 * @property {boolean} shared
 */
/** @typedef {import("./signals.js").SignalList["state"]} WorkerSignals */
/** @typedef {Omit<WorkerSignals, "state"> & { state: string, signals: Map<string, Signal> }} SignalsState */
/** @typedef {{ postMessage(message: unknown): void, onmessage: ((event: MessageEvent) => void) | null }} Port */

/** @type {FeedState} */
const IDLE = {
  state: "idle",
  since: Date.now(),
  reason: null,
  retryAt: null,
  answered: true,
  lastEventAt: null,
  streams: 0,
  health: { live: 0, quiet: 0, stale: 0, recovering: 0, pending: 0 },
  unhealthy: {},
  reconnects: 0,
  gaps: 0,
  ownGaps: [],
  lagged: 0,
  exchange: {},
  simulated: null,
  version: null,
  server: null,
  tabs: 1,
  shared: true,
};

/** @type {SignalsState} */
const OFF = {
  state: "off",
  code: null,
  reason: "",
  word: null,
  retryAt: null,
  since: Date.now(),
  userId: null,
  expiresAt: null,
  expiring: false,
  recovered: null,
  events: [],
  signals: new Map(),
};

/** The address of the worker, as a page under `require-trusted-types-for` must give it. @returns {any} */
function workerAddress() {
  const factory = /** @type {any} */ (globalThis).trustedTypes;
  return factory ? factory.createPolicy("komas", { createScriptURL: () => WORKER }).createScriptURL("") : WORKER;
}

/** @param {any} address @param {() => void} onRefused @returns {{ port: Port, shared: boolean }} */
function startWorker(address, onRefused) {
  if (typeof SharedWorker === "undefined") return { port: new Worker(address, { type: "module" }), shared: false };
  const worker = new SharedWorker(address, { type: "module", name: "komas" });
  worker.onerror = onRefused;
  return { port: worker.port, shared: true };
}

class Lease {
  /** @param {(changes: Change[]) => void} take @param {() => void} changed @param {Iterable<string>} streams */
  constructor(take, changed, streams) {
    this.take = take;
    this.changed = changed;
    this.streams = new Set(streams);
    this.isOpen = true;
  }

  /** @param {Iterable<string>} streams */
  set(streams) {
    this.streams = new Set(streams);
    this.changed();
  }

  close() {
    this.isOpen = false;
    this.changed();
  }
}

class Feed {
  /** @type {Set<Lease>} */ #leases = new Set();
  /** @type {Set<(state: FeedState) => void>} */ #stateCallbacks = new Set();
  /** @type {Set<(state: SignalsState, changed: Signal[]) => void>} */ #signalCallbacks = new Set();
  /** @type {string | null} */ #token = null;
  /** @type {Set<string>} */ #told = new Set();
  #isTelling = false;
  #isClosed = false;
  #askedAt = 0;
  #isWaiting = false; // for an answer to a pull
  #pullMs = PULL_MS;
  /** @type {Port} */ #port;
  #address = workerAddress();
  state = IDLE;
  signals = OFF;

  constructor() {
    this.#port = this.#start();
    this.ending = new AbortController();
    const until = { signal: this.ending.signal };
    document.addEventListener("visibilitychange", () => this.#say(), until);
    addEventListener("pagehide", () => this.#port.postMessage({ type: "bye" }), until);
    addEventListener("pageshow", ({ persisted }) => persisted && this.#say(), until);
    addEventListener("online", () => this.retry(), until);
    this.ping = setInterval(() => this.#port.postMessage({ type: "ping" }), PING_MS);
    this.#say();
    requestAnimationFrame(() => this.#frame());
  }

  #start() {
    const { port, shared } = startWorker(this.#address, () => {
      if (this.state.state !== "idle" || this.#isClosed) return;
      this.#use(new Worker(this.#address, { type: "module" }), false); // no modules in a shared one here
      this.#say();
    });
    return this.#use(port, shared);
  }

  /** @param {Port} port @param {boolean} shared */
  #use(port, shared) {
    this.#port = port;
    this.state = { ...this.state, shared };
    port.onmessage = ({ data }) => this.#hear(data);
    return port;
  }

  /** @param {(changes: Change[]) => void} take @param {Iterable<string>} [streams] */
  lease(take, streams = []) {
    const lease = new Lease(
      take,
      () => {
        if (!lease.isOpen) this.#leases.delete(lease);
        this.#changed();
      },
      streams,
    );
    this.#leases.add(lease);
    this.#changed();
    return lease;
  }

  /** @param {(state: FeedState) => void} callback called at once, and on change; the answer ends it */
  onState(callback) {
    this.#stateCallbacks.add(callback);
    callback(this.state);
    return () => void this.#stateCallbacks.delete(callback);
  }

  /** @param {(state: SignalsState, changed: Signal[]) => void} callback called at once with all, and on change */
  onSignals(callback) {
    this.#signalCallbacks.add(callback);
    callback(this.signals, [...this.signals.signals.values()]);
    return () => void this.#signalCallbacks.delete(callback);
  }

  /** The one that is used already is tried again. @param {string | null} token */
  setToken(token) {
    if (token && token === this.#token) return this.retry();
    this.#token = token || null;
    this.#showSignals({ ...OFF, since: Date.now(), signals: new Map() }, []);
    this.#say();
  }

  /** Do not wait for the next attempt. */
  retry() {
    this.#port.postMessage({ type: "retry" });
  }

  /** @param {string} path below the server's root, with its query @param {AbortSignal} [signal] */
  get(path, signal) {
    return this.call("GET", path, { signal });
  }

  /**
   * One call of the REST API; numbers of the answer stay text. Throws ApiError.
   * @param {string} method @param {string} path
   * @param {{ token?: string | null, body?: unknown, key?: string, signal?: AbortSignal }} [options]
   */
  async call(method, path, { token, body, key, signal } = {}) {
    /** @type {Record<string, string>} */ const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (key) headers["Idempotency-Key"] = key;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const content = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    let response;
    try {
      response = await fetch(new URL(path, ROOT), { method, headers, body: content, signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, "komas does not answer");
    }
    if (!response.ok) throw await ApiError.of(response);
    const text = await response.text();
    return text ? parse(text) : null;
  }

  close() {
    this.#isClosed = true;
    this.ending.abort();
    clearInterval(this.ping);
    this.#port.postMessage({ type: "bye" });
  }

  /** A lease has changed: the worker hears of it once for all that change together. */
  #changed() {
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      this.#say();
    });
  }

  #say() {
    if (this.#isClosed) return;
    this.#told = new Set([...this.#leases].flatMap((lease) => [...lease.streams]));
    const visible = document.visibilityState === "visible";
    this.#port.postMessage({ type: "tab", streams: [...this.#told], visible, token: this.#token });
  }

  /** Ten times a second while frames are shown, four where much changes: without a question, one is drawn for nothing. */
  #frame() {
    if (this.#isClosed) return;
    const now = performance.now();
    if (this.#told.size > 0 && (!this.#isWaiting || now - this.#askedAt > UNANSWERED_MS)) {
      this.#askedAt = now;
      this.#isWaiting = true;
      this.#port.postMessage({ type: "pull" });
    }
    setTimeout(() => requestAnimationFrame(() => this.#frame()), this.#pullMs);
  }

  /** @param {any} message */
  #hear(message) {
    if (this.#isClosed) return;
    if (message.type === "again") this.#say();
    else if (message.type === "changes") this.#take(message);
    else if (message.type === "state") {
      this.state = { ...IDLE, ...message.state, shared: this.state.shared }; // a worker may be older than the page
      for (const callback of [...this.#stateCallbacks]) callback(this.state);
    } else if (message.type === "signals" && this.#token !== null) {
      const signals = message.isAll ? new Map() : this.signals.signals;
      for (const signal of message.changed) signals.set(signal.id, signal);
      this.#showSignals({ ...message.state, signals }, message.changed);
    }
  }

  /** @param {SignalsState} state @param {Signal[]} changed */
  #showSignals(state, changed) {
    this.signals = state;
    for (const callback of [...this.#signalCallbacks]) callback(state, changed);
  }

  /** @param {{ changes: [string, string, string][], lastEventAt: number | null }} message */
  #take({ changes, lastEventAt }) {
    this.#isWaiting = false;
    this.state.lastEventAt = lastEventAt;
    const read = changes.map(([stream, event, text]) => {
      const value = parse(text);
      if (event) return { stream, event, type: "", data: value, backfilled: false };
      return { stream, event, type: value.type, data: value.data, backfilled: value.backfilled === true };
    });
    this.#pullMs = new Set(changes.map(([stream]) => stream)).size > MANY ? PULL_MANY_MS : PULL_MS;
    for (const lease of [...this.#leases]) {
      const own = read.filter(({ stream }) => lease.streams.has(stream));
      if (own.length > 0) lease.take(own);
    }
  }
}

export const openFeed = () => new Feed();
