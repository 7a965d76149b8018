// centrifuge-js from npm, unmodified, as its browser bundle in headless Chromium, from another origin.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { servePage, startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { settings, startLongwire } from './longwire.mjs';
import { assertContiguous, assertExactlyOnce, publishThroughCuts } from './scenario.mjs';
import { until } from './until.mjs';

const BUNDLE = fileURLToPath(new URL('./node_modules/centrifuge/dist/centrifuge.js', import.meta.url));

let site, stranger, longwire, proxy, browser, page;

before(async () => {
  [site, stranger] = [await servePage([BUNDLE]), await servePage([BUNDLE])];
  longwire = await startLongwire(settings({ server: { allowed_origins: [site.origin], drain_over: '1s', drain_deadline: '3s' } }));
  proxy = await FaultProxy.start(longwire.port);
  browser = await startChromium();
  page = await openPage(site);
});
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await longwire?.stop();
  site?.stop();
  stranger?.stop();
});

/** A page with `start(url, channel)`: one client, one subscription, everything that happened in `window.seen`. */
async function openPage({ origin }) {
  const opened = await browser.newPage();
  await opened.goto(origin);
  await opened.evaluate(() => {
    window.start = (url, channel) => {
      const client = new Centrifuge(url, { minReconnectDelay: 20, maxReconnectDelay: 200, maxServerPingDelay: 500 });
      const subscription = client.newSubscription(channel, { joinLeave: true });
      const seen = { connecting: [], connected: [], disconnected: [], errors: [], subscribed: [], publications: [], joins: [] };
      client.on('connecting', ({ code }) => seen.connecting.push(code));
      client.on('connected', ({ client }) => seen.connected.push(client));
      client.on('disconnected', ({ code }) => seen.disconnected.push(code));
      client.on('error', ({ error }) => seen.errors.push(error.message));
      subscription.on('subscribed', ({ wasRecovering, recovered, streamPosition }) => seen.subscribed.push({ wasRecovering, recovered, offset: streamPosition.offset }));
      subscription.on('publication', ({ data, offset }) => seen.publications.push({ data, offset }));
      subscription.on('join', ({ info }) => seen.joins.push(info.client));
      subscription.subscribe();
      client.connect();
      window.seen?.client.disconnect();
      window.seen = { ...seen, client, subscription };
    };
  });
  return opened;
}

async function start(opened, channel, url = proxy.url) {
  await opened.evaluate(([url, channel]) => start(url, channel), [`${url.replace('http', 'ws')}/connection/websocket`, channel]);
}

/** What the page noted under `name`. */
function seen(name) {
  return page.evaluate((name) => window.seen[name], name);
}

function seenAtLeast(name, count, limit) {
  return until(
    `${count} ${name} in the page`,
    async () => {
      const noted = await seen(name);
      return noted.length >= count && noted;
    },
    limit,
  );
}

describe('centrifuge-js in Chromium', () => {
  test('connects, subscribes, publishes, lists presence and reads history', async () => {
    await start(page, 'browser');
    await seenAtLeast('subscribed', 1);
    await page.evaluate(() => window.seen.subscription.publish({ text: 'from the browser \u{1f310}' }));
    const [publication] = await seenAtLeast('publications', 1);
    assert.deepEqual(publication, { data: { text: 'from the browser \u{1f310}' }, offset: 1 });
    const [client] = await seen('connected');
    const { presence, stats, history } = await page.evaluate(async () => {
      const { subscription } = window.seen;
      return { presence: await subscription.presence(), stats: await subscription.presenceStats(), history: await subscription.history({ limit: 10 }) };
    });
    assert.deepEqual(Object.keys(presence.clients), [client]);
    assert.deepEqual(stats, { numClients: 1, numUsers: 1 });
    assert.deepEqual(history.publications.map(({ data }) => data.text), ['from the browser \u{1f310}']);
    await seenAtLeast('joins', 1);
  });

  test('through 20 cuts every one of 2000 messages arrives exactly once and in order', { timeout: 180_000 }, async () => {
    await start(page, 'cuts');
    await seenAtLeast('subscribed', 1);
    const faults = [() => proxy.reset(), () => proxy.swallow(), () => proxy.tear(100), () => proxy.finish()];
    await publishThroughCuts({
      longwire,
      channel: 'cuts',
      cut: (round) => faults[round % faults.length](),
      isBack: (round) => seenAtLeast('subscribed', round + 2, 15_000),
    });
    const publications = await seenAtLeast('publications', 2000, 10_000);
    assertExactlyOnce(publications.map(({ data }) => data));
    assertContiguous(publications.map(({ offset }) => offset));
    const returns = (await seen('subscribed')).slice(1);
    assert.equal(returns.length, 20);
    assert.ok(returns.every(({ wasRecovering, recovered }) => wasRecovering && recovered));
  });

  test('a page that missed more than history keeps is told so', async () => {
    await start(page, 'small:c');
    await seenAtLeast('subscribed', 1);
    proxy.refuse();
    proxy.reset();
    await seenAtLeast('connecting', 2);
    for (let n = 1; n <= 20; n += 1) await longwire.call('publish', { channel: 'small:c', data: { n } });
    proxy.refuse(false);
    const returns = await seenAtLeast('subscribed', 2, 10_000);
    assert.deepEqual(returns[1], { wasRecovering: true, recovered: false, offset: 20 });
    assert.deepEqual(await seen('publications'), []);
  });

  test('a page of an origin that is not allowed cannot connect', async () => {
    const foreign = await openPage(stranger);
    await start(foreign, 'browser', longwire.url);
    await until('an error in the foreign page', () => foreign.evaluate(() => window.seen.errors.length > 0));
    assert.deepEqual(await foreign.evaluate(() => window.seen.connected), []);
    await foreign.close();
  });
});
