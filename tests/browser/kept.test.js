import assert from "node:assert/strict";
import { test } from "node:test";
import { Kept } from "../../komas/web/static/kept.js";

/** @param {Kept} kept @param {import("../../komas/web/static/kept.js").Seen} [seen] */
function read(kept, seen) {
  /** @type {import("../../komas/web/static/kept.js").Change[]} */ const changes = [];
  const now = kept.since(seen, changes);
  return { now, changes };
}

const candle = (/** @type {number} */ at, /** @type {boolean} */ closed) =>
  `{"type":"kline","data":{"timestamp":${at},"is_closed":${closed}},"timestamp":"x"}`;

test("of a ticker only the newest is passed on", () => {
  const kept = new Kept("btcusdt@ticker");
  kept.put("first", 1);
  kept.put("second", 2);
  const { now, changes } = read(kept);
  assert.deepEqual(changes, [["btcusdt@ticker", "", "second"]]);
  assert.deepEqual(read(kept, now).changes, []);
});

test("a late open candle does not replace the closed one", () => {
  const kept = new Kept("btcusdt@kline_1m");
  kept.put(candle(60, true), 1);
  kept.put(candle(60, false), 2);
  assert.deepEqual(
    read(kept).changes.map(([, , text]) => text),
    [candle(60, true)],
  );
});

test("a tab that is too slow for the trades is told how many it lost", () => {
  const kept = new Kept("btcusdt@trade");
  kept.put("0", 1);
  const { now } = read(kept);
  for (let each = 1; each <= 510; each += 1) kept.put(String(each), each + 1);
  const { changes } = read(kept, now);
  assert.deepEqual(changes[0], ["btcusdt@trade", "lagged", '{"dropped":10,"here":true}']);
  assert.equal(changes.length, 501);
  assert.equal(changes[1][2], "11");
});

test("a stream that was kept anew says that the old is to be forgotten", () => {
  const { now } = read(new Kept("btcusdt@trade"));
  assert.deepEqual(read(new Kept("btcusdt@trade"), now).changes, [["btcusdt@trade", "reset", "null"]]);
});
