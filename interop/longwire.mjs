// Starts and ends the longwire under test, and speaks to it as a backend would.
//
// The program is the one that LONGWIRE_BIN names; every server gets a free loopback port, a configuration
// file of its own and is ended by its process id. Tests talk to clients, not to this; only what is said over
// the HTTP API and what stands in the log is seen from here.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './until.mjs';

export const API_KEY = 'interop-api-key';
export const HMAC_SECRET = 'interop-secret-of-more-than-thirty-two-bytes';

/** Options of a channel in which clients may do everything and nothing is lost. */
export const OPEN_CHANNEL = {
  presence: true,
  join_leave: true,
  history_size: 3000,
  history_ttl: '300s',
  force_recovery: true,
  allow_subscribe_for_client: true,
  allow_subscribe_for_anonymous: true,
  allow_publish_for_client: true,
  allow_publish_for_anonymous: true,
  allow_presence_for_client: true,
  allow_presence_for_anonymous: true,
  allow_history_for_client: true,
  allow_history_for_anonymous: true,
};

/** A quick server that anybody may use; `changes` are merged into it section by section. */
export function settings(changes = {}) {
  const base = {
    server: { drain_over: '1s', drain_deadline: '3s' },
    heartbeat: { interval: '2s', timeout: '1s' },
    client: { allow_anonymous: true },
    auth: { hmac_secret: HMAC_SECRET },
    api: { key: API_KEY },
    event_stream: { retry: '100ms' },
    channel: OPEN_CHANNEL,
    namespaces: { small: { ...OPEN_CHANNEL, history_size: 5 }, closed: { presence: true, history_size: 5, history_ttl: '60s' }, bare: { allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true } },
  };
  for (const [section, values] of Object.entries(changes)) base[section] = { ...base[section], ...values };
  return base;
}

/** Starts `longwire serve` with a configuration, on a free port if none is given. */
export async function startLongwire(configuration = settings(), port = undefined) {
  const directory = await mkdtemp(join(tmpdir(), 'longwire-interop-'));
  port ??= await freePort();
  const file = join(directory, 'longwire.toml');
  const server = { data_dir: join(directory, 'data'), ...configuration.server, listen: [`127.0.0.1:${port}`] };
  await writeFile(file, toml({ ...configuration, server }));
  return running(['serve', '--config', file], port, () => rm(directory, { recursive: true, force: true }));
}

/** Starts `longwire demo` on a port that is free, with quick heartbeats. */
export async function startDemo() {
  const port = await freePort();
  const flags = { 'server.listen': `127.0.0.1:${port}`, 'heartbeat.interval': '2s', 'heartbeat.timeout': '1s', 'server.drain-over': '1s' };
  return running(['demo', ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])], port, () => {});
}

async function running(parameters, port, cleanUp) {
  const program = process.env.LONGWIRE_BIN;
  assert.ok(program, 'LONGWIRE_BIN must name the longwire program');
  const child = spawn(program, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
  const longwire = new Longwire(child, port, cleanUp);
  try {
    await until('the server answers /health', () => longwire.isHealthy(), 10_000);
  } catch (error) {
    child.kill('SIGKILL');
    throw new Error(`${error.message}; it said:\n${longwire.log}`);
  }
  return longwire;
}

class Longwire {
  /** Everything the server wrote so far. */
  log = '';
  #child;
  #exit;
  #cleanUp;

  constructor(child, port, cleanUp) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.#child = child;
    this.#cleanUp = cleanUp;
    this.#exit = once(child, 'exit');
    // Whatever becomes of the test, its server does not outlive it.
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (this.log += chunk));
  }

  async isHealthy() {
    if (this.#child.exitCode !== null) throw new Error(`it ended with code ${this.#child.exitCode}`);
    const answer = await fetch(`${this.url}/health`).catch(() => null);
    return answer?.status === 200;
  }

  /** Posts to the HTTP API. Gives the status, the text and, if it is JSON, the body. */
  async post(method, value, headers = { 'X-API-Key': API_KEY }) {
    const answer = await fetch(`${this.url}/api/${method}`, { method: 'POST', headers, body: typeof value === 'string' ? value : JSON.stringify(value) });
    const text = await answer.text();
    const isJson = answer.headers.get('content-type')?.startsWith('application/json');
    return { status: answer.status, text, body: isJson ? JSON.parse(text) : undefined };
  }

  /** Calls a method of the HTTP API that must succeed, and gives its result. */
  async call(method, value) {
    const { status, body, text } = await this.post(method, value);
    assert.equal(status, 200, `${method}: ${text}`);
    assert.ok(body.result, `${method}: ${text}`);
    return body.result;
  }

  /** Ends the server as a crash would: it is told nothing and can save nothing. */
  async kill() {
    this.#child.kill('SIGKILL');
    await this.#exit;
    await this.#cleanUp();
  }

  /** Ends the server as an operator would; it must go in time and without complaint. */
  async stop() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill('SIGTERM');
      const force = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
      await this.#exit;
      clearTimeout(force);
    }
    await this.#cleanUp();
    assert.equal(this.#child.exitCode, 0, `the server ended with code ${this.#child.exitCode}, signal ${this.#child.signalCode}; it said:\n${this.log}`);
  }
}

/** Makes an HS256 token (RFC 7519) with the secret that `settings` configures. */
export function token(claims, secret = HMAC_SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** Unix time in seconds, `offset` seconds from this moment. */
export function inSeconds(offset) {
  return Math.floor(Date.now() / 1000) + offset;
}

const given = new Set();

/**
 * A loopback port that nobody listens on. It is below those that systems give to outgoing connections, any of which
 * could have it before its server starts, and drawn, so that test files that run side by side do not meet.
 */
export async function freePort() {
  for (;;) {
    const port = 11_000 + Math.floor(Math.random() * 21_000);
    if (given.has(port)) continue;
    given.add(port);
    const server = net.createServer().listen(port, '127.0.0.1');
    const isFree = await once(server, 'listening').then(() => true, () => false);
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}

// Strings, numbers, booleans and arrays of them are written alike in TOML and JSON.
function toml(sections, prefix = '') {
  const lines = [];
  for (const [name, values] of Object.entries(sections)) {
    const isTable = (value) => typeof value === 'object' && !Array.isArray(value);
    const plain = Object.entries(values).filter(([, value]) => !isTable(value));
    const tables = Object.fromEntries(Object.entries(values).filter(([, value]) => isTable(value)));
    if (plain.length > 0) lines.push(`[${prefix}${name}]`, ...plain.map(([key, value]) => `${key} = ${JSON.stringify(value)}`), '');
    lines.push(toml(tables, `${prefix}${name}.`));
  }
  return lines.join('\n');
}
