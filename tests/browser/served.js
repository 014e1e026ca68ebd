// A real server on a simulated exchange, for tests. PYTHON is the Python that has komas.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
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
  /** @type {Promise<[string, object]> | undefined} */ #known;
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

  /** A VIP's token. @param {number} seconds it is good for, from now on: not from the start of a program that makes one */
  async issue(seconds) {
    this.#known ??= this.#made();
    const [head, claims] = await this.#known;
    const now = Math.floor(Date.now() / 1000);
    const text = JSON.stringify({ ...claims, iat: now, exp: now + seconds });
    const signed = `${head}.${Buffer.from(text).toString("base64url")}`;
    const secret = readFileSync(join(this.folder, "jwt-secret"));
    return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
  }

  /** The head and the claims of a token as a user makes it. @returns {Promise<[string, object]>} */
  async #made() {
    const args = ["-m", "komas", "token", "issue", "--demo", "--data-dir", this.folder];
    const { stdout } = await run(PYTHON, [...args, "--user-id", "7", "--vip-days", "1"], { env: this.#env });
    const [head, claims] = stdout.split(".");
    return [head, JSON.parse(Buffer.from(claims, "base64url").toString())];
  }
}
