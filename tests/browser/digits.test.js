import assert from "node:assert/strict";
import { test } from "node:test";
import * as digits from "../../komas/web/static/digits.js";

test("numbers of JSON keep every digit, and texts that look like numbers stay as they are", () => {
  const text =
    '{"price":61810.06000000,"id":9007199254740993,"small":-1e-7,"note":"a \\"1.50\\" 2","ok":true,"none":null}';
  assert.deepEqual(digits.parse(text), {
    price: "61810.06000000",
    id: "9007199254740993",
    small: "-1e-7",
    note: 'a "1.50" 2',
    ok: true,
    none: null,
  });
  assert.throws(() => digits.parse('{"price":1.5'), SyntaxError);
});

test("an exponent is written out", () => {
  assert.equal(digits.plain("1e-7"), "0.0000001");
  assert.equal(digits.plain("-1.50E3"), "-1500");
  assert.equal(digits.plain("61810.06000000"), "61810.06000000");
});

test("a price loses zeros beyond its tick, and no other digit", () => {
  assert.equal(digits.price("61810.06000000", "0.01000000"), "61\u202f810.06");
  assert.equal(digits.price("61810.00000000", "0.01"), "61\u202f810.00");
  assert.equal(digits.price("0.12345678", "0.01"), "0.12345678");
  assert.equal(digits.price("1.500"), "1.5");
  assert.equal(digits.price(null), "\u2013");
  assert.equal(digits.ungroup(digits.price("1234567.8")), "1234567.8");
});

test("volumes are cut, never rounded", () => {
  assert.equal(digits.volume("12557.46"), "12.5\u202fK");
  assert.equal(digits.volume("777999999"), "777\u202fM");
  assert.equal(digits.volume("0.03059"), "0.0305");
  assert.equal(digits.volume("999.99"), "999");
});

test("signs", () => {
  assert.equal(digits.signed("827.12"), "+827.12");
  assert.equal(digits.signed("-3.10", "0.01"), "\u22123.10");
  assert.equal(digits.percent("1.356"), "+1.356\u202f%");
  assert.equal(digits.percent("0.000"), "0.000\u202f%");
});

test("arithmetic is exact where doubles are not", () => {
  assert.equal(digits.add("0.10", "0.2"), "0.30");
  assert.equal(digits.subtract("0.3", "0.1"), "0.2");
  assert.equal(digits.sum(["0.1", "0.1", "0.1"]), "0.3");
  assert.equal(digits.compare("9007199254740993", "9007199254740992"), 1);
  assert.equal(digits.floor("61810.06", "0.10"), "61810.00");
  assert.equal(digits.ceil("61810.06", "0.10"), "61810.10");
  assert.equal(digits.ceil("61810.10", "0.10"), "61810.10");
});

test("ages", () => {
  assert.equal(digits.age(210), "0.2 s");
  assert.equal(digits.age(185_000), "3 min");
  assert.equal(digits.age(8_040_000), "2 h 14 min");
});
