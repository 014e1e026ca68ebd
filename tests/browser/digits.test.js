// Every digit that the exchange sent, and none that it did not.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as digits from "../../komas/web/static/digits.js";

test("numbers stay text, and texts stay what they are", () => {
  const text =
    '{"price":61840.10000000,"small":1e-8,"name":"a \\"1.50\\" b","list":[-0.10,0,12],"none":null,"is":true}';
  assert.deepEqual(digits.parse(text), {
    price: "61840.10000000",
    small: "1e-8",
    name: 'a "1.50" b',
    list: ["-0.10", "0", "12"],
    none: null,
    is: true,
  });
  assert.throws(() => digits.parse('{"price":}'), SyntaxError);
});

test("an exponent is written out", () => {
  assert.equal(digits.plain("1.50E-7"), "0.000000150");
  assert.equal(digits.plain("12e3"), "12000");
  assert.equal(digits.plain("61840.10"), "61840.10");
  assert.throws(() => digits.plain("1e999999999"), RangeError);
});

test("sums are exact where doubles are not", () => {
  assert.equal(digits.add("0.1", "0.2"), "0.3");
  assert.equal(digits.subtract("1", "1.00000001"), "-0.00000001");
  assert.equal(digits.sum(["9007199254740993", "0.00000001", "1"]), "9007199254740994.00000001");
  assert.equal(digits.compare("10", "9.99999999999999999999"), 1);
  assert.equal(digits.compare("1.50", "1.5"), 0);
});

test("a price has the zeros of its tick, and all of its other digits", () => {
  assert.equal(digits.price("61840.10000000", "0.01"), "61\u202f840.10");
  assert.equal(digits.price("0.00001230", "0.00000001"), "0.00001230");
  assert.equal(digits.price("61840.12345678", "0.01"), "61\u202f840.12345678");
  assert.equal(digits.price("1.50000000"), "1.5");
  assert.equal(digits.price(null), "\u2013");
});

test("signs are always there, and a minus is one", () => {
  assert.match(digits.percent("1.50"), /^\+1\.50/);
  assert.match(digits.percent("-0.25"), /^\u22120\.25/);
});

test("a volume is cut, never rounded up", () => {
  assert.match(digits.volume("1999999"), /^1\.99.?M$/);
  assert.match(digits.volume("999.99"), /^999/);
});

test("what is copied has no thin spaces", () => {
  assert.equal(digits.ungroup(digits.price("1234567.8")), "1234567.8");
});
