// What the worker keeps of one stream, as raw text: the newest of what the newest replaces, candles by their open time,
// trades and notices in their order. Each change has a version, so that a tab gets what is newer than what it has.

const TRADES = 500;
const CANDLES = 5000;
const NOTICES = 50;

/** @typedef {[stream: string, event: string, text: string]} Change */
/** @typedef {{ kept: Kept, version: number, trade: number }} Seen what a tab has */

export class Kept {
  /** In the order of their versions. @type {Map<string | number, { version: number, event: string, text: string }>} */
  #items = new Map();
  /** Keys of trades, of candles and of notices, oldest first. */
  #kinds = { trade: /** @type {Set<number>} */ (new Set()), kline: new Set(), notice: new Set() };
  #trades = 0;
  version = 0;

  /** @param {string} stream */
  constructor(stream) {
    this.stream = stream;
  }

  /** @param {string} text an envelope @param {number} version */
  put(text, version) {
    if (this.stream.endsWith("rade")) this.#add("trade", ++this.#trades, "", text, version, TRADES);
    else if (this.stream.includes("@kline_")) this.#putCandle(text, version);
    else this.#set("latest", "", text, version);
  }

  /** @param {string} text @param {number} version */
  #putCandle(text, version) {
    const key = `at ${/"timestamp":(\d+)/.exec(text)?.[1]}`;
    const before = this.#items.get(key)?.text;
    if (before?.includes('"is_closed":true') && text.includes('"is_closed":false')) return;
    this.#add("kline", key, "", text, version, CANDLES);
  }

  /** @param {string} event @param {string} text @param {number} version */
  notice(event, text, version) {
    if (event === "health" || event === "refused") this.#set(event, event, text, version);
    else this.#add("notice", `notice ${version}`, event, text, version, NOTICES);
  }

  /** @param {"trade" | "kline" | "notice"} kind @param {any} key @param {string} event @param {string} text @param {number} version @param {number} most */
  #add(kind, key, event, text, version, most) {
    const keys = this.#kinds[kind];
    keys.add(key);
    this.#set(key, event, text, version);
    for (const oldest of keys) {
      if (keys.size <= most) break;
      keys.delete(oldest);
      this.#items.delete(oldest);
    }
  }

  /** @param {string | number} key @param {string} event @param {string} text @param {number} version */
  #set(key, event, text, version) {
    this.#items.delete(key); // so that it goes to the end
    this.#items.set(key, { version, event, text });
    this.version = version;
  }

  /** What is new to a tab, which has it then. @param {Seen | undefined} seen @param {Change[]} changes @returns {Seen} */
  since(seen, changes) {
    const now = { kept: this, version: this.version, trade: this.#trades };
    if (seen && seen.kept !== this) changes.push([this.stream, "reset", "null"]);
    const before = seen?.kept === this ? seen : { version: 0, trade: 0 };
    if (before.version === this.version) return now;
    const [oldest] = this.#kinds.trade;
    if (before.trade && oldest > before.trade + 1)
      changes.push([this.stream, "lagged", `{"dropped":${oldest - before.trade - 1},"here":true}`]);
    for (const { version, event, text } of this.#items.values())
      if (version > before.version) changes.push([this.stream, event, text]);
    return now;
  }
}
