// What the page of the API makes of the descriptions: examples, fields, requests, command lines, events of a stream.
// No document and no network in here.

/** @typedef {any} Schema of JSON, or a call of OpenAPI */
/** @typedef {{ name: string, in: string, required?: boolean, description?: string, schema: Schema }} Parameter */
/** @typedef {{ path: string, method: string, call: Schema }} Call */
/** @typedef {{ path: string, headers: Record<string, string>, body: string | null }} Ready */

const DEEPEST = 4;
const WHOLE = 4; // letters of a Russian word that is looked for as it is; of a longer one the end may be another
const WORDS = 12; // of a list of values

/** Follow references. @param {any} api the document they are in @param {Schema} schema @returns {Schema} */
export function resolve(api, schema) {
  let found = schema;
  while (found?.$ref) {
    /** @type {string[]} */ const keys = found.$ref.slice(2).split("/");
    found = keys.reduce((place, key) => place?.[key], api);
  }
  return found ?? {};
}

/** All that an `allOf` says, as one. @param {any} api @param {Schema} schema @returns {Schema} */
function whole(api, schema) {
  const found = resolve(api, schema);
  if (!found.allOf) return found;
  /** @type {Schema} */ const { allOf, ...merged } = found;
  for (const part of allOf.map((/** @type {Schema} */ each) => whole(api, each))) {
    const properties = { ...part.properties, ...merged.properties };
    const examples = part.properties ? undefined : (merged.examples ?? part.examples);
    Object.assign(merged, { ...part, ...merged, properties, examples });
  }
  return merged;
}

/** A value that a schema allows. @param {any} api @param {Schema} schema @param {number} [depth] @returns {any} */
export function exampleOf(api, schema, depth = 0) {
  const found = whole(api, schema);
  if (found.examples?.length) return found.examples[0];
  for (const key of ["const", "default"]) if (found[key] !== undefined) return found[key];
  if (found.enum) return found.enum[0];
  const either = found.anyOf ?? found.oneOf;
  if (either) return exampleOf(api, either.find((/** @type {Schema} */ each) => each.type !== "null") ?? {}, depth);
  const type = Array.isArray(found.type) ? found.type[0] : found.type;
  if (depth > DEEPEST) return null;
  if (found.properties)
    return Object.fromEntries(
      Object.entries(found.properties).map(([key, value]) => [key, exampleOf(api, value, depth + 1)]),
    );
  if (type === "object" && typeof found.additionalProperties === "object")
    return { BTCUSDT: exampleOf(api, found.additionalProperties, depth + 1) };
  if (type === "array") return found.items ? [exampleOf(api, found.items, depth + 1)] : [];
  return { object: {}, integer: 1, number: 1.5, boolean: true, string: "text" }[/** @type {string} */ (type)] ?? null;
}

/** The type of a value in a few words. @param {any} api @param {Schema} schema @returns {string} */
export function typeOf(api, schema) {
  const found = whole(api, schema);
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.enum) {
    const shown = found.enum.slice(0, WORDS).map((/** @type {any} */ each) => (each === null ? "null" : String(each)));
    return shown.join(" | ") + (found.enum.length > WORDS ? " | …" : "");
  }
  const either = found.anyOf ?? found.oneOf;
  if (either) return [...new Set(either.map((/** @type {Schema} */ each) => typeOf(api, each)))].join(" | ");
  if (found.type === "array") return `${typeOf(api, found.items ?? {})}[]`;
  return [found.type ?? "any"].flat().join(" | ");
}

/**
 * Every field of an answer or a message, and of what is in it.
 * @param {any} api @param {Schema} schema @param {string} [prefix] @param {number} [depth]
 * @returns {{ name: string, type: string, meaning: string, isOptional: boolean }[]}
 */
export function fieldsOf(api, schema, prefix = "", depth = 0) {
  const found = whole(api, schema);
  const either = (found.anyOf ?? found.oneOf)?.find((/** @type {Schema} */ each) => resolve(api, each).properties);
  if (either) return fieldsOf(api, either, prefix, depth);
  if (found.type === "array" && found.items) return fieldsOf(api, found.items, `${prefix}[]`, depth);
  if (depth > DEEPEST) return [];
  if (typeof found.additionalProperties === "object" && !found.properties)
    return fieldsOf(api, found.additionalProperties, `${prefix}.*`, depth + 1);
  return Object.entries(found.properties ?? {}).flatMap(([key, value]) => {
    const name = prefix ? `${prefix}.${key}` : key;
    const meaning = whole(api, value).description ?? "";
    const isOptional = !(found.required ?? []).includes(key);
    return [{ name, type: typeOf(api, value), meaning, isOptional }, ...fieldsOf(api, value, name, depth + 1)];
  });
}

/** Whether a text has every word of a query, in any order; Russian ones in any case. @param {string} text @param {string} query */
export function matches(text, query) {
  const low = text.toLowerCase().replaceAll("ё", "е");
  const words = query.toLowerCase().replaceAll("ё", "е").split(/\s+/).filter(Boolean);
  return words.every((word) => low.includes(/^[а-я]+$/.test(word) ? stem(word) : word));
}

/** @param {string} word */
const stem = (word) => (word.length <= WHOLE ? word : word.slice(0, Math.max(WHOLE, word.length - 2)));

/** Those that are asked for in a form: a token is none, for it would be in an address. @param {Schema} call @returns {Parameter[]} */
export function parametersOf(call) {
  return (call.parameters ?? []).filter((/** @type {Parameter} */ each) => each.name !== "token");
}

/** Which token a call takes: of an administrator, of a user, or none. @param {Schema} call @returns {"admin" | "signals" | null} */
export function tokenOf(call) {
  for (const each of call.security ?? []) {
    if (each.admin) return "admin";
    if (each.token) return "signals";
  }
  return null;
}

/** What is sent for these values; what is empty is left out. @param {Call} one @param {Record<string, string>} values @param {string} [body] @returns {Ready} */
export function requestOf({ path, call }, values, body = "") {
  let filled = path;
  const query = [];
  /** @type {Record<string, string>} */ const headers = {};
  for (const { name, in: place } of parametersOf(call)) {
    const value = (values[name] ?? "").trim();
    if (place === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (place === "header") headers[name] = value;
    else
      query.push(
        `${encodeURIComponent(name)}=${encodeURIComponent(value).replaceAll("%2C", ",").replaceAll("%2F", "/").replaceAll("%40", "@")}`,
      );
  }
  if (call.requestBody) headers["Content-Type"] = "application/json";
  const address = filled.replace(/^\//, "") + (query.length ? `?${query.join("&")}` : "");
  return { path: address, headers, body: call.requestBody ? body : null };
}

/** @param {string} text for a shell */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The same as a line for a shell; a token stays in its variable. @param {Call} one @param {Ready} ready @param {URL} root */
export function curlOf({ method, path, call }, ready, root) {
  const url = new URL(ready.path, root);
  const token = tokenOf(call);
  const bearer = token && `-H "Authorization: Bearer $${token === "admin" ? "ADMIN_TOKEN" : "KOMAS_TOKEN"}"`;
  if (isSocket(path)) {
    url.protocol = url.protocol.replace("http", "ws");
    const own = hasSignals(path) ? '-H "Authorization: Bearer $KOMAS_TOKEN" ' : "";
    return `websocat ${own}${quoted(url.href)}`;
  }
  const parts = ["curl"];
  if (isStream(call)) parts.push("-N");
  if (method !== "get") parts.push(`-X ${method.toUpperCase()}`);
  if (bearer) parts.push(bearer);
  for (const [name, value] of Object.entries(ready.headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (ready.body !== null) parts.push(`-d ${quoted(ready.body.replace(/\s*\n\s*/g, " "))}`);
  parts.push(quoted(url.href));
  return parts.join(" ");
}

/** Whether a call's answer is an event stream. @param {Schema} call */
export const isStream = (call) => Boolean(call.responses["200"]?.content?.["text/event-stream"]);

/** Whether a path is a WebSocket's. @param {string} path */
export const isSocket = (path) => /^\/ws\//.test(path);

/** Whether it is the socket of signals, which takes the token of a user. @param {string} path */
export const hasSignals = (path) => /^\/ws\/signals$/.test(path);

/** Server-Sent Events (WHATWG HTML, 9.2.6) out of text that comes in pieces. */
export class EventReader {
  #rest = "";
  #name = "";
  #id = "";
  /** @type {string[]} */ #data = [];

  /** @param {string} text @returns {{ name: string, id: string, data: string }[]} */
  take(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length)
          events.push({ name: this.#name || "message", id: this.#id, data: this.#data.join("\n") });
        [this.#name, this.#data] = ["", []];
        continue;
      }
      const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (field === "data") this.#data.push(value ?? "");
      else if (field === "event") this.#name = value ?? "";
      else if (field === "id") this.#id = value ?? "";
    }
    return events;
  }
}
