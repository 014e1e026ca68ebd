// What no real server shows in a minute: clocks that are wrong, and a callback that never answers.

import assert from "node:assert/strict";
import { test } from "node:test";
import { SignalConnection } from "../../komas/web/static/komas.js";

const NOW_MS = Date.UTC(2026, 10, 30);
const settled = () => new Promise((resolve) => setImmediate(resolve));

/** A server that takes every token, and says for how long by its own clock. @param {number} end in Unix seconds */
function taking(end) {
  return class Taking {
    /** @type {(event: {data: string}) => void} */ onmessage = () => {};
    constructor() {
      queueMicrotask(() => this.#say("connected"));
    }
    /** @param {string} type */
    #say(type) {
      this.onmessage({ data: JSON.stringify({ type, expires_at: end }) });
    }
    expiring() {
      this.#say("expiring");
    }
    /** @param {string} _text a refresh */
    send(_text) {
      queueMicrotask(() => this.#say("refreshed"));
    }
    close() {}
  };
}

/** @param {import("node:test").TestContext} context @param {any} token @param {number} end */
function connected(context, token, end) {
  context.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: NOW_MS });
  /** @type {any[]} */ const states = [];
  /** @type {any} */ let socket;
  class Kept extends taking(end) {
    constructor() {
      super();
      socket = this;
    }
  }
  const connection = new SignalConnection(
    new URL("http://komas/"),
    { token, WebSocket: /** @type {any} */ (Kept) },
    { onMessage: () => {}, onState: (state) => states.push(state) },
  );
  return { connection, states, socket: () => socket };
}

test("a clock that is an hour ahead asks for no token after the other", async (context) => {
  let asked = 0;
  const { connection, states, socket } = connected(context, () => `token-${asked++}`, NOW_MS / 1000 - 60);
  for (let turn = 0; turn < 20; turn++) {
    await settled();
    context.mock.timers.tick(1000);
  }
  assert.equal(states.at(-1).state, "live");
  assert.equal(asked, 1);
  socket().expiring(); // the server's clock counts
  await settled();
  assert.equal(asked, 2);
  connection.close();
});

test("a callback that never answers is asked again", async (context) => {
  let asked = 0;
  const never = () => (asked++ === 0 ? new Promise(() => {}) : "token");
  const { connection, states } = connected(context, never, NOW_MS / 1000 + 3600);
  context.mock.timers.tick(20_000);
  for (let turn = 0; turn < 3; turn++) await settled();
  assert.deepEqual(states.at(-1)?.state, "lost");
  context.mock.timers.tick(1000);
  for (let turn = 0; turn < 3; turn++) await settled();
  assert.equal(asked, 2);
  assert.equal(states.at(-1).state, "live");
  connection.close();
});

test("two minutes before its end an hour's token is renewed, once", async (context) => {
  let asked = 0;
  const { connection, socket } = connected(context, () => `token-${asked++}`, NOW_MS / 1000 + 3600);
  await settled();
  for (let half = 0; half < 115; half++) {
    socket().onmessage({ data: '{"type":"pong"}' });
    context.mock.timers.tick(30_000);
  }
  await settled();
  assert.equal(asked, 1); // after 57.5 minutes
  context.mock.timers.tick(30_000);
  await settled();
  assert.equal(asked, 2);
  connection.close();
});
