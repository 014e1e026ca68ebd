// What the page says, in the reader's language: t("tryingIn", { s: "3 s" }), plurals by {n}, ages and times of day.
import { age as ageOf } from "./digits.js";
import { settings } from "./store.js";

const LANGUAGES = ["en", "ru"];
const ATTRIBUTES = [
  ["tLabel", "aria-label"],
  ["tTitle", "title"],
  ["tHint", "placeholder"],
];
const DRESSED = "[data-t], [data-t-label], [data-t-title], [data-t-hint]";

let words = {};
let plurals;
let numbers;
const listeners = new Set();

export let language = "en";

/** The language that was chosen, or the browser's first that there is. */
export function preferred() {
  const chosen = settings.get("language");
  if (LANGUAGES.includes(chosen)) return chosen;
  return navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

/** Load a language, and say everything in it that stands on the page already. */
export async function speak(wanted) {
  const file = await (wanted === "ru" ? import("./words/ru.js") : import("./words/en.js"));
  words = file.default;
  language = wanted;
  plurals = new Intl.PluralRules(language);
  numbers = new Intl.NumberFormat(language);
  document.documentElement.lang = language;
  dress(document);
  for (const listener of listeners) listener();
}

/** Call back whenever the language changes; returns what ends it. */
export function onWords(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The words of an id, its placeholders filled. Numbers are written as the language writes them. */
export function t(id, values = {}) {
  let text = words[id] ?? id;
  if (typeof text === "object") text = (values.n === 0 && text.zero) || (text[plurals.select(values.n)] ?? text.other);
  return text.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? count(values[name]) : (values[name] ?? ""),
  );
}

/** A count in prose. */
export function count(number) {
  return numbers.format(number);
}

/** Say what `data-t`, `data-t-label`, `data-t-title` and `data-t-hint` name, below a node. */
export function dress(root) {
  for (const node of root.querySelectorAll(DRESSED)) {
    if (node.dataset.t) node.textContent = t(node.dataset.t);
    for (const [key, attribute] of ATTRIBUTES)
      if (node.dataset[key]) node.setAttribute(attribute, t(node.dataset[key]));
  }
}

/** A length of time in words: "0.2 s", "3 min", "2 h 14 min". */
export function age(ms) {
  const text = ageOf(Math.max(0, ms), { s: t("second"), min: t("minute"), h: t("hour"), d: t("day") });
  return language === "ru" ? text.replace(".", ",") : text;
}

/** How long ago a moment was; below a second it is now. */
export function ago(ms, now = Date.now()) {
  return now - ms < 1_000 ? t("now") : t("ago", { age: age(now - ms) });
}

/** Seconds until a moment, for a countdown. */
export function seconds(until) {
  return age(Math.max(1, Math.ceil((until - Date.now()) / 1_000)) * 1_000);
}

const two = (number) => String(number).padStart(2, "0");

/** The parts of a moment, on this computer's clock or in UTC, as the reader has chosen. */
export function parts(ms) {
  const date = new Date(ms);
  return settings.get("times") === "utc"
    ? [
        date.getUTCFullYear(),
        date.getUTCMonth(),
        date.getUTCDate(),
        date.getUTCHours(),
        date.getUTCMinutes(),
        date.getUTCSeconds(),
      ]
    : [date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
}

/** 14:31:49 */
export function clock(ms, withSeconds = true) {
  const [, , , hour, minute, second] = parts(ms);
  return withSeconds ? `${two(hour)}:${two(minute)}:${two(second)}` : `${two(hour)}:${two(minute)}`;
}

/** The zone that times are shown in: "UTC", "GMT+3". */
export function zone(ms) {
  const timeZone = settings.get("times") === "utc" ? "UTC" : undefined;
  const found = new Intl.DateTimeFormat("en-GB", { timeZone, timeZoneName: "short" }).formatToParts(ms);
  return found.find(({ type }) => type === "timeZoneName")?.value ?? "";
}

/** 29 Nov 2026 */
export function day(ms, options = { day: "numeric", month: "short", year: "numeric" }) {
  const timeZone = settings.get("times") === "utc" ? "UTC" : undefined;
  return new Intl.DateTimeFormat(language === "en" ? "en-GB" : language, { timeZone, ...options }).format(ms);
}

/** 29 Nov 2026, 14:31:49 */
export function moment(ms, withSeconds = false) {
  return `${day(ms)}, ${clock(ms, withSeconds)}`;
}
