// One channel, every dialect: what centrifuge-js publishes @stomp/stompjs consumes, and back; an EventSource and the HTTP API
// see the same. And one queue for STOMP and the HTTP API.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Client } from '@stomp/stompjs';
import { Centrifuge } from 'centrifuge';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { startLongwire } from './longwire.mjs';
import { StompBench } from './stomp_cases.mjs';
import { stompSettings } from './stomp_ground.mjs';
import { until } from './until.mjs';

let longwire, bench, sdk, source;
before(async () => {
  longwire = await startLongwire(stompSettings());
  const url = `${longwire.url.replace('http', 'ws')}/stomp`;
  bench = new StompBench({ Client, url, webSocketFactory: (url) => new WebSocket(url, ['v12.stomp']) });
});
after(async () => {
  source?.close();
  sdk?.disconnect();
  await bench?.close();
  await longwire?.stop();
});

test('what one dialect publishes the others receive, once and in one order', { timeout: 60_000 }, async () => {
  const seen = { sdk: [], sse: [], stomp: [] };
  sdk = new Centrifuge(`${longwire.url.replace('http', 'ws')}/connection/websocket`, { websocket: WebSocket });
  const subscription = sdk.newSubscription('all');
  subscription.on('publication', ({ data }) => seen.sdk.push(data));
  subscription.subscribe();
  sdk.connect();
  await subscription.ready(10_000);

  source = new EventSource(`${longwire.url}/sse?channels=all`);
  let welcomed = false;
  source.addEventListener('subscribed', () => (welcomed = true));
  source.addEventListener('message', ({ data }) => seen.sse.push(JSON.parse(data).data));
  await until('the welcome', () => welcomed);

  const client = await bench.connected({ begin: (client) => client.subscribe('/topic/all', ({ body }) => seen.stomp.push(JSON.parse(body)), { receipt: 'sub' }) });
  await new Promise((resolve) => {
    client.watchForReceipt('ready', resolve);
    client.publish({ destination: '/topic/elsewhere', body: 'x', headers: { receipt: 'ready' } });
  });

  const expected = [];
  for (let n = 0; n < 30; n += 3) {
    await subscription.publish({ from: 'sdk', n });
    await new Promise((resolve) => {
      client.watchForReceipt(`r-${n}`, resolve);
      client.publish({ destination: '/topic/all', body: JSON.stringify({ from: 'stomp', n: n + 1 }), headers: { 'content-type': 'application/json', receipt: `r-${n}` } });
    });
    await longwire.call('publish', { channel: 'all', data: { from: 'api', n: n + 2 } });
    expected.push({ from: 'sdk', n }, { from: 'stomp', n: n + 1 }, { from: 'api', n: n + 2 });
  }
  for (const dialect of Object.keys(seen)) {
    await until(() => `${dialect}: ${JSON.stringify(seen[dialect])}`, () => seen[dialect].length >= 30, 10_000);
    assert.deepEqual(seen[dialect], expected, dialect);
  }
});

test('what STOMP publishes can be recovered by an SDK', { timeout: 30_000 }, async () => {
  const client = await bench.connected();
  const other = new Centrifuge(`${longwire.url.replace('http', 'ws')}/connection/websocket`, { websocket: WebSocket, minReconnectDelay: 20 });
  const subscription = other.newSubscription('back');
  const seen = [];
  subscription.on('publication', ({ data }) => seen.push(data));
  subscription.subscribe();
  other.connect();
  await subscription.ready(10_000);
  other.disconnect();
  for (let n = 0; n < 5; n += 1) {
    await new Promise((resolve) => {
      client.watchForReceipt(`b-${n}`, resolve);
      client.publish({ destination: '/topic/back', body: String(n), headers: { receipt: `b-${n}` } });
    });
  }
  other.connect();
  await until(() => JSON.stringify(seen), () => seen.length >= 5);
  assert.deepEqual(seen.map(String), ['0', '1', '2', '3', '4']);
  other.disconnect();
});

test('what the HTTP API puts into a queue STOMP takes, and back', { timeout: 30_000 }, async () => {
  const client = await bench.connected();
  await longwire.call('queue/publish', { queue: 'jobs', data: { n: 1 } });
  let message;
  client.subscribe('/queue/jobs', (given) => (message = given), { ack: 'client-individual', id: 'jobs' });
  await until('the message', () => message);
  assert.deepEqual(JSON.parse(message.body), { n: 1 });
  await new Promise((resolve) => {
    client.watchForReceipt('acked', resolve);
    message.ack({ receipt: 'acked' });
  });
  client.unsubscribe('jobs');
  await new Promise((resolve) => {
    client.watchForReceipt('sent', resolve);
    client.publish({ destination: '/queue/jobs', body: '{"n":2}', headers: { 'content-type': 'application/json', receipt: 'sent' } });
  });
  const { messages } = await longwire.call('queue/receive', { queue: 'jobs', wait: '5s' });
  assert.equal(messages.length, 1, JSON.stringify(messages));
});
