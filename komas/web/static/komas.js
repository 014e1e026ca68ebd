// komas for front ends: prices, candles, trades, order books and signals, over one connection of each kind.
// An ES module without dependencies, for browsers and Node 18 or newer; its types are in komas.d.ts.

/** @import * as Api from "./komas.js" */

const BACKOFF_MS = [1000, 30_000]; // first wait and longest; each is between a half and the whole of it
const SILENCE_MS = 20_000; // scripts cannot see the comments that keep a stream alive
const PROBE_MS = 3000;
const ADDRESS_CHARS = 12_000; // of streams in one address; the rest is added when the connection is open
const QUEUE = 1000; // events that wait for who iterates
const SIGNAL_SILENCE_MS = 75_000; // the server pings every 30 s
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const TOKEN_MS = 20_000; // so long may the callback take
const EXPIRING_MS = 60_000; // the server says "expiring" so long before the end
const RENEW_MS = 1000; // between two tries to renew, at least

/** What a close code means: [code, reason, word, comes back?]; the first that fits. docs/protocol.md has the table. */
const CLOSES = /** @type {[number, string, string, boolean][]} */ ([
  [1008, "Unauthorized", "c1008u", false],
  [1008, "Origin not allowed", "c1008o", false],
  [1008, "VIP subscription required", "c1008v", false],
  [1008, "Disconnected by an administrator", "c1008d", false],
  [1008, "Rate limit exceeded", "c1008r", true],
  [1008, "Invalid since_id", "c1008s", true],
  [1001, "", "c1001", true],
  [1006, "", "c1006", true],
  [1011, "", "c1011", true],
  [1012, "", "c1001", true],
  [1013, "", "c1013", true],
  [1000, "", "c1000", false],
]);

/** @param {number | null} code @param {string} reason */
const meaning = (code, reason) => CLOSES.find(([known, words]) => known === code && (!words || words === reason));

/** @param {number} attempt @param {number} least */
function backoff(attempt, least = BACKOFF_MS[0]) {
  return Math.min(BACKOFF_MS[1], least * 2 ** Math.min(attempt, 10)) * (0.5 + Math.random() / 2);
}

/** @param {string} text an envelope; its stream stands behind the data */
export function streamOf(text) {
  const start = text.lastIndexOf('"stream":"') + 10;
  return start < 10 ? "" : text.slice(start, text.indexOf('"', start));
}

/** An answer that is an error, in the server's words. */
export class KomasError extends Error {
  /** @param {number} status @param {string} message @param {{field: string, message: string}[]} errors @param {number | null} retryAfterS */
  constructor(status, message, errors = [], retryAfterS = null) {
    super(message);
    this.name = "KomasError";
    this.status = status; // 0: there was no answer
    this.errors = errors;
    this.retryAfterS = retryAfterS;
  }

  /** @param {Response} response */
  static async of(response) {
    const problem = await response.json().catch(() => ({}));
    const wait = Number(response.headers.get("Retry-After") ?? Number.NaN);
    const words = problem.detail || `the server answered ${response.status}`;
    return new KomasError(response.status, words, problem.errors, Number.isFinite(wait) ? wait : null);
  }
}

/** @param {{fetch?: typeof fetch}} options @param {URL} url @param {RequestInit} [init] */
async function ask(options, url, init) {
  let response;
  try {
    response = await (options.fetch ?? fetch)(url, init);
  } catch (error) {
    if (init?.signal?.aborted) throw error;
    throw new KomasError(0, "komas does not answer");
  }
  if (!response.ok) throw await KomasError.of(response);
  return response;
}

/** One event stream for many market streams. It comes back by itself and goes on where it was. */
export class MarketConnection {
  /** @type {Set<string>} */ #wanted = new Set();
  /** What the server sends; null until it has said so. @type {Set<string> | null} */ #open = null;
  /** @type {Set<string>} */ #had = new Set(); // what the last id is about
  /** @type {Set<string>} */ #refused = new Set();
  /** @type {EventSource | null} */ #source = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watch;
  /** @type {Api.MarketState} */ #state = { state: "idle", reason: null, retryAt: null, answered: true };
  #id = "";
  #lastId = "";
  #heardAt = 0;
  #attempt = 0;
  #isSyncing = false;
  #isSuspect = false; // one of the streams in the address was refused: ask for each by itself

  /** @param {URL} root @param {Api.KomasOptions} options @param {Api.MarketHandlers} handlers */
  constructor(root, options, handlers) {
    this.root = root;
    this.options = options;
    this.handlers = handlers;
  }

  /** The streams to be had from now on, all of them. @param {Iterable<string>} streams */
  want(streams) {
    this.#wanted = new Set(streams);
    for (const stream of this.#refused) if (!this.#wanted.has(stream)) this.#refused.delete(stream);
    if (this.#wanted.size === 0) this.#stop({ state: "idle", reason: null, retryAt: null, answered: true });
    else if (this.#state.state === "idle") this.#connect();
    else this.#sync();
  }

  /** Do not wait any longer: the network is back, or somebody asks. */
  retry() {
    if (this.#state.retryAt !== null) this.#connect();
  }

  close() {
    this.want([]);
  }

  /** @param {Api.MarketState} state */
  #become(state) {
    this.#state = state;
    this.handlers.onState?.(state);
  }

  /** @param {Api.MarketState} state */
  #stop(state) {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    this.#source?.close();
    this.#source = null;
    this.#had = this.#open ?? this.#had;
    this.#open = null;
    this.#become(state);
  }

  #address() {
    const url = new URL("api/ws/sse/stream", this.root);
    const { history = 0, limit = 20 } = this.options;
    let streams = this.#isSuspect ? "" : [...this.#wanted].filter((name) => !this.#refused.has(name)).join("/");
    if (streams.length > ADDRESS_CHARS) streams = streams.slice(0, streams.lastIndexOf("/", ADDRESS_CHARS));
    let query = `streams=${streams}&history=${history}&limit=${limit}`;
    // What was published meanwhile is for streams that were had: others begin with their state.
    if (this.#lastId && [...this.#had].some((name) => this.#wanted.has(name)))
      query += `&last_event_id=${encodeURIComponent(this.#lastId)}`;
    url.search = query;
    return url;
  }

  #connect() {
    this.#stop({ state: "connecting", reason: null, retryAt: null, answered: this.#state.answered });
    const url = this.#address();
    const Source = this.options.EventSource ?? globalThis.EventSource;
    if (!Source) throw new TypeError("there is no EventSource here: pass one, as that of the npm package eventsource");
    const source = new Source(url);
    this.#source = source;
    this.#heardAt = Date.now();
    /** @param {string} name @param {(event: MessageEvent<string>) => void} take */
    const on = (name, take) =>
      source.addEventListener(name, (/** @type {MessageEvent<string>} */ event) => {
        if (source !== this.#source) return;
        this.#heardAt = Date.now();
        if (event.lastEventId) this.#lastId = event.lastEventId;
        take(event);
      });
    on("message", ({ data }) => this.handlers.onEvent(streamOf(data), data));
    on("open", (event) => event.data && this.#opened(JSON.parse(event.data)));
    on("busy", ({ data }) => this.#lose(JSON.parse(data).reason, "busy"));
    for (const name of ["status", "gap", "lagged", "health"])
      on(name, ({ data }) => this.handlers.onNotice?.(name, data));
    source.onerror = () => source === this.#source && this.#cut(url);
    this.#watch = setInterval(() => this.#listen(), SILENCE_MS / 4);
  }

  /** @param {Parameters<NonNullable<Api.MarketHandlers["onOpen"]>>[0]} opened */
  #opened(opened) {
    this.#id = opened.connection;
    this.#open = new Set(opened.streams);
    this.#attempt = 0;
    this.#become({ state: "live", reason: null, retryAt: null, answered: true });
    this.handlers.onOpen?.(opened);
    this.#sync();
  }

  /** Nothing for long: is the server there? A connection that died in silence looks the same. */
  async #listen() {
    if (Date.now() - this.#heardAt < SILENCE_MS) return;
    const source = this.#source;
    this.#heardAt = Date.now();
    const error = await this.#probe(new URL("healthz", this.root));
    if (source !== this.#source) return;
    if (error && !error.status) this.#lose(error.message);
    else this.#connect();
  }

  /** An EventSource says nothing about why it ended. @param {URL} url */
  async #cut(url) {
    const source = this.#source;
    source?.close();
    const wasOpen = this.#open !== null;
    if (wasOpen) this.#lose("the connection was lost");
    const error = await this.#probe(wasOpen ? new URL("healthz", this.root) : url);
    if (wasOpen) {
      if (error && !error.status && this.#state.state === "lost") this.#become({ ...this.#state, answered: false });
    } else if (source === this.#source) {
      if (error?.status === 400 && !this.#isSuspect) {
        this.#isSuspect = true;
        this.#connect();
      } else this.#lose(error?.message ?? "the connection was lost", error?.status === 429 ? "busy" : "lost", error);
    }
  }

  /** @param {URL} url @returns {Promise<KomasError | null>} */
  async #probe(url) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), PROBE_MS);
    try {
      await ask(this.options, url, { signal: abort.signal });
      return null;
    } catch (error) {
      return error instanceof KomasError ? error : new KomasError(0, "komas does not answer");
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  /** @param {string} reason @param {"lost" | "busy"} state @param {KomasError | null} [error] */
  #lose(reason, state = "lost", error = null) {
    const wait = Math.max(backoff(this.#attempt++), (error?.retryAfterS ?? 0) * 1000);
    this.#stop({ state, reason, retryAt: Date.now() + wait, answered: error === null || error.status > 0 });
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  /** Tell the server what has changed, one call after another. */
  async #sync() {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    await new Promise((resolve) => setTimeout(resolve, 50)); // a table that scrolls changes many at once
    try {
      while (await this.#change());
    } finally {
      this.#isSyncing = false;
    }
  }

  /** @returns {Promise<boolean>} whether to look again */
  async #change() {
    const open = this.#open;
    if (open === null) return false;
    const subscribe = [...this.#wanted].filter((name) => !open.has(name) && !this.#refused.has(name));
    const unsubscribe = [...open].filter((name) => !this.#wanted.has(name));
    if (subscribe.length + unsubscribe.length === 0) return false;
    const error = await this.#post(subscribe, unsubscribe);
    if (error === null || this.#open !== open) return error === null;
    if (error.status === 404 || error.status === 400) this.#connect();
    else setTimeout(() => this.#sync(), (error.retryAfterS ?? 5) * 1000);
    return false;
  }

  /** Nothing has changed when one is refused: find it by halves. @param {string[]} subscribe @param {string[]} unsubscribe @returns {Promise<KomasError | null>} */
  async #post(subscribe, unsubscribe) {
    const url = new URL(`api/ws/sse/stream/${this.#id}`, this.root);
    try {
      const body = JSON.stringify({ subscribe, unsubscribe }); // as text: a page of another origin may send no other
      const response = await ask(this.options, url, { method: "POST", body });
      const { streams } = await response.json();
      this.#open?.clear();
      for (const stream of streams) this.#open?.add(stream);
      this.#isSuspect = false;
      this.#refuse(
        subscribe.filter((stream) => !streams.includes(stream)),
        "the server has another name for it",
      );
      return null;
    } catch (cause) {
      const error = cause instanceof KomasError ? cause : new KomasError(0, "komas does not answer");
      if (error.status !== 400) return error;
      if (subscribe.length === 0) return error;
      if (subscribe.length + unsubscribe.length > 1) {
        const half = Math.ceil(subscribe.length / 2);
        return (
          (await this.#post(subscribe.slice(0, half), unsubscribe)) ??
          (half < subscribe.length ? await this.#post(subscribe.slice(half), []) : null)
        );
      }
      this.#refuse(subscribe, error.message);
      return null;
    }
  }

  /** @param {string[]} streams @param {string} reason */
  #refuse(streams, reason) {
    for (const stream of streams) {
      this.#refused.add(stream);
      this.handlers.onNotice?.("refused", JSON.stringify({ stream, reason }));
    }
  }
}

/** The socket of signals: it comes back with its position, and renews its token before it ends. */
export class SignalConnection {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #refresh;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #watch;
  /** @type {string | null} */ #position = null;
  #token = "";
  #end = Number.POSITIVE_INFINITY; // of the token, by our clock
  #attempt = 0;
  #heardAt = 0;
  #turn = 0; // what was awaited for an earlier one is of no use
  #isClosed = false;
  #isAsking = false;
  #isRefused = false; // a token was, since the last that was taken: one more is tried

  /** @param {URL} root @param {Api.KomasOptions} options @param {Api.SignalHandlers} handlers @param {Api.SignalFilter} [filter] */
  constructor(root, options, handlers, filter = {}) {
    this.root = root;
    this.options = options;
    this.handlers = handlers;
    this.filter = filter;
    this.#connect();
  }

  close() {
    this.#isClosed = true;
    this.#drop();
    this.#say("closed", 1000, "");
  }

  /** Do not wait any longer. */
  retry() {
    if (this.#isClosed || this.#socket) return;
    this.#isRefused = false;
    this.#connect();
  }

  #drop() {
    this.#turn += 1;
    this.#isAsking = false;
    for (const timer of [this.#timer, this.#refresh]) clearTimeout(timer);
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** @param {Api.SignalState["state"]} state @param {number | null} code @param {string} reason @param {number | null} retryAt */
  #say(state, code = null, reason = "", retryAt = null) {
    const word = code === null ? null : (meaning(code, reason)?.[2] ?? "c100x");
    this.handlers.onState?.({ state, code, reason, retryAt, word });
  }

  /** @param {string | null} [token] one that was just asked for */
  async #connect(token) {
    this.#drop();
    this.#say("connecting");
    const turn = this.#turn;
    const given = token ?? (await this.#ask());
    if (turn !== this.#turn) return;
    if (given === undefined) return this.#lose(null, "the callback gave no token");
    if (!given) return this.#say("closed", 1008, "Unauthorized");
    this.#token = given;
    const url = new URL("ws/signals", this.root);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("positions", "1");
    const { signalTypes = [], coinNames = [] } = this.filter;
    if (signalTypes.length) url.searchParams.set("signal_type", signalTypes.join());
    if (coinNames.length) url.searchParams.set("coin_name", coinNames.join());
    if (this.#position !== null) url.searchParams.set("since", this.#position);
    const Socket = this.options.WebSocket ?? globalThis.WebSocket;
    if (!Socket) throw new TypeError("there is no WebSocket here: pass one, as that of the npm package ws");
    let socket;
    try {
      socket = new Socket(url.href, ["komas.signals", `bearer.${given}`]);
    } catch {
      return this.#closed(1008, "Unauthorized"); // no token has such characters
    }
    this.#socket = socket;
    this.#heardAt = Date.now();
    socket.onmessage = (/** @type {MessageEvent} */ { data }) => socket === this.#socket && this.#take(data);
    socket.onerror = () => {}; // its close follows; in Node, one that nobody hears would end the process
    socket.onclose = (/** @type {CloseEvent} */ { code, reason }) =>
      socket === this.#socket && this.#closed(code, reason);
    this.#watch = setInterval(() => {
      if (Date.now() - this.#heardAt > SIGNAL_SILENCE_MS) this.#closed(1006, "");
    }, 5000);
  }

  /** The token; null where there is none, undefined where the callback failed: it may know later. */
  async #ask() {
    const { token } = this.options;
    if (typeof token !== "function") return token ?? null;
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new KomasError(0, "the callback took too long")), TOKEN_MS);
    });
    try {
      return (await Promise.race([token(), late])) || null;
    } catch (error) {
      this.handlers.onError?.(error);
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {string} text */
  #take(text) {
    this.#heardAt = Date.now();
    const message = (this.options.parse ?? JSON.parse)(text);
    if (message.position !== undefined) this.#position = String(message.position);
    if (message.type === "ping") return this.#socket?.send('{"type":"pong"}');
    if (message.type === "connected") {
      this.#attempt = 0;
      this.#isRefused = false;
      this.#say("live");
    }
    if (message.type === "expiring") {
      this.#end = Date.now() + EXPIRING_MS; // whatever our clock says
      this.#renew();
    } else if (message.expires_at) {
      this.#end = Number(message.expires_at) * 1000;
      this.#renewLater();
    }
    if (message.type === "error") {
      this.handlers.onError?.(new KomasError(0, message.message));
      if (message.code === "refresh_refused") this.#renewLater();
    }
    return this.handlers.onMessage(message);
  }

  /** Two minutes before the end, or at half of what is left: then there is time for another try, and another. */
  #renewLater() {
    clearTimeout(this.#refresh);
    const left = this.#end - Date.now();
    if (typeof this.options.token !== "function" || left <= 0) return; // our clock is wrong, or it is over
    const wait = Math.max(RENEW_MS, left / 2, left - 2 * EXPIRING_MS);
    this.#refresh = setTimeout(() => this.#renew(), Math.min(LONGEST_TIMER_MS, wait));
  }

  async #renew() {
    if (this.#isAsking || typeof this.options.token !== "function") return;
    this.#isAsking = true;
    const turn = this.#turn;
    const token = await this.#ask();
    if (turn !== this.#turn) return;
    this.#isAsking = false;
    if (!token || token === this.#token) return this.#renewLater();
    this.#token = token;
    this.#socket?.send(JSON.stringify({ type: "refresh", token }));
  }

  /** @param {number} code @param {string} reason */
  async #closed(code, reason) {
    this.#drop();
    if (reason === "Invalid since_id") this.#position = null;
    const row = meaning(code, reason);
    if (row?.[3]) return this.#lose(code, reason, row[2] === "c1008r" ? 10_000 : undefined);
    if (row?.[2] === "c1008u" && typeof this.options.token === "function" && !this.#isRefused) {
      this.#isRefused = true;
      const turn = this.#turn;
      const token = await this.#ask(); // the other may have ended
      if (turn !== this.#turn) return;
      if (token === undefined || (token && token !== this.#token)) return this.#lose(code, reason, undefined, token);
    }
    this.#say("closed", code, reason);
  }

  /** Come back after a while. @param {number | null} code @param {string} reason @param {number} [least] @param {string} [token] */
  #lose(code, reason, least, token) {
    const wait = backoff(this.#attempt++, least);
    this.#timer = setTimeout(() => this.#connect(token), wait);
    this.#say("lost", code, reason, Date.now() + wait);
  }
}

/** What somebody reads: events to a callback, or to `for await`. */
class Subscription {
  /** @type {Map<unknown, unknown>} */ #queue = new Map(); // by what the newest replaces; trades by their number
  /** @type {(() => void) | null} */ #wake = null;
  #isOpen = true;
  #count = 0;
  dropped = 0;

  /** @param {string[]} streams @param {((data: any, about: any) => void) | undefined} callback @param {() => void} end */
  constructor(streams, callback, end) {
    this.streams = streams;
    this.callback = callback;
    this.end = end;
  }

  /** @param {any} data @param {any} about */
  put(data, about) {
    if (this.callback) return this.callback(data, about);
    const isKept = about.type === "trade" || about.type === "agg_trade" || data.is_closed || !about.stream;
    this.#queue.set(isKept ? this.#count++ : about.stream, data);
    if (this.#queue.size > QUEUE) {
      this.#queue.delete(this.#queue.keys().next().value);
      this.dropped += 1;
    }
    this.#wake?.();
  }

  close() {
    this.#isOpen = false;
    this.end();
    this.#wake?.();
  }

  async *[Symbol.asyncIterator]() {
    try {
      while (this.#isOpen) {
        for (const [key, data] of this.#queue) {
          this.#queue.delete(key);
          yield data;
        }
        if (this.#isOpen && this.#queue.size === 0)
          await new Promise((resolve) => {
            this.#wake = () => resolve(null);
          });
      }
    } finally {
      this.close();
    }
  }
}

/** Everything that komas sends, over one event stream and one socket. */
export class Komas {
  /** @type {MarketConnection | null} */ #market = null;
  /** @type {Set<Subscription>} */ #readers = new Set();
  /** @type {Map<string, {readers: Set<Subscription>, connection: SignalConnection}>} */ #signals = new Map(); // by filter
  /** @type {Map<string, string>} */ #latest = new Map();
  /** @type {Map<string, Set<(value: any) => void>>} */ #callbacks = new Map();

  /** @param {string | URL} url @param {Api.KomasOptions} options */
  constructor(url, options = {}) {
    this.root = new URL(url, globalThis.location?.href);
    if (!this.root.pathname.endsWith("/")) this.root.pathname += "/";
    this.options = options;
    this.parse = options.parse ?? JSON.parse;
  }

  /** @param {string} name @param {(value: any) => void} callback */
  on(name, callback) {
    const callbacks = this.#callbacks.get(name) ?? new Set();
    this.#callbacks.set(name, callbacks.add(callback));
    return () => void callbacks.delete(callback);
  }

  /** @param {string[]} symbols @param {any} [callback] @param {string} [kind] */
  prices(symbols, callback, kind = "ticker") {
    return this.subscribe(
      symbols.map((symbol) => `${symbol.toLowerCase()}@${kind}`),
      callback,
    );
  }

  /** @param {string} symbol @param {string} interval @param {any} [callback] */
  klines(symbol, interval, callback) {
    return this.subscribe([`${symbol.toLowerCase()}@kline_${interval}`], callback);
  }

  /** @param {string} symbol @param {any} [callback] */
  trades(symbol, callback) {
    return this.subscribe([`${symbol.toLowerCase()}@trade`], callback);
  }

  /** @param {string} symbol @param {any} [callback] */
  depth(symbol, callback) {
    return this.subscribe([`${symbol.toLowerCase()}@depth@100ms`], callback);
  }

  /** @param {string[]} streams the exchange's names @param {any} [callback] */
  subscribe(streams, callback) {
    const reader = new Subscription(streams, callback, () => this.#readers.delete(reader) && this.#want());
    this.#readers.add(reader);
    const known = streams.map((stream) => this.#latest.get(stream)).filter((text) => text !== undefined);
    queueMicrotask(() => known.forEach((text) => void this.#deliver(reader, text)));
    this.#want();
    return reader;
  }

  /** @param {any} [callback] @param {Api.SignalFilter} [filter] */
  signals(callback, filter = {}) {
    const key = JSON.stringify([filter.signalTypes, filter.coinNames].map((names) => [...(names ?? [])].sort()));
    const shared = this.#signals.get(key) ?? this.#openSignals(key, filter);
    const reader = new Subscription([], callback, () => {
      if (shared.readers.delete(reader) && shared.readers.size === 0) {
        this.#signals.delete(key);
        shared.connection.close();
      }
    });
    shared.readers.add(reader);
    return reader;
  }

  /** @param {string} key @param {Api.SignalFilter} filter */
  #openSignals(key, filter) {
    const readers = /** @type {Set<Subscription>} */ (new Set());
    const handlers = {
      onMessage: (/** @type {any} */ message) => {
        if (message.type === "new_signal" || message.type === "signal_update")
          for (const each of [...readers]) each.put(message, {});
      },
      onState: (/** @type {Api.SignalState} */ state) => this.#tell("signals", state),
      onError: (/** @type {unknown} */ error) => this.#tell("error", error),
    };
    const shared = { readers, connection: new SignalConnection(this.root, this.options, handlers, filter) };
    this.#signals.set(key, shared);
    return shared;
  }

  /** @param {string} path below the server's root, with its query */
  async get(path) {
    return this.parse(await (await ask(this.options, new URL(path, this.root))).text());
  }

  close() {
    const ofSignals = [...this.#signals.values()].flatMap(({ readers }) => [...readers]);
    for (const reader of [...this.#readers, ...ofSignals]) reader.close();
  }

  #want() {
    const streams = new Set([...this.#readers].flatMap((reader) => reader.streams));
    for (const stream of this.#latest.keys()) if (!streams.has(stream)) this.#latest.delete(stream);
    this.#market ??= new MarketConnection(this.root, this.options, {
      onEvent: (stream, text) => {
        if (!stream.includes("rade")) this.#latest.set(stream, text);
        for (const reader of [...this.#readers]) if (reader.streams.includes(stream)) this.#deliver(reader, text);
      },
      onNotice: (name, text) => this.#tell(name, this.parse(text)),
      onState: (state) => this.#tell("state", state),
    });
    this.#market.want(streams);
  }

  /** @param {Subscription} reader @param {string} text */
  #deliver(reader, text) {
    const { data, ...about } = this.parse(text);
    reader.put(data, about);
  }

  /** @param {string} name @param {unknown} value */
  #tell(name, value) {
    for (const callback of [...(this.#callbacks.get(name) ?? [])]) callback(value);
  }
}
