// The fault proxy does what it says: a test that relies on a cut must be able to rely on the cut.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { FaultProxy } from './fault_proxy.mjs';
import { until } from './until.mjs';

let server, proxy;
const accepted = [];

before(async () => {
  server = net.createServer({ allowHalfOpen: true }, (socket) => accepted.push(observed(socket)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy = await FaultProxy.start(server.address().port);
});
after(async () => {
  await proxy.stop();
  for (const end of accepted) end.socket.destroy();
  server.close();
});

function observed(socket) {
  const end = { socket, received: '', ended: false, error: null };
  socket.on('data', (chunk) => (end.received += chunk));
  socket.on('end', () => (end.ended = true));
  socket.on('error', ({ code }) => (end.error = code));
  return end;
}

/** A link through the proxy that has passed a word both ways: its two ends. */
async function link() {
  const near = observed(net.connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true }));
  const number = accepted.length;
  near.socket.write('ping');
  const far = await until('the far end', () => accepted[number]);
  await until('ping', () => far.received === 'ping');
  far.socket.write('pong');
  await until('pong', () => near.received === 'pong');
  return { near, far };
}

test('reset reaches both ends as a reset', async () => {
  const { near, far } = await link();
  proxy.reset();
  await until('two resets', () => near.error === 'ECONNRESET' && far.error === 'ECONNRESET');
});

test('finish reaches both ends as an end of stream', async () => {
  const { near, far } = await link();
  proxy.finish();
  await until('two ends', () => near.ended && far.ended);
  assert.deepEqual([near.error, far.error], [null, null]);
  near.socket.destroy();
});

test('after swallow neither end hears of the other, not even its death', async () => {
  const { near, far } = await link();
  proxy.swallow();
  near.socket.write('lost');
  far.socket.write('lost');
  near.socket.resetAndDestroy();
  const witness = await link(); // proves that the proxy had time to pass things on
  assert.deepEqual([near.received, far.received, far.ended, far.error], ['pong', 'ping', false, null]);
  far.socket.destroy();
  witness.near.socket.destroy();
});

test('tear lets exactly so many bytes pass', async () => {
  const { near, far } = await link();
  proxy.tear(3);
  far.socket.write('abcdef');
  // Node reports a reset that comes right after data as an end of stream.
  await until('the link is gone', () => (near.error || near.ended) && far.error);
  assert.equal(near.received, 'pongabc');
});

test('stall holds back what the server says until resume', async () => {
  const { near, far } = await link();
  proxy.stall();
  far.socket.write('later');
  near.socket.write('+');
  await until('the other direction flows', () => far.received === 'ping+');
  assert.equal(near.received, 'pong');
  proxy.resume();
  await until('it flows again', () => near.received === 'ponglater');
  near.socket.destroy();
});

test('refuse resets attempts until it is taken back', async () => {
  proxy.refuse();
  const refused = observed(net.connect({ port: proxy.port, host: '127.0.0.1' }));
  await until('a reset', () => refused.error === 'ECONNRESET');
  proxy.refuse(false);
  const { near } = await link();
  near.socket.destroy();
});

test('what begins with something forbidden is reset, with something held hears nothing', async () => {
  Object.assign(proxy, { forbids: /^GET/, holds: /^PUT/ });
  const [reset, held] = ['GET', 'PUT'].map((word) => {
    const near = observed(net.connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true }));
    near.socket.write(word);
    return near;
  });
  await until('a reset', () => reset.error === 'ECONNRESET');
  const far = await until('the far end', () => accepted.find(({ received }) => received === 'PUT'));
  far.socket.write('an answer');
  const { near, far: end } = await link(); // proves that the proxy had time to pass things on
  assert.deepEqual([held.received, held.error, held.ended], ['', null, false]);
  Object.assign(proxy, { forbids: null, holds: null });
  for (const { socket } of [held, far, near, end]) socket.destroy();
});
