import assert from "node:assert/strict";
import { test } from "node:test";
import {
  curlOf,
  EventReader,
  exampleOf,
  fieldsOf,
  matches,
  parametersOf,
  requestOf,
  tokenOf,
} from "../../komas/web/static/docs-api.js";

const ROOT = new URL("https://komas.example/prefix/");
const api = {
  components: {
    schemas: {
      Level: { type: "array", items: { type: "number" } },
      Book: {
        type: "object",
        required: ["bids"],
        properties: { bids: { type: "array", items: { $ref: "#/components/schemas/Level" } }, why: { type: "string" } },
      },
      Told: { examples: [{ one: 1 }] },
    },
  },
};
const call = {
  parameters: [
    { name: "symbols", in: "query", required: true, schema: { type: "array" } },
    { name: "token", in: "query", schema: { type: "string" } },
    { name: "Last-Event-ID", in: "header", schema: { type: "string" } },
    { name: "user_id", in: "path", required: true, schema: { type: "string" } },
  ],
  requestBody: { content: {} },
  responses: { 200: { content: {} } },
  security: [{}, { admin: [] }],
};
const one = { path: "/api/vip/{user_id}", method: "post", call };

test("a call is found by its words, in any order, and in Russian in any case", () => {
  const text = "get /api/ws/klines Past candles, oldest first Прошлые свечи, ещё открыта";
  for (const query of ["", "klines", "CANDLES past", "свечи", "свечей", "прошлая свеча", "еще"])
    assert.ok(matches(text, query), query);
  for (const query of ["depth", "candles depth", "стакан", "сделки"]) assert.ok(!matches(text, query), query);
});

test("an example comes from the schema where none is written", () => {
  assert.deepEqual(exampleOf(api, { $ref: "#/components/schemas/Book" }), { bids: [[1.5]], why: "text" });
  assert.deepEqual(exampleOf(api, { $ref: "#/components/schemas/Told" }), { one: 1 });
  const both = { allOf: [{ $ref: "#/components/schemas/Book" }, { properties: { type: { const: "depth" } } }] };
  assert.deepEqual(exampleOf(api, both), { type: "depth", bids: [[1.5]], why: "text" });
  assert.equal(exampleOf(api, { anyOf: [{ type: "null" }, { type: "integer" }] }), 1);
});

test("a schema that holds itself ends", () => {
  const looped = {
    components: { schemas: { A: { type: "object", properties: { a: { $ref: "#/components/schemas/A" } } } } },
  };
  assert.ok(exampleOf(looped, { $ref: "#/components/schemas/A" }));
  assert.ok(fieldsOf(looped, { $ref: "#/components/schemas/A" }).length < 10);
});

test("fields say what is always there", () => {
  const fields = fieldsOf(api, { $ref: "#/components/schemas/Book" });
  assert.deepEqual(
    fields.map(({ name, type, isOptional }) => [name, type, isOptional]),
    [
      ["bids", "number[][]", false],
      ["why", "string", true],
    ],
  );
});

test("a token is never in an address, nor in the line for a shell", () => {
  assert.ok(parametersOf(call).every(({ name }) => name !== "token"));
  const ready = requestOf(
    one,
    { symbols: "BTCUSDT,币", token: "secret", user_id: "a/b", "Last-Event-ID": "" },
    '{"a": "it\'s"}',
  );
  assert.equal(ready.path, "api/vip/a%2Fb?symbols=BTCUSDT,%E5%B8%81");
  assert.deepEqual(ready.headers, { "Content-Type": "application/json" });
  assert.equal(tokenOf(call), "admin");
  assert.equal(
    curlOf(one, ready, ROOT),
    `curl -X POST -H "Authorization: Bearer $ADMIN_TOKEN" -H 'Content-Type: application/json' -d '{"a": "it'\\''s"}' ` +
      `'https://komas.example/prefix/api/vip/a%2Fb?symbols=BTCUSDT,%E5%B8%81'`,
  );
  const socket = { path: "/ws/signals", method: "get", call: { responses: {} } };
  assert.match(curlOf(socket, requestOf(socket, {}), ROOT), /'wss:\/\/komas.example\/prefix\/ws\/signals'$/);
});

test("events are read however they are cut", () => {
  const text =
    'retry: 1000\ndata: {"a":1}\n\n: keep-alive\nid: x-1\nevent: gap\ndata: one\ndata:two\n\nid: x-2\ndata: 3\r\n\r\n';
  const whole = [
    { name: "message", id: "", data: '{"a":1}' },
    { name: "gap", id: "x-1", data: "one\ntwo" },
    { name: "message", id: "x-2", data: "3" },
  ];
  for (let size = 1; size < text.length; size += 1) {
    const reader = new EventReader();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...reader.take(text.slice(at, at + size)));
    assert.deepEqual(events, whole, `pieces of ${size}`);
  }
});
