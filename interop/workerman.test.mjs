// The heartbeat of Workerman's manual, to the letter and in real time: a page says `Hello!` every ten seconds and stays;
// who falls silent is closed after thirty, with a cause, and the backend is told. The server says nothing of its own.

import assert from 'node:assert/strict';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { Backend } from './backend.mjs';
import { servePage, startChromium } from './chromium.mjs';
import { freePort, settings, startLongwire } from './longwire.mjs';
import { until } from './until.mjs';

const IDLE = 30_000;
const BEAT = 10_000;

const SCRIPTS = ['longwire.js', 'carriers.js'].map((name) => fileURLToPath(new URL(`../examples/thinkphp-chat/public/${name}`, import.meta.url)));

let backend, longwire, site, browser, web, pinged, tcp;
before(async () => {
  const nothing = () => [200, '{}'];
  backend = await Backend.start({ '/open': ({ name }) => [200, JSON.stringify({ data: { hello: name } })], '/message': nothing, '/close': nothing });
  site = await servePage([], SCRIPTS);
  [web, pinged, tcp] = [await freePort(), await freePort(), await freePort()];
  const quiet = { idle_timeout: '30s', ping_interval: '0s', heartbeat_messages: ['Hello!'] };
  const webhook = Object.fromEntries(['open', 'message', 'close'].map((name) => [name, { endpoint: `${backend.url}/${name}`, timeout: '3s' }]));
  longwire = await startLongwire(settings({
    server: { allowed_origins: [site.origin], drain_over: '1s', drain_deadline: '3s' },
    listeners: { pinged: { address: `127.0.0.1:${pinged}`, heartbeat_messages: ['ping'], heartbeat_answer: '{"type":"pong"}' }, page: { address: `127.0.0.1:${web}`, ...quiet }, devices: { address: `127.0.0.1:${tcp}`, protocol: 'tcp', ...quiet } },
    webhook,
  }));
  browser = await startChromium();
});
after(async () => {
  await browser?.close();
  await longwire?.stop();
  backend?.stop();
  site?.stop();
});

/** What `close` was told of a connection. */
const closeOf = (client) => backend.asked.find(([path, body]) => path === '/close' && body.client === client)?.[1];

/** Both ends of the connection must say the same. */
async function isClosedInTime(client, after) {
  assert.ok(after >= IDLE && after <= IDLE + 2000, `closed ${Math.round(after)} ms after the last sign of life`);
  const { reason, category, initiator } = await until(`close of ${client}`, () => closeOf(client));
  assert.deepEqual([reason, category, initiator], ['NoHeartbeat', 'network', 'server']);
  const line = longwire.log.split('\n').find((line) => line.includes(client) && line.includes('connection closed'));
  assert.match(line, /NoHeartbeat/);
}

describe('the heartbeat of Workerman', { concurrency: true, timeout: 120_000 }, () => {
  test('a page that says Hello! every ten seconds stays, one that stops is closed within 30 to 32 s', async () => {
    const page = await browser.newPage();
    await page.goto(site.origin);
    const began = performance.now();
    const [stays, stops] = await page.evaluate(async ([url, beat]) => {
      window.pages = await Promise.all(['stays', 'stops'].map((name) => new Promise((resolve) => {
        const one = { socket: new WebSocket(`${url}/ws?page=${name}`), heard: [], closed: null };
        one.socket.onmessage = ({ data }) => {
          one.heard.push(JSON.parse(data));
          if (one.heard.length === 1) resolve(one);
        };
        one.socket.onclose = () => (one.closed = { after: performance.now() - one.saidAt });
      })));
      const [stays, stops] = window.pages;
      stays.timer = setInterval(() => stays.socket.send('Hello!'), beat);
      // One Hello! in time, then nothing.
      setTimeout(() => {
        stops.saidAt = performance.now();
        stops.socket.send('Hello!');
      }, beat);
      return window.pages.map(({ heard }) => heard[0].client);
    }, [`ws://127.0.0.1:${web}`, BEAT]);
    const { after } = await until('the silent page is closed', () => page.evaluate(() => window.pages[1].closed), BEAT + IDLE + 5000);
    await isClosedInTime(stops, after);
    await until('a minute has passed', () => performance.now() - began > 65_000, 70_000);
    assert.deepEqual(await page.evaluate(() => [window.pages[0].closed, window.pages[0].socket.readyState]), [null, 1]);
    assert.equal(closeOf(stays), undefined);
    // Nothing was said to them but the welcome and what `open` answered, and nothing came to the backend.
    assert.equal(await page.evaluate(() => window.pages[0].heard.length), 2);
    assert.deepEqual(backend.asked.filter(([path]) => path === '/message'), []);
    await page.close();
  });

  test('a quiet page over SSE keeps its line by its own pings, and knows that it lives', async () => {
    const page = await browser.newPage();
    const asked = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    await page.goto(site.origin);
    await page.evaluate(async (url) => {
      const { connect } = await import('/longwire.js');
      window.states = [];
      connect({ url, query: { client: 'quiet' }, kinds: ['sse'], heard() {}, changed: (state) => window.states.push(state) });
    }, `http://127.0.0.1:${pinged}`);
    const began = performance.now();
    await until('three quarters of a minute have passed', () => performance.now() - began > 45_000, 50_000);
    assert.deepEqual(await page.evaluate(() => window.states), ['open']);
    assert.deepEqual([asked.filter((path) => path === '/sse').length, asked.filter((path) => path === '/send').length], [1, 4]);
    assert.deepEqual(backend.asked.filter(([path]) => path === '/message'), []);
    await page.close();
  });

  test('a program that says nothing at all is closed within 30 to 32 s', async () => {
    // The request is the last that the server hears of it.
    const silentSince = performance.now();
    const socket = new WebSocket(`ws://127.0.0.1:${web}/ws?page=mute`);
    let client, closedAt;
    socket.on('message', (text) => (client ??= JSON.parse(text).client));
    socket.on('close', () => (closedAt = performance.now()));
    await until('it is closed', () => closedAt, IDLE + 5000);
    await isClosedInTime(client, closedAt - silentSince);
  });

  test('so is a device on TCP; any byte counts as a sign of life', async () => {
    const socket = net.connect(tcp, '127.0.0.1');
    let [closedAt, silentSince, said, got] = [null, 0, 0, ''];
    socket.on('data', (chunk) => (got += chunk));
    socket.on('close', () => (closedAt = performance.now()));
    socket.on('error', () => {});
    await until('the welcome', () => got.includes('"client"'));
    const { client } = JSON.parse(got.split('\n')[0]);
    // A packet in three parts, the last of which ends it ten seconds later.
    const parts = ['Hel', 'lo', '!\n'];
    const began = performance.now();
    await until('three parts', () => {
      if (performance.now() - began < said * BEAT) return false;
      silentSince = performance.now();
      socket.write(parts[said]);
      said += 1;
      return said === parts.length;
    }, 3 * BEAT);
    await until('it is closed', () => closedAt, IDLE + 5000);
    await isClosedInTime(client, closedAt - silentSince);
  });
});
