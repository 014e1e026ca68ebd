// A `komas serve --demo` for tests that need a real one; null where none can be started.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PYTHON = process.env.PYTHON ?? "python3";
const STARTS_MS = 60_000;

/** A port that is free now. @returns {Promise<number>} */
export function freePort() {
  return new Promise((resolve) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** @param {number} port */
export async function serve(port) {
  const folder = mkdtempSync(join(tmpdir(), "komas-"));
  const args = ["-m", "komas", "serve", "--demo", "--bind", `127.0.0.1:${port}`, "--data-dir", folder];
  const child = spawn(PYTHON, args, { stdio: "ignore" });
  const url = `http://127.0.0.1:${port}/`;
  const until = Date.now() + STARTS_MS;
  for (;;) {
    const answer = await fetch(`${url}healthz`).catch(() => null);
    if (answer?.ok) break;
    if (child.exitCode !== null || Date.now() > until) throw new Error(`komas did not start: ${PYTHON}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return {
    url,
    /** End it, and wait until it has. */
    stop: () =>
      new Promise((resolve) => {
        child.once("exit", () => {
          rmSync(folder, { recursive: true, force: true });
          resolve(null);
        });
        child.kill();
      }),
  };
}
