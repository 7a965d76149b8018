// The demo page as a visitor sees it, in headless Chromium, served by `longwire demo`.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { startDemo } from './longwire.mjs';
import { until } from './until.mjs';

const OUT = fileURLToPath(new URL('./out/', import.meta.url));

let longwire, proxy, browser, page;
const complaints = [];

before(async () => {
  await mkdir(OUT, { recursive: true });
  longwire = await startDemo();
  proxy = await FaultProxy.start(longwire.port);
  browser = await startChromium();
  page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => {
    // A cut stream is an error to the browser's console; anything else is one of the page.
    const isOfACut = /ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|WebSocket connection to/.test(message.text());
    if (message.type() === 'error' && !isOfACut) complaints.push(message.text());
  });
  await page.goto(proxy.url);
});
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await longwire?.stop();
});

/** The cards as they are shown: state, transport and values. */
function cards() {
  return page.evaluate(() =>
    [...document.querySelectorAll('.card')].map((card) => ({
      transport: card.dataset.transport,
      state: card.dataset.state,
      recoveredLines: card.querySelectorAll('.log .is-recovered').length,
      ...Object.fromEntries([...card.querySelectorAll('dd[data-value]')].map((value) => [value.dataset.value, value.textContent])),
    })),
  );
}

function allCards(what, condition, limit = 15_000) {
  return until(
    what,
    async () => {
      const shown = await cards();
      return shown.length > 0 && shown.every(condition) && shown;
    },
    limit,
  );
}

describe('the demo page', () => {
  test('opens with a WebSocket and an SSE connection that are live', async () => {
    const shown = await allCards('all cards are live', ({ state, client }) => state === 'live' && /^[0-9a-f-]{36}$/.test(client));
    assert.deepEqual(shown.map(({ transport }) => transport), ['websocket', 'sse']);
  });

  test('is served under a strict content security policy', async () => {
    const policy = (await fetch(longwire.url)).headers.get('content-security-policy');
    assert.match(policy, /default-src '(self|none)'/);
    assert.doesNotMatch(policy, /unsafe|\*/);
  });

  test('shows the curl line for its own address, and what the line publishes', async () => {
    const line = await page.textContent('#curl');
    assert.equal(line, `curl -d '{"channel":"demo","data":{"text":"hello"}}' ${proxy.url}/api/publish`);
    const [, data] = /-d '(.*)'/.exec(line);
    // curl sends this content type with -d.
    const answer = await longwire.post('publish', data, { 'Content-Type': 'application/x-www-form-urlencoded' });
    assert.equal(answer.body.result.offset, 1);
    await allCards('the message is shown', ({ messages, offset }) => messages === '1' && offset === '1');
  });

  test('publishes from its box', async () => {
    await page.fill('#text', 'from the box <b>&amp;</b>');
    await page.click('#publish .primary');
    await allCards('the message is shown', ({ messages }) => messages === '2');
    const lines = await page.$$eval('.log .message:last-child .text', (texts) => texts.map((text) => text.textContent));
    assert.deepEqual(lines, ['from the box <b>&amp;</b>', 'from the box <b>&amp;</b>']);
  });

  test('counts heartbeats of the WebSocket', async () => {
    await until('two heartbeats', async () => Number.parseInt((await cards())[0].heartbeats, 10) >= 2, 10_000);
  });

  test('cut in mid-traffic, every connection comes back with nothing missing', async () => {
    await page.click('#add-websocket');
    await page.click('#add-sse');
    await allCards('all cards are live', ({ state }) => state === 'live');
    await page.check('#stream');
    await allCards('traffic', ({ messages }) => Number(messages) >= 5);
    for (const button of await page.$$('.card .cut')) await button.click();
    await allCards('every card is back', ({ state, reconnects }) => state === 'live' && reconnects === '1');
    await page.click('#cut-all');
    await allCards('every card is back again', ({ state, reconnects }) => state === 'live' && reconnects === '2');
    await page.uncheck('#stream');
    const last = await until(
      'the traffic has ended',
      async () => {
        const offsets = (await cards()).map(({ offset }) => offset);
        const { offset } = await longwire.call('history', { channel: 'demo', limit: 0 });
        return offsets.every((seen) => Number(seen) === offset) && offset;
      },
      10_000,
    );
    const shown = await cards();
    assert.equal(shown.length, 4);
    for (const card of shown) {
      assert.deepEqual([card.missing, card.duplicated], ['0', '0'], JSON.stringify(card));
      assert.ok(Number(card.recovered) > 0 && card.recoveredLines > 0, `nothing was marked as recovered: ${JSON.stringify(card)}`);
    }
    await page.screenshot({ path: `${OUT}demo-after-cuts.png`, fullPage: true });
    // The first two saw the channel from its beginning.
    assert.deepEqual(shown.slice(0, 2).map(({ messages }) => Number(messages)), [last, last]);
  });

  test('says it when messages cannot be recovered', async () => {
    const lines = () => page.$$eval('.log .bad', (bad) => bad.map((line) => line.textContent));
    assert.deepEqual(await lines(), []);
    proxy.refuse();
    proxy.reset();
    await allCards('every card noticed', ({ state }) => state !== 'live');
    for (let n = 0; n < 3; n += 1) await longwire.call('publish', { channel: 'demo', data: { text: 'lost' } });
    await longwire.call('history_remove', { channel: 'demo' });
    proxy.refuse(false);
    const shown = await allCards('every card is back', ({ state }) => state === 'live', 30_000);
    assert.deepEqual(shown.map(({ missing }) => missing), ['3', '3', '3', '3']);
    assert.ok((await lines()).some((line) => line.includes('recovered: false')), 'a card says so in words');
  });

  test('a cut of nobody and a malformed cut do no harm', async () => {
    const clients = async () => (await cards()).map(({ client }) => client);
    const before = await clients();
    await fetch(`${longwire.url}/demo/cut`, { method: 'POST', body: '{"client":"00000000-0000-4000-8000-000000000000"}' });
    const { status } = await fetch(`${longwire.url}/demo/cut`, { method: 'POST', body: '{"client":' });
    assert.equal(status, 400);
    const { offset } = await longwire.call('publish', { channel: 'demo', data: { text: 'still here' } });
    await allCards('all cards show it', (card) => card.offset === String(offset));
    assert.deepEqual(await clients(), before);
  });

  test('looks as it should, wide and narrow, and the browser had nothing to complain about', async () => {
    await page.screenshot({ path: `${OUT}demo-wide.png`, fullPage: true });
    await page.setViewportSize({ width: 375, height: 812 });
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.screenshot({ path: `${OUT}demo-narrow-dark.png`, fullPage: true });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 375, 'nothing sticks out at 375 pixels');
    assert.deepEqual(complaints, []);
  });
});
