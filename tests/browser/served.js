// A real server on a simulated exchange, for tests. PYTHON is the Python that has komas.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PYTHON = process.env.PYTHON ?? "python3";
const run = promisify(execFile);

export const DEADLINE = { timeout: 60_000 };
/** @param {number} ms */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (probe.address());
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** `komas serve --demo`; it may be stopped, and started again at the same address. */
export class Served {
  folder = mkdtempSync(join(tmpdir(), "komas-browser-"));
  url = "";
  token = ""; // the demo prints one
  /** @type {import("node:child_process").ChildProcess | null} */ #process = null;
  #env = { ...process.env, PYTHONPATH: ROOT, KOMAS_JWT_LEEWAY_S: "0" };

  async start() {
    if (!this.url) this.url = `http://127.0.0.1:${await freePort()}/`;
    const bind = new URL(this.url).host;
    const started = spawn(PYTHON, ["-m", "komas", "serve", "--demo", "--bind", bind, "--data-dir", this.folder], {
      env: this.#env,
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#process = started;
    started.stdout.setEncoding("utf8").on("data", (text) => {
      this.token = / --token (\S+)/.exec(text)?.[1] ?? this.token;
    });
    for (;;) {
      assert.equal(started.exitCode, null, "the server did not start");
      try {
        if ((await fetch(`${this.url}healthz`)).ok) return;
      } catch {
        await pause(100);
      }
    }
  }

  /** Without a word to those who are connected. */
  async stop() {
    if (this.#process === null) return;
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await ended;
  }

  async end() {
    await this.stop();
    rmSync(this.folder, { recursive: true });
  }

  /** A VIP's token, as a user makes one. @param {number} seconds it is good for */
  async issue(seconds) {
    const args = ["-m", "komas", "token", "issue", "--demo", "--data-dir", this.folder, "--user-id", "7"];
    const more = ["--vip-days", "1", "--ttl", String(seconds)];
    return (await run(PYTHON, [...args, ...more], { env: this.#env })).stdout.trim();
  }
}
