// The client against a real server: digits, changes, a restart, and what an error says.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { EventSource } from "eventsource";
import { parse } from "../../komas/web/static/digits.js";
import { Komas, KomasError } from "../../komas/web/static/komas.js";
import { freePort, serve } from "./server.js";

const WAIT_MS = 30_000;
/** @type {Awaited<ReturnType<typeof serve>>} */ let server;
/** @type {number} */ let port;

before(async () => {
  port = await freePort();
  server = await serve(port);
});
after(() => server.stop());

/** @param {() => boolean} isSo @param {string} what */
async function until(isSo, what) {
  const end = Date.now() + WAIT_MS;
  while (!isSo()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** @param {object} [more] */
const client = (more) => new Komas(server.url, { EventSource, parse, ...more });

test("trades come once each and in order, with their digits, also of streams that are added", async () => {
  const komas = client();
  /** @type {Map<string, any[]>} */ const seen = new Map();
  const note = (/** @type {any} */ trade) => seen.set(trade.symbol, [...(seen.get(trade.symbol) ?? []), trade]);
  komas.trades("BTCUSDT", note);
  await until(() => (seen.get("BTCUSDT")?.length ?? 0) > 3, "trades");
  const added = komas.trades("ETHUSDT", note);
  await until(() => (seen.get("ETHUSDT")?.length ?? 0) > 3, "trades of the stream that was added");
  added.close();
  for (const trades of seen.values()) {
    const ids = trades.map((trade) => Number(trade.trade_id));
    assert.deepEqual(
      ids,
      ids.map((_, index) => ids[0] + index),
    );
    assert.match(trades[0].price, /^\d+\.\d{8}$/);
  }
  komas.close();
});

test("candles begin with the past", async () => {
  const komas = client({ history: 3 });
  /** @type {any[]} */ const candles = [];
  komas.klines("BTCUSDT", "1m", (/** @type {any} */ candle) => candles.push(candle));
  await until(() => candles.length >= 3, "candles");
  const opens = candles.slice(0, 3).map((candle) => Number(candle.timestamp));
  assert.deepEqual(opens, [opens[0], opens[0] + 60_000, opens[0] + 120_000]);
  assert.deepEqual(
    candles.slice(0, 3).map((candle) => candle.is_closed),
    [true, true, false],
  );
  komas.close();
});

test("a restart of the server is survived, and what was missed is told", async () => {
  const komas = client();
  /** @type {any[]} */ const trades = [];
  /** @type {any[]} */ const notices = [];
  /** @type {string[]} */ const states = [];
  komas.on("gap", (gap) => notices.push(gap));
  komas.on("state", (state) => states.push(state.state));
  komas.trades("BTCUSDT", (/** @type {any} */ trade) => trades.push(trade));
  await until(() => trades.length > 3, "trades");
  await server.stop();
  const before = trades.length;
  server = await serve(port);
  await until(() => trades.length > before + 3, "trades after the restart");
  assert.equal(notices[0]?.stream, "btcusdt@trade");
  komas.close();
});

test("an error has the server's own words", async () => {
  const komas = client();
  await assert.rejects(komas.get("api/ws/klines?symbol=NOPEUSDT"), (error) => {
    assert.ok(error instanceof KomasError);
    assert.equal(error.status, 400);
    assert.match(error.message, /NOPEUSDT is not a symbol/);
    return true;
  });
});
