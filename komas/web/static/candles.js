// The candles of one symbol and interval, as text for readers and as numbers for the chart. Pure.

const MOST = 5_000;
const MOST_BLANK = 500; // points of one gap

const MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** The open time of the candle after one, in ms; months are as long as they are. */
export function after(ms, interval) {
  const many = Number.parseInt(interval, 10);
  if (!interval.endsWith("M")) return ms + many * MS[interval.at(-1)];
  const date = new Date(ms);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + many, date.getUTCDate());
}

/** Candles in order of their open times, and the gaps that were declared between them. */
export class Candles {
  constructor(interval) {
    this.interval = interval;
    this.byTime = new Map(); // open time in ms → candle as it came (numbers are text)
    this.gaps = new Map(); // first missing open time → { from, to, reason }
    this.times = [];
  }

  get oldest() {
    return this.times[0];
  }

  get newest() {
    return this.times.at(-1);
  }

  get isFull() {
    return this.times.length >= MOST;
  }

  /** Merge one candle; says whether it came `last`, was `changed` somewhere before, or is `same`. */
  add(candle) {
    const time = Number(candle.timestamp);
    const before = this.byTime.get(time);
    if (before?.is_closed && !candle.is_closed) return "same";
    const end = this.newest;
    this.byTime.set(time, candle);
    if (!before) this.insert(time);
    if (end === undefined || time > end) return end === undefined ? "changed" : "last";
    return time === end ? "last" : "changed";
  }

  insert(time) {
    if (this.newest === undefined || time > this.newest) this.times.push(time);
    else
      this.times.splice(
        this.times.findIndex((other) => other > time),
        0,
        time,
      );
    if (this.times.length > MOST + 500) for (const old of this.times.splice(0, 500)) this.byTime.delete(old);
  }

  /** Older ones, from the server's history. */
  prepend(candles) {
    const older = candles.filter(({ timestamp }) => !this.byTime.has(Number(timestamp)));
    for (const candle of older) this.byTime.set(Number(candle.timestamp), candle);
    this.times = [...this.byTime.keys()].sort((a, b) => a - b);
    return older.length;
  }

  /** A gap was declared (`from` and `to` are open times, or null where unknown), or filled after all. */
  declare({ from, to, filled, reason }) {
    const first = from === null ? null : Number(from);
    if (filled) this.gaps.delete(first);
    else if (first !== null) this.gaps.set(first, { from: first, to: to === null ? null : Number(to), reason });
  }

  /** The gaps as they stand: which open times are missing of each; those that were filled are none. */
  missing() {
    return [...this.gaps.values()].flatMap(({ from, to, reason }) => {
      const next =
        this.times.find((time) => time >= from && !(to !== null && time > to)) ??
        this.times.find((time) => time > from);
      const end = to ?? (next === undefined ? from : next - 1);
      if (end < this.oldest) return []; // that far back nothing has been asked for yet
      const times = [];
      let count = 0;
      for (let time = from; time <= end && count < MOST; time = after(time, this.interval)) {
        if (this.byTime.has(time)) continue;
        count += 1;
        if (times.length < MOST_BLANK) times.push(time);
      }
      return times.length ? [{ times, count, reason, isOpen: to === null }] : [];
    });
  }

  /** Highest and lowest between two open times, as text. */
  extremes(from, to, compare) {
    let [high, low] = [null, null];
    for (const time of this.times) {
      if (time < from || time > to) continue;
      const candle = this.byTime.get(time);
      if (high === null || compare(candle.high, high) > 0) high = candle.high;
      if (low === null || compare(candle.low, low) < 0) low = candle.low;
    }
    return { high, low };
  }
}
