// What the page remembers: settings for good, tokens until the tab is closed. Both work where storage is forbidden.

const PREFIX = "komas.";

/** @param {"localStorage" | "sessionStorage"} name @returns {Storage | null} */
function storage(name) {
  try {
    return globalThis[name] ?? null;
  } catch {
    return null; // the user has forbidden it
  }
}

/** @param {Storage | null} place @param {string} key @param {string | null} text */
function write(place, key, text) {
  try {
    if (text === null) place?.removeItem(key);
    else place?.setItem(key, text);
  } catch {
    // It is full, or private: this tab still has it.
  }
}

class Settings {
  #place = storage("localStorage");
  /** @type {Map<string, unknown>} */ #values = new Map();
  /** @type {Map<string, Set<(value: any) => void>>} */ #callbacks = new Map();

  constructor() {
    globalThis.addEventListener?.("storage", ({ key, storageArea }) => {
      if (storageArea !== this.#place || !key?.startsWith(PREFIX)) return;
      const name = key.slice(PREFIX.length);
      this.#values.delete(name);
      this.#tell(name);
    });
  }

  /** @param {string} key @param {any} [otherwise] what it is while nobody has set it */
  get(key, otherwise) {
    if (!this.#values.has(key)) {
      try {
        this.#values.set(key, JSON.parse(this.#place?.getItem(PREFIX + key) ?? "null") ?? undefined);
      } catch {
        this.#values.set(key, undefined); // written by something else
      }
    }
    return this.#values.get(key) ?? otherwise;
  }

  /** @param {string} key @param {unknown} value */
  set(key, value) {
    this.#values.set(key, value);
    write(this.#place, PREFIX + key, value == null ? null : JSON.stringify(value));
    this.#tell(key);
  }

  /** Also what other tabs set. @param {string} key @param {(value: any) => void} callback */
  onChange(key, callback) {
    const callbacks = this.#callbacks.get(key) ?? new Set();
    this.#callbacks.set(key, callbacks.add(callback));
    return () => void callbacks.delete(callback);
  }

  /** @param {string} key */
  #tell(key) {
    for (const callback of [...(this.#callbacks.get(key) ?? [])]) callback(this.get(key));
  }
}

class Tokens {
  #place = storage("sessionStorage");
  /** @type {Map<string, string | null>} */ #values = new Map();

  /** @param {"signals" | "admin"} name */
  get(name) {
    if (!this.#values.has(name)) this.#values.set(name, this.#place?.getItem(`${PREFIX}token.${name}`) ?? null);
    return this.#values.get(name) ?? null;
  }

  /** @param {"signals" | "admin"} name @param {string | null} token */
  set(name, token) {
    this.#values.set(name, token || null);
    write(this.#place, `${PREFIX}token.${name}`, token || null);
  }
}

export const settings = new Settings();
export const tokens = new Tokens();
