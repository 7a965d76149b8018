// One client's life in Chromium, WebSocket to SSE to long-poll and back, under a stream of publications: the page
// is examples/thinkphp-chat/public/longwire.js as it stands, the ways are closed one after the other by a proxy.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { servePage, startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { settings, startLongwire } from './longwire.mjs';
import { assertContiguous, assertExactlyOnce } from './scenario.mjs';
import { until } from './until.mjs';

const SCRIPTS = ['longwire.js', 'carriers.js'].map((name) => fileURLToPath(new URL(`../examples/thinkphp-chat/public/${name}`, import.meta.url)));
const PER_STAGE = 300;
const CUTS_PER_STAGE = 4;

let site, longwire, proxy, browser, page;
before(async () => {
  site = await servePage([], SCRIPTS);
  longwire = await startLongwire(settings({ server: { allowed_origins: [site.origin], drain_over: '1s', drain_deadline: '3s' } }));
  proxy = await FaultProxy.start(longwire.port);
  browser = await startChromium();
  page = await browser.newPage();
  await page.goto(site.origin);
});
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await longwire?.stop();
  site?.stop();
});

const seen = (name) => page.evaluate((name) => window.seen[name], name);

describe('one client over WebSocket, SSE and long-poll', () => {
  test('hears everything once and in order, whatever way is left', { timeout: 240_000 }, async () => {
    await page.evaluate(async (url) => {
      const { connect } = await import('/longwire.js');
      const seen = (window.seen = { messages: [], states: [], lost: 0, clients: [] });
      const heard = (message) => {
        if (message.client) seen.clients.push(message.client);
        if (message.recovered === false) seen.lost += 1;
        if (message.channel && message.data) seen.messages.push({ n: message.data.n, offset: message.offset });
      };
      const changed = (state, kind) => seen.states.push(`${state} ${kind}`);
      connect({ url, query: { client: 'one-life', channels: 'life' }, heard, changed });
    }, proxy.url);

    const isOpen = (kind) => until(async () => `it is connected by ${kind}; ${JSON.stringify(await seen('states'))}`, async () => (await seen('states')).at(-1) === `open ${kind}`, 60_000);
    let published = 0;
    // A proxy that knows no upgrades; one that collects an answer until it ends, which SSE never does; one that is gone.
    const stages = [
      ['websocket', /^GET \/ws/, null],
      ['sse', /^GET \/ws/, /^GET \/sse/],
      ['poll', /^GET \/poll/, null],
      ['websocket', null, null],
    ];
    await isOpen('websocket');
    for (const [kind, forbids, holds] of stages) {
      await isOpen(kind);
      const faults = [() => proxy.reset(), () => proxy.tear(150), () => proxy.finish()];
      for (let n = 1; n <= PER_STAGE; n += 1) {
        published += 1;
        await longwire.call('publish', { channel: 'life', data: { n: published } });
        if (n % Math.floor(PER_STAGE / (CUTS_PER_STAGE + 1)) !== 0) continue;
        const before = (await seen('states')).length;
        faults[n % faults.length]();
        // A cut between two long-polls is one that nobody notices.
        if (kind !== 'poll') await until('the cut is noticed', async () => (await seen('states')).length > before, 20_000);
      }
      Object.assign(proxy, { forbids, holds });
      proxy.reset();
      // Publications go on while it looks for another way.
      for (let n = 0; n < 20; n += 1) await longwire.call('publish', { channel: 'life', data: { n: (published += 1) } });
    }
    await until(async () => `${published} messages; ${(await seen('messages')).length} came`, async () => (await seen('messages')).length >= published, 60_000);
    const messages = await seen('messages');
    assertExactlyOnce(messages, published);
    assertContiguous(messages.map(({ offset }) => offset));
    assert.equal(await seen('lost'), 0, 'it was told that something is lost');
    const kinds = [...new Set((await seen('states')).filter((state) => state.startsWith('open')))];
    assert.deepEqual(kinds, ['open websocket', 'open sse', 'open poll'], 'all three ways were gone');
  });
});
