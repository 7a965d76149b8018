// Signs of life in real time, with a beat a second: who answers lives, who vanished is noticed in time.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { FaultProxy } from './fault_proxy.mjs';
import { settings, startLongwire } from './longwire.mjs';
import { until } from './until.mjs';

const INTERVAL = 1000;
const TIMEOUT = 500;
// The promise (interval and timeout, and a second for a busy machine).
const LIMIT = INTERVAL + TIMEOUT + 1000;

let longwire, proxy;

before(async () => {
  longwire = await startLongwire(settings({ heartbeat: { interval: `${INTERVAL}ms`, timeout: `${TIMEOUT}ms` } }));
  proxy = await FaultProxy.start(longwire.port);
});
after(async () => {
  await proxy?.stop();
  await longwire?.stop();
});

/** A client of which everything can be seen: connects, subscribes, and answers beats if `answers`. */
async function bareClient(port, channel, { answers }) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/connection/websocket`);
  const client = { socket, beats: [], id: null, isSubscribed: false };
  socket.on('error', () => {}); // a reset is what some of these tests are about; `close` follows
  socket.on('message', (text) => {
    for (const line of text.toString().trim().split('\n')) {
      const reply = JSON.parse(line);
      if (reply.connect) client.id = reply.connect.client;
      if (reply.subscribe) client.isSubscribed = true;
      if (line !== '{}') continue;
      client.beats.push(performance.now());
      if (answers) socket.send('{}');
    }
  });
  await once(socket, 'open');
  socket.send(`{"id":1,"connect":{}}\n${JSON.stringify({ id: 2, subscribe: { channel } })}`);
  await until('the bare client is subscribed', () => client.isSubscribed);
  return client;
}

async function presence(channel) {
  return Object.keys((await longwire.call('presence', { channel })).presence);
}

describe('heartbeats', { concurrency: true }, () => {
  test('a quiet client that answers lives over 20 intervals', { timeout: 60_000 }, async () => {
    const bare = await bareClient(longwire.port, 'quiet', { answers: true });
    const sdk = new Centrifuge(`ws://127.0.0.1:${longwire.port}/connection/websocket`, { websocket: WebSocket });
    let connects = 0;
    sdk.on('connected', () => (connects += 1));
    sdk.newSubscription('quiet').subscribe();
    sdk.connect();
    await until('21 beats', () => bare.beats.length >= 21, 25 * INTERVAL);
    assert.equal(bare.socket.readyState, WebSocket.OPEN);
    assert.equal(connects, 1);
    assert.equal((await presence('quiet')).length, 2);
    const gaps = bare.beats.slice(1).map((beat, i) => beat - bare.beats[i]);
    assert.ok(gaps.every((gap) => Math.abs(gap - INTERVAL) < INTERVAL / 2), `beats came after ${gaps.map(Math.round)} ms`);
    bare.socket.terminate();
    sdk.disconnect();
  });

  test('a peer that vanished is closed with NoHeartbeat and leaves presence', async () => {
    const client = await bareClient(proxy.port, 'vanished', { answers: true });
    const witness = await bareClient(longwire.port, 'vanished', { answers: true });
    await until('a first beat', () => client.beats.length > 0);
    assert.deepEqual((await presence('vanished')).sort(), [client.id, witness.id].sort());
    proxy.swallow();
    const since = performance.now();
    await until('the vanished client has left presence', async () => (await presence('vanished')).length === 1, LIMIT);
    const noticedAfter = performance.now() - since;
    assert.ok(noticedAfter > TIMEOUT - 100, `noticed after ${noticedAfter} ms, before anything could be known`);
    const line = await until('the log line', () => longwire.log.split('\n').find((line) => line.includes('NoHeartbeat') && line.includes(client.id)));
    assert.ok(line);
    witness.socket.terminate();
  });

  test('a client that is there but does not answer is closed in time', async () => {
    const client = await bareClient(longwire.port, 'mute', { answers: false });
    await until('the connection is closed', () => client.socket.readyState === WebSocket.CLOSED, INTERVAL + LIMIT);
    assert.equal(client.beats.length, 1, 'it was closed for the first unanswered beat');
    assert.deepEqual(await presence('mute'), []);
  });

  test('other words than an answer are a sign of life too', async () => {
    const client = await bareClient(longwire.port, 'chatty', { answers: false });
    let id = 10;
    const chatter = setInterval(() => client.socket.send(JSON.stringify({ id: (id += 1), presence: { channel: 'chatty' } })), TIMEOUT / 3);
    await until('five beats', () => client.beats.length >= 5, 7 * INTERVAL);
    clearInterval(chatter);
    assert.equal(client.socket.readyState, WebSocket.OPEN);
    client.socket.terminate();
  });

  test('a client that asks for the pings of WebSocket itself gets those, and no others', async () => {
    const open = async (port, autoPong) => {
      const socket = new WebSocket(`ws://127.0.0.1:${port}/connection/websocket?cf_ws_frame_ping_pong=true`, { autoPong });
      const client = { socket, pings: 0, said: [] };
      socket.on('error', () => {});
      socket.on('ping', () => (client.pings += 1));
      socket.on('message', (text) => client.said.push(...text.toString().trim().split('\n').map((line) => JSON.parse(line))));
      await once(socket, 'open');
      socket.send('{"id":1,"connect":{}}');
      return client;
    };
    const [answering, mute] = [await open(longwire.port, true), await open(longwire.port, false)];
    await until('five pings', () => answering.pings >= 5, 7 * INTERVAL);
    assert.equal(answering.socket.readyState, WebSocket.OPEN);
    assert.equal(answering.said.length, 1, JSON.stringify(answering.said));
    const { ping, pong } = answering.said[0].connect;
    assert.deepEqual([ping, pong], [undefined, undefined]);
    await until('who does not answer is closed', () => mute.socket.readyState === WebSocket.CLOSED, INTERVAL + LIMIT);
    answering.socket.terminate();
  });

  test('an SSE stream carries a comment at every beat', async () => {
    const stop = new AbortController();
    const { body } = await fetch(`${longwire.url}/sse?channels=beats`, { signal: stop.signal });
    let text = '';
    const reading = (async () => {
      for await (const chunk of body.pipeThrough(new TextDecoderStream())) text += chunk;
    })().catch((error) => assert.equal(error.name, 'AbortError'));
    const comments = () => text.split('\n').filter((line) => line.startsWith(':')).length;
    const before = comments();
    await until('three comments', () => comments() >= before + 3, 5 * INTERVAL);
    stop.abort();
    await reading;
    await until('the stream has left presence', async () => (await presence('beats')).length === 0, LIMIT);
  });
});
