// Numbers as the exchange writes them: text in, text out. Nothing here rounds, and nothing writes an exponent.
// A number is a string of JSON's number grammar; the functions that show one write a dash for null and undefined.

const GROUP = "\u202f"; // between thousands, and before a unit
const MINUS = "\u2212";
const NONE = "\u2013";
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const NUMBER = /^(-?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/;
const MOST_ZEROS = 400; // beyond the range of a double nobody means a number
const UNITS = ["", "K", "M", "B"];

/** @typedef {string | null | undefined} Shown */

/** Read JSON; its numbers stay text. Throws SyntaxError. @param {string} text @returns {any} */
export const parse = (text) => JSON.parse(text.replace(TOKEN, (token) => (token[0] === '"' ? token : `"${token}"`)));

/** A number as [units, places]: "-1.50" is [-150n, 2]. @param {string} number @returns {[bigint, number]} */
function read(number) {
  const [, sign, whole, fraction = "", exponent = "0"] = NUMBER.exec(number) ?? [];
  const places = fraction.length - Number(exponent);
  if (whole === undefined || Math.abs(places) > MOST_ZEROS) throw new RangeError(`${number} is not a number`);
  const units = BigInt(sign + whole + fraction);
  return places < 0 ? [units * 10n ** BigInt(-places), 0] : [units, places];
}

/** @param {bigint} units @param {number} places */
function write(units, places) {
  const digits = String(units < 0n ? -units : units).padStart(places + 1, "0");
  const point = digits.length - places;
  return (units < 0n ? "-" : "") + digits.slice(0, point) + (places ? `.${digits.slice(point)}` : "");
}

/** Both with the places of the finer one. @param {string} a @param {string} b @returns {[bigint, bigint, number]} */
function align(a, b) {
  const [first, second] = [read(a), read(b)];
  const places = Math.max(first[1], second[1]);
  const scale = (/** @type {[bigint, number]} */ [units, own]) => units * 10n ** BigInt(places - own);
  return [scale(first), scale(second), places];
}

/** The same without an exponent. @param {string} number */
export const plain = (number) => (/e/i.test(number) ? write(...read(number)) : number);

/** @param {string} a @param {string} b */
export function add(a, b) {
  const [first, second, places] = align(a, b);
  return write(first + second, places);
}

/** @param {string} a @param {string} b */
export function subtract(a, b) {
  const [first, second, places] = align(a, b);
  return write(first - second, places);
}

/** @param {Iterable<string>} numbers */
export function sum(numbers) {
  let total = "0";
  for (const number of numbers) total = add(total, number);
  return total;
}

/** @param {string} number @param {number} whole an integer */
export function multiply(number, whole) {
  const [units, places] = read(number);
  return write(units * BigInt(whole), places);
}

/** @param {string} a @param {string} b @returns {-1 | 0 | 1} */
export function compare(a, b) {
  const [first, second] = align(a, b);
  return first < second ? -1 : first > second ? 1 : 0;
}

/** Whether it falls, stands or rises. @param {string} number */
export const direction = (number) => compare(number, "0");

/** The multiple of step at or below a number. @param {string} number @param {string} step */
export function floor(number, step) {
  const [units, unit, places] = align(number, step);
  const rest = ((units % unit) + unit) % unit;
  return write(units - rest, places);
}

/** The multiple of step at or above a number. @param {string} number @param {string} step */
export function ceil(number, step) {
  const below = floor(number, step);
  return compare(below, number) ? add(below, step) : below;
}

/** Part of a whole, 0 to 1: for bars, never to be shown as digits. @param {string} part @param {string} whole */
export function ratio(part, whole) {
  const [first, second] = align(part, whole);
  return second ? Math.min(1, Math.max(0, Number((first * 1_000_000n) / second) / 1e6)) : 0;
}

/** Decimal places of a tick; undefined where it is not known. @param {Shown} tick */
export const places = (tick) => (tick == null ? undefined : (cut(plain(tick), 0).split(".")[1] ?? "").length);

/** Without the zeros at the end, but for those within so many places. @param {string} number @param {number} kept */
function cut(number, kept) {
  const point = number.indexOf(".");
  if (point < 0) return number;
  let end = number.length;
  while (end > point + 1 + kept && number[end - 1] === "0") end -= 1;
  return number.slice(0, end === point + 1 ? point : end);
}

/** @param {string} number */
function group(number) {
  const [whole, ...fraction] = number.replace("-", MINUS).split(".");
  const grouped = /\d{5}/.test(whole) ? whole.replace(/\d(?=(?:\d{3})+$)/g, `$&${GROUP}`) : whole;
  return [grouped, ...fraction].join(".");
}

/** Zeros beyond the tick's precision are cut. @param {Shown} number @param {Shown} [tick] */
export const price = (number, tick) => (number == null ? NONE : group(cut(plain(number), places(tick) ?? 0)));

/** A price's change, always with a sign unless it is zero. @param {Shown} number @param {Shown} [tick] */
export const signed = (number, tick) =>
  number != null && direction(number) > 0 ? `+${price(number, tick)}` : price(number, tick);

/** As sent, with a sign unless it is zero. @param {Shown} number */
export function percent(number) {
  if (number == null) return NONE;
  return `${direction(number) > 0 ? "+" : ""}${group(plain(number))}${GROUP}%`;
}

/** Cut to three digits, with a unit from a thousand up. @param {Shown} number */
export function volume(number) {
  if (number == null) return NONE;
  const [, sign, whole, fraction = ""] = NUMBER.exec(plain(number)) ?? [];
  const unit = Math.min(UNITS.length - 1, Math.floor((whole.length - 1) / 3));
  const point = whole.length - 3 * unit;
  const digits = whole + fraction;
  const leading = whole === "0" ? 1 + fraction.search(/[1-9]|$/) : 0;
  const shown = digits.slice(0, Math.max(point, leading + 3));
  const text = cut(`${shown.slice(0, point)}.${shown.slice(point)}`, 0);
  return group(sign + text) + (unit ? GROUP + UNITS[unit] : "");
}

/** As it may be pasted elsewhere. @param {string} shown */
export const ungroup = (shown) => shown.replaceAll(GROUP, "");

/** How long ago, or until: in the two largest units that matter. @param {number} ms */
export function age(ms, units = { s: "s", min: "min", h: "h", d: "d" }) {
  const seconds = Math.abs(ms) / 1000;
  if (seconds < 10) return `${Math.floor(seconds * 10) / 10} ${units.s}`;
  if (seconds < 60) return `${Math.floor(seconds)} ${units.s}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} ${units.min}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} ${units.h} ${minutes % 60} ${units.min}`;
  return `${Math.floor(hours / 24)} ${units.d} ${hours % 24} ${units.h}`;
}
