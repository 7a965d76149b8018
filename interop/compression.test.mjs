// permessage-deflate (RFC 7692) as two independent implementations speak it: `ws` in Node and Chromium.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { startChromium } from './chromium.mjs';
import { settings, startLongwire } from './longwire.mjs';
import { until } from './until.mjs';

const LONG = 'a sentence that compresses well, '.repeat(500);

let longwire;

before(async () => {
  longwire = await startLongwire(settings({ websocket: { compression: true, compression_min_bytes: 100 } }));
});
after(() => longwire?.stop());

/** A connected and subscribed WebSocket without an SDK; `texts` are the messages it got. */
async function subscribed(options) {
  const socket = new WebSocket(`ws://127.0.0.1:${longwire.port}/connection/websocket`, options);
  socket.texts = [];
  socket.on('message', (data) => socket.texts.push(data.toString()));
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  socket.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"news"}}');
  await until('subscribed', () => socket.texts.some((text) => text.includes('"id":2')));
  return socket;
}

const data = (text) => JSON.parse(text).push?.pub?.data;

describe('compression', () => {
  test('compressed, uncompressed and small publications reach clients with and without it', async () => {
    const [deflated, plain] = [await subscribed({ threshold: 0 }), await subscribed({ perMessageDeflate: false })];
    assert.match(deflated.extensions, /permessage-deflate/);
    assert.equal(plain.extensions, '');
    const before = deflated._socket.bytesRead;
    for (const text of [LONG, 'short', LONG]) await longwire.call('publish', { channel: 'news', data: text });
    for (const socket of [deflated, plain]) {
      await until('three publications', () => socket.texts.filter(data).length === 3);
      assert.deepEqual(socket.texts.map(data).filter(Boolean), [LONG, 'short', LONG]);
    }
    const wire = deflated._socket.bytesRead - before;
    assert.ok(wire < LONG.length / 10, `${wire} bytes for two messages of ${LONG.length}`);
    for (const socket of [deflated, plain]) socket.terminate();
  });

  test('a compressed command is understood, and one that inflates past the limit closes with 1009', async () => {
    const socket = await subscribed({ threshold: 0 });
    socket.send(JSON.stringify({ id: 3, publish: { channel: 'news', data: LONG } }));
    await until('its own publication', () => socket.texts.map(data).includes(LONG));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.send(' '.repeat(10_000_000));
    assert.equal(await closed, 1009);
  });

  test('Chromium negotiates it and reads what is compressed', async () => {
    const browser = await startChromium();
    try {
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${longwire.port}/`);
      await page.evaluate((port) => {
        const socket = new WebSocket(`ws://127.0.0.1:${port}/connection/websocket`);
        window.texts = [];
        window.extensions = () => socket.extensions;
        socket.onmessage = ({ data }) => window.texts.push(data);
        socket.onopen = () => socket.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"news"}}');
      }, longwire.port);
      await page.waitForFunction(() => window.texts.join().includes('"id":2'));
      assert.match(await page.evaluate(() => window.extensions()), /permessage-deflate/);
      await longwire.call('publish', { channel: 'news', data: LONG });
      await page.waitForFunction((long) => window.texts.some((text) => JSON.parse(text).push?.pub?.data === long), LONG);
    } finally {
      await browser.close();
    }
  });
});
