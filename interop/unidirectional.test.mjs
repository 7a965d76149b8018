// The unidirectional transports with nothing but what a browser has: EventSource, WebSocket and fetch. And the same
// in Node with fetch and ws. The server speaks, the page listens: subscriptions come from the token and the backend.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { servePage, startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { OPEN_CHANNEL, settings, startLongwire, token } from './longwire.mjs';
import { until } from './until.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const TRANSPORTS = ['uni_websocket', 'uni_sse', 'uni_http_stream'];

/**
 * Opens a stream and notes every push, ping and end in `seen`. Runs in Node and in a page: it may only use what it is
 * given and what both have.
 */
function openStream(transport, url, request, { WebSocket, EventSource, fetch }) {
  const seen = { pushes: [], pings: 0, ended: null };
  const hear = (text) => {
    for (const line of text.split('\n').filter((line) => line !== '')) {
      if (line === '{}') seen.pings += 1;
      else seen.pushes.push(JSON.parse(line));
    }
  };
  const query = `cf_connect=${encodeURIComponent(JSON.stringify(request))}`;
  if (transport === 'uni_websocket') {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/connection/uni_websocket`);
    socket.onopen = () => socket.send(JSON.stringify(request));
    socket.onmessage = ({ data }) => hear(data);
    socket.onclose = ({ code, reason }) => (seen.ended = { code, reason });
    seen.close = () => socket.close();
  } else if (transport === 'uni_sse' && EventSource) {
    const source = new EventSource(`${url}/connection/uni_sse?${query}`);
    source.onmessage = ({ data }) => hear(data);
    source.onerror = () => {
      seen.ended ??= {};
      source.close();
    };
    seen.close = () => source.close();
  } else {
    const controller = new AbortController();
    const isSse = transport === 'uni_sse';
    const address = isSse ? `${url}/connection/uni_sse?${query}` : `${url}/connection/uni_http_stream`;
    const body = isSse ? {} : { method: 'POST', body: JSON.stringify(request) };
    fetch(address, { ...body, signal: controller.signal })
      .then(async (answer) => {
        seen.status = answer.status;
        seen.type = answer.headers.get('content-type');
        const reader = answer.body.getReader();
        const decoder = new TextDecoder('utf-8', { fatal: true });
        for (let rest = ''; ; ) {
          const { done, value } = await reader.read();
          if (done) break;
          const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
          rest = lines.pop();
          for (const line of lines) hear(isSse ? line.replace(/^data: ?/, '').trim() : line);
        }
      })
      .catch(() => {})
      .finally(() => (seen.ended = {}));
    seen.close = () => controller.abort();
  }
  return seen;
}

let site, longwire, proxy, browser;
before(async () => {
  site = await servePage();
  const server = { allowed_origins: [site.origin], drain_over: '1s', drain_deadline: '3s' };
  longwire = await startLongwire(settings({ server, heartbeat: { interval: '1s', timeout: '500ms' }, client: { allow_anonymous: true, expired_close_delay: '1s' }, namespaces: { cache: { ...OPEN_CHANNEL, force_recovery_mode: 'cache' } } }));
  proxy = await FaultProxy.start(longwire.port);
  browser = await startChromium();
});
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await longwire?.stop();
  site?.stop();
});

/** Streams in Node: `open` gives one, `look` gives what it saw. */
function inNode() {
  const opened = [];
  return {
    open: async (...parameters) => {
      opened.push(openStream(...parameters, { WebSocket, fetch }));
      return opened.length - 1;
    },
    look: async (index) => opened[index],
    close: async (index) => opened[index].close(),
    stop: async () => opened.forEach(({ close }) => close()),
  };
}

/** The same in a page of another origin. */
async function inChromium() {
  const page = await browser.newPage();
  await page.goto(site.origin);
  await page.addScriptTag({ content: `${openStream}; window.opened = [];` });
  return {
    open: (transport, url, request) =>
      page.evaluate(([transport, url, request]) => window.opened.push(openStream(transport, url, request, { WebSocket, EventSource, fetch: fetch.bind(window) })) - 1, [transport, url, request]),
    look: (index) => page.evaluate((index) => JSON.parse(JSON.stringify(window.opened[index])), index),
    close: (index) => page.evaluate((index) => window.opened[index].close(), index),
    stop: () => page.close(),
  };
}

for (const [where, make] of [['Node', inNode], ['Chromium', inChromium]]) {
  for (const transport of TRANSPORTS) {
    describe(`${transport} in ${where}`, () => {
      let streams;
      const name = (text) => `${transport}-${where}-${text}`;
      before(async () => (streams = await make()));
      after(() => streams?.stop());

      const claims = (more = {}, ttl = 60) => token({ exp: Math.floor(Date.now() / 1000) + ttl, ...more });
      const open = (request) => streams.open(transport, proxy.url, request);
      /** Waits until the stream saw what `wanted` finds, and gives that. */
      const saw = async (index, what, wanted, limit = 10_000) => {
        let last;
        return until(() => `${what}; it saw ${JSON.stringify(last)}`, async () => wanted((last = await streams.look(index))), limit);
      };
      const pushes = (index, count) => saw(index, `${count} pushes`, ({ pushes }) => pushes.length >= count && pushes);

      test('begins with a connect push, and then publications come as they are', async () => {
        const [inbox, other] = [name('inbox'), name('other')];
        await longwire.call('publish', { channel: inbox, data: 'before' });
        const { epoch } = await longwire.call('history', { channel: inbox });
        const stream = await open({ token: claims({ sub: 'ann', channels: [inbox, other] }), name: 'page' });
        const [{ connect, ...nothing }] = await pushes(stream, 1);
        assert.deepEqual(nothing, {}, 'a bare push');
        assert.match(connect.client, UUID);
        assert.deepEqual([typeof connect.version, connect.ping, connect.pong], ['string', 1, undefined]);
        assert.deepEqual(Object.keys(connect.subs).sort(), [inbox, other].sort());
        assert.deepEqual([connect.subs[inbox].recoverable, connect.subs[inbox].offset, connect.subs[inbox].epoch], [true, 1, epoch]);
        await longwire.call('publish', { channel: inbox, data: { text: 'ünter\u2028 \u{1f44b}\nnext' }, tags: { a: 'b' } });
        const [, push] = await pushes(stream, 2);
        assert.deepEqual(push, { channel: inbox, pub: { data: { text: 'ünter\u2028 \u{1f44b}\nnext' }, offset: 2, tags: { a: 'b' } } });
        const { presence } = await longwire.call('presence', { channel: inbox });
        assert.deepEqual(Object.values(presence).map(({ user, client }) => [user, client]), [['ann', connect.client]]);
        await streams.close(stream);
        await until('it left presence', async () => (await longwire.call('presence_stats', { channel: inbox })).num_clients === 0, 10_000);
      });

      test('pings', async () => {
        const stream = await open({ token: claims({ sub: 'ann' }) });
        await saw(stream, 'three pings', ({ pings }) => pings >= 3);
        assert.equal((await streams.look(stream)).ended, null);
        await streams.close(stream);
      });

      test('the backend subscribes, unsubscribes, and ends it with a code', async () => {
        const [user, channel] = [name('told'), name('news')];
        const stream = await open({ token: claims({ sub: user }) });
        await pushes(stream, 1);
        await longwire.call('subscribe', { channel, user, data: { why: 1 } });
        await longwire.call('publish', { channel, data: 'extra' });
        await longwire.call('unsubscribe', { channel, user });
        await longwire.call('disconnect', { user, disconnect: { code: 4501, reason: 'banned' } });
        const [, subscribe, publication, unsubscribe, disconnect] = await pushes(stream, 5);
        const { epoch } = await longwire.call('history', { channel });
        assert.deepEqual(subscribe, { channel, subscribe: { recoverable: true, positioned: true, epoch, data: { why: 1 } } });
        assert.deepEqual(publication, { channel, pub: { data: 'extra', offset: 1 } });
        assert.deepEqual([unsubscribe.channel, unsubscribe.unsubscribe.code], [channel, 2000]);
        assert.deepEqual([disconnect.disconnect.code, disconnect.disconnect.reason], [4501, 'banned']);
        const ended = await saw(stream, 'the end', ({ ended }) => ended);
        if (transport === 'uni_websocket') assert.deepEqual(ended, { code: 4501, reason: 'banned' });
      });

      test('a return with positions brings what was missed', async () => {
        const channel = name('post');
        const first = await open({ token: claims({ sub: 'bob', channels: [channel] }) });
        const [{ connect }] = await pushes(first, 1);
        await longwire.call('publish', { channel, data: 1 });
        await pushes(first, 2);
        proxy.reset();
        await saw(first, 'the cut', ({ ended }) => ended);
        await streams.close(first);
        for (const data of [2, 3]) await longwire.call('publish', { channel, data });
        const { epoch } = connect.subs[channel];
        const second = await open({ token: claims({ sub: 'bob', channels: [channel] }), subs: { [channel]: { recover: true, offset: 1, epoch } } });
        const [again] = await pushes(second, 1);
        const { recovered, was_recovering, publications } = again.connect.subs[channel];
        assert.deepEqual([recovered, was_recovering, publications.map(({ data, offset }) => [data, offset])], [true, true, [[2, 2], [3, 3]]]);
        await streams.close(second);
      });

      test('ends when its token expires, unless the backend prolongs it', async () => {
        const [brief, long] = [name('brief'), name('long')];
        const prolonged = await open({ token: claims({ sub: long }, 2) });
        const [{ connect }] = await pushes(prolonged, 1);
        assert.deepEqual([connect.expires, connect.ttl <= 2], [true, true]);
        await longwire.call('refresh', { user: long, expire_at: Math.floor(Date.now() / 1000) + 60 });
        const [, { refresh }] = await pushes(prolonged, 2);
        assert.deepEqual([refresh.expires, refresh.ttl > 50], [true, true]);
        const expiring = await open({ token: claims({ sub: brief }, 1) });
        const push = await saw(expiring, 'a disconnect', ({ pushes }) => pushes.find(({ disconnect }) => disconnect));
        assert.equal(push.disconnect.code, 3005);
        await saw(expiring, 'the end', ({ ended }) => ended);
        assert.equal((await streams.look(prolonged)).ended, null);
        await streams.close(prolonged);
      });

      test('who may not connect is told why', async () => {
        const wrong = await open({ token: `${claims({ sub: 'eve' }).slice(0, -6)}AAAAAA` });
        await saw(wrong, 'a disconnect 3500', ({ pushes, ended }) => ended && pushes.length === 1 && pushes[0].disconnect?.code === 3500);
        const late = await open({ token: claims({ sub: 'eve' }, -60) });
        await saw(late, 'a disconnect 3005', ({ pushes, ended }) => ended && pushes.length === 1 && pushes[0].disconnect?.code === 3005);
      });

      test('a server that ends says so', async () => {
        const server = await startLongwire(settings({ server: { allowed_origins: [site.origin], drain_over: '100ms', drain_deadline: '3s' } }));
        const stream = await streams.open(transport, server.url, {});
        await pushes(stream, 1);
        await server.stop();
        const push = await saw(stream, 'a disconnect', ({ pushes }) => pushes.find(({ disconnect }) => disconnect));
        assert.equal(push.disconnect.code, 3001);
      });
    });
  }
}

describe('what is not a connect request', () => {
  test('is answered with a disconnect, in the form of the stream', async () => {
    const text = async (path, request) => (await fetch(`${longwire.url}${path}`, request)).text();
    const push = '{"disconnect":{"code":3501,"reason":"bad request"}}';
    const nonsense = { method: 'POST', body: 'nonsense' };
    assert.equal(await text('/connection/uni_http_stream', nonsense), `${push}\n`);
    assert.equal((await text('/connection/uni_sse?cf_connect=nonsense')).trim(), `data: ${push}`);
    assert.equal(await text('/connection/http_stream', nonsense), `{"push":${push}}\n`);
    assert.equal((await text('/connection/sse?cf_connect=nonsense')).trim(), `data: {"push":${push}}`);
  });

  test('or with an HTTP status where there is no stream', async () => {
    const status = async (path, request) => {
      const answer = await fetch(`${longwire.url}${path}`, request);
      await answer.body?.cancel();
      return answer.status;
    };
    assert.equal(await status('/connection/uni_http_stream', { method: 'GET' }), 405);
    assert.equal(await status('/connection/uni_http_stream', { method: 'POST', body: 'x'.repeat(100_000) }), 413);
    assert.equal(await status('/connection/http_stream', { method: 'GET' }), 405);
    assert.equal(await status('/connection/sse'), 400);
    assert.equal(await status('/emulation', { method: 'GET' }), 405);
    assert.equal(await status('/emulation', { method: 'POST', body: 'nonsense' }), 400);
    assert.equal(await status('/emulation', { method: 'POST', body: JSON.stringify({ session: 'x', node: 'no-such-node', data: '{}' }) }), 404);
    assert.equal(await status('/emulation', { method: 'POST', body: 'x'.repeat(2_000_000) }), 413);
  });

  test('a preflight is answered for an origin that is allowed, and for no other', async () => {
    const preflight = async (path, origin) => {
      const answer = await fetch(`${longwire.url}${path}`, { method: 'OPTIONS', headers: { Origin: origin, 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'content-type' } });
      return [answer.status, answer.headers.get('access-control-allow-origin')];
    };
    for (const path of ['/connection/http_stream', '/emulation', '/connection/uni_http_stream']) {
      const [status, allowed] = await preflight(path, site.origin);
      assert.deepEqual([Math.floor(status / 100), allowed], [2, site.origin], path);
      assert.equal((await preflight(path, 'http://stranger.example'))[1], null, path);
    }
  });
});
