// Tokens that end, are renewed, refused, or not to be had: the socket of signals against the real server.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import WebSocket from "ws";
import { SignalConnection } from "../../komas/web/static/komas.js";
import { DEADLINE, pause, Served } from "./served.js";

const server = new Served();
/** @type {SignalConnection[]} */ const opened = [];
const TOGETHER = { timeout: 120_000, concurrency: true };

before(() => server.start(), DEADLINE);
after(async () => {
  for (const each of opened) each.close(); // of tests that failed
  await server.end();
});

/** A connection, and all that happens to it. @param {import("../../komas/web/static/komas.js").KomasOptions["token"]} token */
function connect(token) {
  const seen = {
    /** The token of each dial. @type {string[]} */ dials: [],
    /** @type {string[]} */ types: [],
    /** @type {unknown[]} */ errors: [],
    /** @type {import("../../komas/web/static/komas.js").SignalState[]} */ states: [],
  };
  class Dialled extends WebSocket {
    /** @param {string} url @param {string[]} protocols */
    constructor(url, protocols) {
      super(url, protocols);
      seen.dials.push(protocols[1].replace("bearer.", ""));
    }
  }
  const connection = new SignalConnection(
    new URL(server.url),
    { token, WebSocket: Dialled },
    {
      onMessage: ({ type }) => seen.types.push(type),
      onState: (state) => seen.states.push(state),
      onError: (error) => seen.errors.push(error),
    },
  );
  opened.push(connection);
  return { connection, seen };
}

/** @param {() => boolean} isSo */
async function until(isSo) {
  while (!isSo()) await pause(50);
}

/** @param {ReturnType<typeof connect>["seen"]} seen @param {string} state */
const reached = (seen, state) => until(() => seen.states.at(-1)?.state === state);

/** @param {ReturnType<typeof connect>["seen"]} seen */
async function endsUnauthorized(seen) {
  await reached(seen, "closed");
  const { code, reason, word } = /** @type {any} */ (seen.states.at(-1));
  assert.deepEqual({ code, reason, word }, { code: 1008, reason: "Unauthorized", word: "c1008u" });
  const dials = seen.dials.length;
  await pause(3000); // longer than the first wait
  assert.equal(seen.dials.length, dials);
  assert.equal(seen.states.at(-1)?.state, "closed");
}

test("tokens of signals", TOGETHER, async (suite) => {
  const lasting = await server.issue(3600);
  /** @type {Promise<void>[]} */ const all = [];
  /** @param {string} name @param {() => Promise<void>} run */
  const together = (name, run) => void all.push(suite.test(name, run));

  together("a token is renewed when the server says that it ends", async () => {
    let asked = 0;
    const { connection, seen } = connect(async () => (asked++ === 0 ? server.issue(70) : lasting));
    await until(() => seen.types.includes("refreshed"));
    assert.deepEqual(
      seen.types.filter((type) => ["connected", "expiring", "refreshed"].includes(type)),
      ["connected", "expiring", "refreshed"],
    );
    assert.equal(asked, 2);
    assert.equal(seen.dials.length, 1);
    connection.close();
  });

  together("a token that is near its end is renewed without a word from the server", async () => {
    let asked = 0;
    const { connection, seen } = connect(async () => (asked++ === 0 ? server.issue(30) : lasting));
    await until(() => seen.types.includes("refreshed"));
    assert.ok(!seen.types.includes("expiring"));
    assert.equal(seen.dials.length, 1);
    connection.close();
  });

  together("a renewal that fails once is tried again before the token ends", async () => {
    let asked = 0;
    const { connection, seen } = connect(async () => {
      asked += 1;
      if (asked === 2) throw new Error("the shop is shut");
      return asked === 1 ? server.issue(40) : lasting;
    });
    await until(() => seen.types.includes("refreshed"));
    assert.deepEqual(seen.errors.map(String), ["Error: the shop is shut"]);
    assert.equal(asked, 3);
    assert.equal(seen.dials.length, 1);
    connection.close();
  });

  together("a renewal that the server refuses is tried again with another token", async () => {
    const tokens = ["refused", lasting];
    let isFirst = true;
    const { connection, seen } = connect(() => {
      if (!isFirst) return tokens.shift() ?? lasting;
      isFirst = false;
      return server.issue(40);
    });
    await until(() => seen.types.includes("refreshed"));
    assert.deepEqual(seen.errors.map(String), ["KomasError: the token is not valid"]);
    assert.equal(seen.dials.length, 1);
    connection.close();
  });

  together("a callback that throws, then rejects, is asked again, and its errors are told", async () => {
    let asked = 0;
    const { connection, seen } = connect(() => {
      asked += 1;
      if (asked === 1) throw new Error("thrown");
      return asked === 2 ? Promise.reject(new Error("rejected")) : lasting;
    });
    await reached(seen, "live");
    assert.deepEqual(seen.errors.map(String), ["Error: thrown", "Error: rejected"]);
    const lost = seen.states.filter(({ state }) => state === "lost");
    assert.deepEqual(
      lost.map(({ code, reason }) => [code, reason]),
      Array(2).fill([null, "the callback gave no token"]),
    );
    assert.deepEqual(seen.dials, [lasting]);
    connection.close();
  });

  together("a callback that has no token ends it before a dial", async () => {
    const { seen } = connect(async () => null);
    await endsUnauthorized(seen);
    assert.deepEqual(seen.dials, []);
  });

  together("a token that no header can have is a wrong one", async () => {
    const { seen } = connect("two words");
    await endsUnauthorized(seen);
  });

  together("tokens that are refused end it, though each is another", async () => {
    let asked = 0;
    const { seen } = connect(async () => `wrong-${asked++}`);
    await endsUnauthorized(seen);
    assert.deepEqual(seen.dials, ["wrong-0", "wrong-1"]);
  });

  together("who kept an old token gets in with the next one", async () => {
    const given = ["wrong", lasting];
    const { connection, seen } = connect(async () => given.shift() ?? null);
    await reached(seen, "live");
    assert.deepEqual(seen.dials, ["wrong", lasting]);
    connection.close();
  });

  together("a token that ends and is refused anew ends it with the documented reason", async () => {
    let asked = 0;
    const { seen } = connect(async () => (asked++ === 0 ? server.issue(20) : "wrong"));
    await reached(seen, "live");
    await endsUnauthorized(seen);
    assert.equal(seen.dials.length, 1);
  });

  together("a callback that fails until the token has ended is asked until it knows", async () => {
    let asked = 0;
    let isShut = true;
    const { connection, seen } = connect(async () => {
      if (asked++ === 0) return server.issue(20);
      if (isShut) throw new Error("shut");
      return lasting;
    });
    await reached(seen, "live");
    await until(() => seen.states.some(({ state, word }) => state === "lost" && word === "c1008u"));
    isShut = false;
    await reached(seen, "live");
    assert.equal(seen.dials.at(-1), lasting);
    connection.close();
  });

  await Promise.all(all);
});

test("who was away while the token ended asks for another before the next dial", TOGETHER, async () => {
  const [short, lasting] = [await server.issue(15), await server.issue(3600)];
  let given = short;
  const { connection, seen } = connect(async () => given);
  await reached(seen, "live");
  await server.stop();
  given = lasting;
  await reached(seen, "lost");
  await pause(15_000); // the first one is over
  await server.start();
  await reached(seen, "live");
  assert.ok(seen.dials.slice(1).every((token) => token === lasting));
  assert.ok(seen.states.every(({ code }) => code === null || code === 1006));
  connection.close();
});
