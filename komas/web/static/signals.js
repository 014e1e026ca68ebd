// The signals of one token, in the worker: the newest 1000, as they stand.

import { parse } from "./digits.js";
import { SignalConnection } from "./komas.js";

const KEPT = 1000;
const EVENTS = 20;

/** @typedef {{ id: string, type: string, data: Record<string, unknown>, at: number, changedAt: number | null, before: Record<string, unknown> | null }} Signal */
/** @typedef {(list: SignalList, changed: Signal[], isAll: boolean) => void} Tell */

export class SignalList {
  /** @type {Map<string, Signal>} */ signals = new Map();
  /** What came while the list was being fetched. @type {any[] | null} */ #meanwhile = null;
  #isLoaded = false;
  #wasCut = false;
  state = {
    state: "connecting",
    code: /** @type {number | null} */ (null),
    reason: "",
    word: /** @type {string | null} */ (null),
    retryAt: /** @type {number | null} */ (null),
    since: Date.now(),
    userId: /** @type {string | null} */ (null),
    expiresAt: /** @type {number | null} */ (null),
    expiring: false,
    recovered: /** @type {"back" | "backGap" | null} */ (null),
    events: /** @type {{ at: number, word: string, code: number | null, reason: string }[]} */ ([]),
  };

  /** @param {URL} root @param {string} token @param {Tell} tell */
  constructor(root, token, tell) {
    this.root = root;
    this.token = token;
    this.tell = tell;
    this.connection = new SignalConnection(
      root,
      { token, parse },
      { onMessage: (message) => this.#take(message), onState: (state) => this.#become(state) },
    );
  }

  close() {
    this.tell = () => undefined;
    this.connection.close();
  }

  /** @param {import("./komas.js").SignalState} state */
  #become(state) {
    if (state.word === "c1008s") this.#isLoaded = false;
    if (state.state === "lost") this.#wasCut = true;
    if (state.word) this.#happened(state.word, state.code, state.reason);
    const since = state.state === this.state.state ? this.state.since : Date.now();
    this.state = { ...this.state, ...state, since };
    this.tell(this, [], false);
  }

  /** @param {string} word @param {number | null} code @param {string} reason */
  #happened(word, code = null, reason = "") {
    const event = { at: Date.now(), word, code, reason };
    this.state = { ...this.state, events: [...this.state.events, event].slice(-EVENTS) };
  }

  /** @param {any} message */
  #take(message) {
    if (message.expires_at)
      this.state = {
        ...this.state,
        expiresAt: Number(message.expires_at) * 1000,
        expiring: message.type === "expiring",
      };
    if (message.type === "connected") this.#connected(message);
    else if (message.type === "expiring" || message.type === "refreshed") this.tell(this, [], false);
    else if (message.type === "new_signal" || message.type === "signal_update") {
      this.#meanwhile?.push(message);
      const changed = this.#apply(message);
      if (changed) this.tell(this, [changed], false);
    }
  }

  /** @param {{ user_id: string, position: string }} message */
  #connected(message) {
    const recovered = !this.#wasCut ? null : this.#isLoaded ? "back" : "backGap";
    this.state = { ...this.state, userId: String(message.user_id), recovered };
    if (recovered) this.#happened(recovered);
    this.#wasCut = false;
    if (this.#isLoaded) this.tell(this, [], false);
    else this.#load(Number(message.position));
  }

  /** @param {any} message @returns {Signal | null} */
  #apply(message) {
    const now = Date.now();
    if (message.type === "new_signal") return this.#add(message.signal_type, message.data);
    const known = this.signals.get(String(message.signal_id));
    if (!known) return null;
    const before = Object.fromEntries(Object.keys(message.data).map((field) => [field, known.data[field]]));
    const changed = { ...known, data: { ...known.data, ...message.data }, changedAt: now, before };
    this.signals.set(known.id, changed);
    return changed;
  }

  /** @param {string} type @param {Record<string, unknown>} data @returns {Signal} */
  #add(type, data) {
    const at = Date.parse(String(data.created_at)) || Date.now();
    const signal = { id: String(data.id), type, data, at, changedAt: null, before: null };
    this.signals.set(signal.id, signal);
    if (this.signals.size > KEPT) this.signals.delete([...this.signals.keys()][0]);
    return signal;
  }

  /** The newest signals. Positions count updates, too: a signal's id is never beyond them. @param {number} position */
  async #load(position) {
    this.#meanwhile = [];
    try {
      let back = KEPT;
      let page = await this.#page(Math.max(0, position - back));
      while (page.signals.length === 0 && back < position) {
        back *= 4;
        page = await this.#page(Math.max(0, position - back));
      }
      this.signals.clear();
      while (page.signals.length > 0) {
        for (const { signal_type, data, ...rest } of page.signals) this.#add(signal_type, { ...rest, ...data });
        if (page.signals.length < KEPT) break;
        page = await this.#page(page.next_since_id);
      }
      for (const message of this.#meanwhile) this.#apply(message);
      this.#isLoaded = true;
    } catch {
      this.#isLoaded = false; // the socket goes on; the next connection asks again
    }
    this.#meanwhile = null;
    this.tell(this, [...this.signals.values()], true);
  }

  /** @param {number | string} sinceId @returns {Promise<any>} */
  async #page(sinceId) {
    const url = new URL(`api/signals?since_id=${sinceId}&limit=${KEPT}`, this.root);
    const response = await fetch(url, { headers: { Authorization: `Bearer ${this.token}` } });
    if (!response.ok) throw new Error(String(response.status));
    return parse(await response.text());
  }
}
