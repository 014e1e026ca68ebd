// The client against the real server, on a simulated exchange.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { parse } from "../../komas/web/static/digits.js";
import { Komas } from "../../komas/web/static/komas.js";
import { DEADLINE, pause, Served } from "./served.js";

const server = new Served();

const client = (options = {}) => new Komas(server.url, { EventSource, WebSocket, parse, ...options });

/** @template Item @param {AsyncIterable<Item>} items @param {number} count */
async function take(items, count) {
  /** @type {Item[]} */ const taken = [];
  for await (const item of items) if (taken.push(item) === count) break;
  return taken;
}

before(() => server.start(), DEADLINE);
after(() => server.end());

test("trades of the stream equal those of the history digit by digit", DEADLINE, async () => {
  const komas = client();
  const streamed = await take(komas.trades("BTCUSDT"), 5);
  const { trades } = await komas.get("api/ws/trades?symbol=BTCUSDT&limit=1000");
  const known = new Map(trades.map((/** @type {any} */ each) => [each.trade_id, each]));
  for (const trade of streamed) {
    assert.match(trade.price, /^\d+\.\d+$/);
    assert.equal(trade.price, known.get(trade.trade_id)?.price);
    assert.equal(trade.quantity, known.get(trade.trade_id)?.quantity);
  }
  komas.close();
});

test("streams are added and removed on one connection", DEADLINE, async () => {
  let opened = 0;
  class Counted extends EventSource {
    /** @param {string | URL} url */
    constructor(url) {
      super(url);
      opened += 1;
    }
  }
  const komas = client({ EventSource: Counted });
  const prices = komas.prices(["BTCUSDT"]);
  await take(prices, 1);
  const others = komas.prices(["ETHUSDT"]);
  const btc = komas.trades("BTCUSDT");
  const [price] = await take(others, 1);
  assert.equal(price.symbol, "ETHUSDT");
  assert.equal((await take(btc, 1))[0].symbol, "BTCUSDT");
  assert.ok(opened <= 2); // once more only when nothing was wanted between two loops
  komas.close();
});

test("an unknown stream is refused in words, and the others go on", DEADLINE, async () => {
  const komas = client();
  const refused = new Promise((resolve) => void komas.on("refused", resolve));
  const both = komas.subscribe(["btcusdt@trade", "btcusdt@nonsense"]);
  const trades = take(both, 2);
  const { stream, reason } = /** @type {any} */ (await refused);
  assert.equal(stream, "btcusdt@nonsense");
  assert.ok(reason);
  assert.equal((await trades).length, 2);
  komas.close();
});

test("who was cut off goes on with the next trade, none twice", DEADLINE, async () => {
  /** @type {any} */ let source;
  class Seen extends EventSource {
    /** @param {string | URL} url */
    constructor(url) {
      super(url);
      source = this;
    }
  }
  const komas = client({ EventSource: Seen });
  /** @type {unknown[]} */ const gaps = [];
  komas.on("gap", (gap) => gaps.push(gap));
  /** @type {bigint[]} */ const ids = [];
  for await (const { trade_id } of komas.trades("BTCUSDT")) {
    if (ids.push(BigInt(trade_id)) === 3) source.onerror(new Event("error"));
    if (ids.length === 12) break;
  }
  assert.deepEqual(
    ids,
    ids.map((_, index) => ids[0] + BigInt(index)),
  );
  assert.deepEqual(gaps, []);
  assert.match(source.url, /last_event_id=/);
  komas.close();
});

test("signals ask the callback for a token, and a wrong one is not tried for ever", DEADLINE, async () => {
  const states = async (/** @type {string} */ given, /** @type {string} */ last) => {
    const komas = client({ token: async () => given });
    const state = await new Promise((resolve) => {
      komas.on("signals", (now) => now.state === last && resolve(now));
      komas.signals();
    });
    komas.close();
    return state;
  };
  while (!server.token) await pause(100);
  assert.equal((await states(server.token, "live")).code, null);
  assert.equal((await states("wrong", "closed")).word, "c1008u");
});

test("a filter of signals leaves the rest out, and readers of the same share a socket", DEADLINE, async () => {
  const admin = readFileSync(join(server.folder, "admin-token"), "utf8").trim();
  const publish = (/** @type {string} */ coin_name) =>
    fetch(`${server.url}api/signals`, {
      method: "POST",
      headers: { Authorization: `Bearer ${admin}`, "Content-Type": "application/json" },
      body: JSON.stringify({ signal_type: "mexc_dex", data: { coin_name } }),
    });
  while (!server.token) await pause(100);
  let sockets = 0;
  class Counted extends WebSocket {
    /** @param {string} url @param {string[]} protocols */
    constructor(url, protocols) {
      super(url, protocols);
      sockets += 1;
    }
  }
  const komas = client({ token: server.token, WebSocket: Counted });
  /** @type {string[]} */ const heard = [];
  const filter = { signalTypes: ["mexc_dex"], coinNames: ["first-of-ours", "LAST-OF-OURS"] };
  const live = new Promise((resolve) => komas.on("signals", ({ state }) => state === "live" && resolve(null)));
  const readers = [komas.signals(undefined, filter), komas.signals(({ data }) => heard.push(data.coin_name), filter)];
  await live;
  for (const coin of ["First-Of-Ours", "another's", "last-of-ours"]) assert.equal((await publish(coin)).status, 201);
  const messages = await take(readers[0], 2);
  assert.deepEqual(
    messages.map(({ data }) => data.coin_name),
    heard,
  );
  assert.deepEqual(heard, ["First-Of-Ours", "last-of-ours"]);
  assert.equal(sockets, 1);
  komas.close();
});

test("after a restart of the server the same subscription goes on", DEADLINE, async () => {
  const komas = client();
  /** @type {string[]} */ const states = [];
  komas.on("state", ({ state }) => states.push(state));
  /** @type {() => void} */ let heard = () => {};
  const trade = () =>
    new Promise((resolve) => {
      heard = () => resolve(null);
    });
  komas.trades("BTCUSDT", () => heard());
  await trade();
  await server.stop();
  await server.start();
  await trade();
  assert.ok(states.includes("lost"));
  assert.equal(states.at(-1), "live");
  komas.close();
});
