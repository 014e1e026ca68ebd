import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { createElement } from "react";
import { renderToString } from "react-dom/server";

// As an application has it: beside its own copy of React.
const folder = mkdtempSync(fileURLToPath(new URL("hooks-", import.meta.url)));
cpSync(new URL("../../komas/web/static/react.js", import.meta.url), `${folder}/react.js`);
const { useKlines, usePrices, useSignals, useTrades } = await import(pathToFileURL(`${folder}/react.js`).href);
after(() => rmSync(folder, { recursive: true }));

const komas = new Proxy({}, { get: (_, name) => assert.fail(`${String(name)} was used`) });

function Page() {
  const prices = usePrices(komas, ["BTCUSDT"]);
  const lists = [useKlines(komas, "BTCUSDT", "1m"), useTrades(komas, "BTCUSDT"), useSignals(komas)];
  return createElement("p", null, `${Object.keys(prices).length} ${lists.map((list) => list.length).join(" ")}`);
}

test("the hooks render before anything has come, and open nothing on a server", () => {
  assert.equal(renderToString(createElement(Page)), "<p>0 0 0 0</p>");
});
