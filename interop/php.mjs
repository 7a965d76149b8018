// PHP as it is on the machine: a backend that can be killed at any time, and scripts.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './longwire.mjs';
import { until } from './until.mjs';

const PHP = process.env.PHP_BIN ?? 'php';
const file = (name) => fileURLToPath(new URL(name, import.meta.url));

/** With what requests to the backend are signed. */
export const BACKEND_SECRET = 'what-longwire-and-the-backend-share';

/** php/backend.php under PHP's own web server; what it records outlives it. */
export class PhpBackend {
  #child;
  #directory;
  #flaky;
  #said = '';

  /** Every `flaky`-th delivery of events is kept and then answered with an error. */
  static async start({ flaky = 0 } = {}) {
    const backend = new PhpBackend();
    backend.port = await freePort();
    backend.url = `http://127.0.0.1:${backend.port}`;
    backend.#directory = await mkdtemp(join(tmpdir(), 'longwire-backend-'));
    backend.#flaky = flaky;
    await backend.start();
    return backend;
  }

  /** Starts it again, on the same port and with the same record. */
  async start() {
    const environment = { ...process.env, BACKEND_DIR: this.#directory, BACKEND_SECRET, BACKEND_FLAKY: String(this.#flaky) };
    this.#child = spawn(PHP, ['-q', '-S', `127.0.0.1:${this.port}`, file('php/backend.php')], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream.on('data', (chunk) => (this.#said += chunk));
    const child = this.#child;
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    await until(() => `the backend answers; it said ${this.#said.slice(-2000)}`, () => fetch(`${this.url}/health`).then(({ ok }) => ok, () => false), 10_000);
  }

  /** Ends it as a crash would. */
  async kill() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  async stop() {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** Everything it kept: `events` in the order of their first arrival, and `counters`. */
  async recorded() {
    return (await fetch(`${this.url}/recorded`)).json();
  }

  /** Posts a body with a signature of this time and secret, and gives the status. */
  async deliver(body, { secondsAgo = 0, secret = BACKEND_SECRET, sent = body } = {}) {
    const time = Math.floor(Date.now() / 1000) - secondsAgo;
    const signature = createHmac('sha256', secret).update(`${time}.${body}`).digest('hex');
    const answer = await fetch(`${this.url}/events`, { method: 'POST', body: sent, headers: { 'X-Longwire-Signature': `t=${time},v1=${signature}` } });
    await answer.text();
    return answer.status;
  }

  /** Settings of a longwire that asks it about everything, and tells it everything. */
  settings() {
    const webhooks = ['connect', 'refresh', 'subscribe', 'publish', 'sub_refresh', 'rpc'].map((name) => [name, { endpoint: `${this.url}/${name}`, timeout: '3s' }]);
    return {
      webhook: { secret: BACKEND_SECRET, ...Object.fromEntries(webhooks) },
      events: { endpoint: `${this.url}/events`, secret: BACKEND_SECRET, timeout: '3s', max_backoff: '500ms', vacated_delay: '500ms' },
    };
  }
}

/** Runs a script of php/ with parameters and gives what it wrote, a line each. */
export async function runPhp(script, parameters, limit = 60_000) {
  const child = spawn(PHP, [file(`php/${script}`), ...parameters], { stdio: ['ignore', 'pipe', 'pipe'] });
  const kill = setTimeout(() => child.kill('SIGKILL'), limit);
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk) => (out += chunk));
  child.stderr.on('data', (chunk) => (err += chunk));
  const [code, signal] = await once(child, 'close');
  clearTimeout(kill);
  if (code !== 0) throw new Error(`php ended with ${code ?? signal}: ${err}${out}`);
  return out.trim().split('\n');
}
