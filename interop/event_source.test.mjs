// The browser's own EventSource in headless Chromium, from another origin: no library, no code of ours.
//
// EventSource reconnects by itself and sends the id of the last event; all a page must do is listen. It
// cannot notice a silent link, so the cuts are those that end one: reset, torn event, end of stream.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { servePage, startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { settings, startLongwire } from './longwire.mjs';
import { assertContiguous, assertExactlyOnce, publishThroughCuts } from './scenario.mjs';
import { until } from './until.mjs';

let site, stranger, longwire, proxy, browser, page;

before(async () => {
  [site, stranger] = [await servePage(), await servePage()];
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

/** A page with `listen(url)`: everything that EventSource tells goes into `window.seen`, nothing is filtered. */
async function openPage({ origin }) {
  const opened = await browser.newPage();
  await opened.goto(origin);
  await opened.evaluate(() => {
    window.listen = (url) => {
      window.seen?.source.close();
      const source = new EventSource(url);
      const seen = { source, opens: 0, errors: 0, messages: [], ids: [], subscribed: [], recovered: [], joins: [] };
      source.onopen = () => (seen.opens += 1);
      source.onerror = () => (seen.errors += 1);
      source.onmessage = ({ data, lastEventId }) => {
        seen.messages.push(JSON.parse(data));
        seen.ids.push(lastEventId);
      };
      source.addEventListener('subscribed', ({ data }) => seen.subscribed.push(JSON.parse(data)));
      source.addEventListener('recovered', ({ data }) => seen.recovered.push(JSON.parse(data)));
      source.addEventListener('join', ({ data }) => seen.joins.push(JSON.parse(data)));
      window.seen = seen;
    };
  });
  return opened;
}

async function listen(opened, channels, base = proxy.url) {
  await opened.evaluate((url) => listen(url), `${base}/sse?channels=${channels}`);
}

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

describe('EventSource in Chromium', () => {
  test('receives publications of several channels', async () => {
    await listen(page, 'one,two');
    const [{ client, channels }] = await seenAtLeast('subscribed', 1);
    assert.match(client, /^[0-9a-f-]{36}$/);
    assert.deepEqual(Object.keys(channels).sort(), ['one', 'two']);
    await longwire.call('publish', { channel: 'one', data: { text: 'eins \u{1f4e8}\nzwei' } });
    await longwire.call('publish', { channel: 'two', data: 'zwei' });
    assert.deepEqual(await seenAtLeast('messages', 2), [
      { channel: 'one', data: { text: 'eins \u{1f4e8}\nzwei' }, offset: 1 },
      { channel: 'two', data: 'zwei', offset: 1 },
    ]);
    const ids = await seen('ids');
    assert.ok(ids.every((id) => id !== '') && ids[0] !== ids[1], `ids: ${ids}`);
  });

  test('is in presence while it listens, and leaves it when it is closed', async () => {
    await listen(page, 'here');
    const [{ client }] = await seenAtLeast('subscribed', 1);
    const { presence } = await longwire.call('presence', { channel: 'here' });
    assert.deepEqual(Object.keys(presence), [client]);
    await page.evaluate(() => window.seen.source.close());
    await until('the stream has left presence', async () => (await longwire.call('presence_stats', { channel: 'here' })).num_clients === 0);
  });

  test('after a cut both channels go on where they stopped', async () => {
    await listen(page, 'left,right');
    await seenAtLeast('subscribed', 1);
    for (const channel of ['left', 'right']) await longwire.call('publish', { channel, data: 1 });
    await seenAtLeast('messages', 2);
    proxy.refuse();
    proxy.reset();
    for (const channel of ['left', 'right', 'left']) await longwire.call('publish', { channel, data: 2 });
    proxy.refuse(false);
    const [{ recovered, channels }] = await seenAtLeast('recovered', 1, 15_000);
    assert.equal(recovered, true);
    assert.deepEqual(channels, { left: { recovered: true, publications: 2 }, right: { recovered: true, publications: 1 } });
    const messages = await seenAtLeast('messages', 5);
    const offsets = (wanted) => messages.filter(({ channel }) => channel === wanted).map(({ offset }) => offset);
    assert.deepEqual([offsets('left'), offsets('right')], [[1, 2, 3], [1, 2]]);
  });

  test('through 20 cuts every one of 2000 messages arrives exactly once and in order', { timeout: 180_000 }, async () => {
    await listen(page, 'cuts');
    await seenAtLeast('subscribed', 1);
    const faults = [() => proxy.reset(), () => proxy.tear(100), () => proxy.finish()];
    await publishThroughCuts({
      longwire,
      channel: 'cuts',
      cut: (round) => faults[round % faults.length](),
      isBack: (round) => seenAtLeast('recovered', round + 1, 15_000),
    });
    const messages = await seenAtLeast('messages', 2000, 10_000);
    assertExactlyOnce(messages.map(({ data }) => data));
    assertContiguous(messages.map(({ offset }) => offset));
    const returns = await seen('recovered');
    assert.equal(returns.length, 20);
    assert.ok(returns.every(({ recovered }) => recovered));
    assert.equal((await seen('subscribed')).length, 1);
  });

  test('a page that missed more than history keeps is told so, and given nothing old', async () => {
    await listen(page, 'small:d');
    await seenAtLeast('subscribed', 1);
    await longwire.call('publish', { channel: 'small:d', data: 1 });
    await seenAtLeast('messages', 1);
    proxy.refuse();
    proxy.reset();
    for (let n = 2; n <= 21; n += 1) await longwire.call('publish', { channel: 'small:d', data: n });
    proxy.refuse(false);
    const [{ recovered, channels }] = await seenAtLeast('recovered', 1, 15_000);
    const { epoch } = await longwire.call('history', { channel: 'small:d' });
    assert.deepEqual([recovered, channels], [false, { 'small:d': { recovered: false, offset: 21, epoch } }]);
    await longwire.call('publish', { channel: 'small:d', data: 22 });
    await seenAtLeast('messages', 2);
    assert.deepEqual((await seen('messages')).map(({ data }) => data), [1, 22]);
  });

  test('a page of an origin that is not allowed receives nothing', async () => {
    const foreign = await openPage(stranger);
    await listen(foreign, 'one', longwire.url);
    await until('an error in the foreign page', () => foreign.evaluate(() => window.seen.errors > 0));
    assert.deepEqual(await foreign.evaluate(() => [window.seen.opens, window.seen.subscribed]), [0, []]);
    await foreign.close();
  });

  test('a channel that is not allowed is refused with an HTTP error', async () => {
    const answer = async (query) => {
      const response = await fetch(`${longwire.url}/sse${query}`);
      return { status: response.status, text: await response.text() };
    };
    const denied = await answer('?channels=closed:x');
    assert.deepEqual([denied.status, JSON.parse(denied.text).error.code], [403, 103]);
    const unknown = await answer('?channels=nowhere:x');
    assert.ok(unknown.status >= 400 && unknown.status < 500, `it was answered ${unknown.status}`);
    assert.equal(JSON.parse(unknown.text).error.code, 102);
    for (const query of ['?channels=a,a', '?channels=a&since=nonsense']) assert.equal((await answer(query)).status, 400, query);
  });
});
