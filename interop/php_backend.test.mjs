// A backend in PHP decides who may do what; centrifuge-js is the client.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { OPEN_CHANNEL, settings, startLongwire } from './longwire.mjs';
import { PhpBackend } from './php.mjs';
import { Bench, clientId, contexts, event } from './sdk_cases.mjs';
import { rejectedWith } from './equal.mjs';
import { until } from './until.mjs';

const KEPT = { presence: true, join_leave: true, history_size: 100, history_ttl: '300s', force_recovery: true, allow_presence_for_subscriber: true, allow_history_for_subscriber: true };

let backend, longwire, bench;
before(async () => {
  backend = await PhpBackend.start();
  const asked = { subscribe_webhook: 'default', publish_webhook: 'default', sub_refresh_webhook: 'default' };
  const { webhook } = backend.settings();
  Object.assign(webhook.connect, { http_headers: ['Cookie'], emulated_headers: ['X-Tenant'], static_headers: ['X-Region: north'] });
  longwire = await startLongwire(settings({ client: { allow_anonymous: false, expired_close_delay: '1s' }, webhook, namespaces: { room: { ...KEPT, ...asked }, inbox: OPEN_CHANNEL } }));
  const call = async (name, ...parameters) => (name === 'api' ? longwire.call(...parameters) : undefined);
  bench = new Bench({ Centrifuge, transport: 'websocket', encoding: 'json', url: longwire.url, options: { websocket: WebSocket }, call });
});
afterEach(() => bench.close());
after(async () => {
  await longwire?.stop();
  await backend?.stop();
});

const as = (user, more = {}, options = {}) => ({ data: { user, password: 'open sesame', ...more }, ...options });

describe('a backend in PHP', () => {
  test('says who a client is, and what it is told and subscribed to', async () => {
    const client = await bench.connected(as('ann', { inbox: true }));
    assert.deepEqual(contexts(client, 'connected')[0].data, { welcome: 'ann', transport: 'websocket', headers: { region: 'north' } });
    assert.equal((await event(client, 'subscribed')).channel, 'inbox:ann');
    await longwire.call('publish', { channel: 'inbox:ann', data: 'for you' });
    assert.deepEqual(await bench.receives(client, 1), ['for you']);
  });

  test('is given the headers that are allowed, of the connect command and of the request', async () => {
    const client = await bench.connected(as('ann', {}, { headers: { 'X-Tenant': 'acme', 'X-Other': 'no', 'X-Region': 'forged', Cookie: 'session=eve' } }));
    const { welcome, headers } = contexts(client, 'connected')[0].data;
    assert.deepEqual([welcome, headers], ['ann', { tenant: 'acme', region: 'north' }]);
  });

  test('knows a browser by its cookie', async () => {
    class WithCookie extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { headers: { Cookie: 'theme=dark; session=bob', 'X-Other': 'not handed on' } });
      }
    }
    const client = await bench.connected({ websocket: WithCookie });
    const { welcome, headers } = contexts(client, 'connected')[0].data;
    assert.deepEqual([welcome, headers], ['bob', { region: 'north' }]);
  });

  test('turns away who has the wrong password, for good', async () => {
    const client = bench.client({ data: { user: 'eve', password: 'guess' } });
    client.connect();
    const { code, reason } = await event(client, 'disconnected');
    assert.deepEqual([code, reason], [4501, 'unauthorized']);
  });

  test('decides who may subscribe, and says what is told to whom', async () => {
    const [ann, bob] = [await bench.connected(as('ann')), await bench.connected(as('bob'))];
    const subscription = await bench.subscribed(ann, 'room:vip');
    assert.deepEqual(contexts(subscription, 'subscribed')[0].data, { topic: 'talk of room:vip' });
    const { clients } = await subscription.presence();
    const { user, connInfo, chanInfo } = clients[clientId(ann)];
    assert.deepEqual([user, connInfo, chanInfo], ['ann', { name: 'Ann' }, { seat: 3 }]);
    assert.equal((await event(bench.begun(bob, 'room:vip'), 'unsubscribed')).code, 1403);
    await bench.subscribed(bob, 'room:all');
  });

  test('decides what may be published, and what becomes of it', async () => {
    const client = await bench.connected(as('ann'));
    const subscription = await bench.subscribed(client, 'room:talk');
    await subscription.publish({ text: 'hello' });
    await rejectedWith(1422, subscription.publish({ text: 'cheap spam' }));
    await subscription.publish({ text: 'as is' });
    assert.deepEqual(await bench.receives(subscription, 2), [{ text: 'HELLO', by: 'ann' }, { text: 'as is' }]);
    assert.deepEqual(contexts(subscription, 'publication')[0].tags, { checked: 'yes' });
    // What the backend of an application publishes, nobody is asked about.
    await longwire.call('publish', { channel: 'room:talk', data: { text: 'spam' } });
    assert.deepEqual((await bench.receives(subscription, 3))[2], { text: 'spam' });
  });

  test('answers calls', async () => {
    const client = await bench.connected(as('ann'));
    assert.deepEqual((await client.rpc('add', [1, 2, 3.5])).data, { sum: 6.5 });
    assert.deepEqual((await client.rpc('whoami', null)).data, { user: 'ann', transport: 'websocket', protocol: 'json', encoding: 'json', method: 'whoami' });
    await rejectedWith(1404, client.rpc('missing', {}));
  });

  test('prolongs connections and subscriptions, without the client doing anything', async () => {
    const client = await bench.connected(as('longlived', { lasts: 2 }));
    const subscription = await bench.subscribed(client, 'room:long', { data: { lasts: 2 } });
    const counters = async () => (await backend.recorded()).counters;
    await until('three refreshes of each', async () => {
      const now = await counters();
      return now['refresh longlived'] >= 3 && now['sub_refresh longlived'] >= 3;
    }, 20_000);
    assert.deepEqual([contexts(client, 'connected').length, contexts(subscription, 'subscribed').length], [1, 1]);
  });

  test('lets connections and subscriptions expire', async () => {
    const client = await bench.connected(as('brief1', { lasts: 1 }));
    assert.equal((await event(client, 'connecting', 1, 10_000)).code, 3005);
    const other = await bench.connected(as('brief2'));
    const subscription = await bench.subscribed(other, 'room:brief', { data: { lasts: 1 } });
    assert.equal((await event(subscription, 'subscribing', 1, 10_000)).code, 2501);
  });

  test('that is dead makes clients wait, and nobody else', async () => {
    const client = await bench.connected(as('ann'));
    const subscription = await bench.subscribed(client, 'room:calm');
    await backend.kill();
    const newcomer = bench.client(as('bob'));
    newcomer.connect();
    await event(newcomer, 'error', 1);
    assert.equal(newcomer.state, 'connecting');
    await rejectedWith(100, client.rpc('add', [1]));
    await rejectedWith(100, subscription.publish({ text: 'hello' }));
    const later = bench.begun(client, 'room:later');
    await event(later, 'error');
    assert.equal(later.state, 'subscribing');
    await longwire.call('publish', { channel: 'room:calm', data: 'undisturbed' });
    assert.deepEqual(await bench.receives(subscription, 1), ['undisturbed']);
    await backend.start();
    await Promise.all([newcomer.ready(15_000), later.ready(15_000)]);
    assert.deepEqual((await client.rpc('add', [1, 1])).data, { sum: 2 });
    assert.equal(contexts(client, 'connected').length, 1);
  });

  test('refuses what is not signed, changed or old', async () => {
    const body = JSON.stringify({ events: [] });
    assert.equal(await backend.deliver(body), 200);
    assert.equal(await backend.deliver(body, { secondsAgo: 200 }), 200);
    assert.equal(await backend.deliver(body, { secondsAgo: 400 }), 401);
    assert.equal(await backend.deliver(body, { secondsAgo: -400 }), 401);
    assert.equal(await backend.deliver(body, { secret: 'another' }), 401);
    assert.equal(await backend.deliver(body, { sent: '{"events":[ ]}' }), 401);
    assert.equal((await fetch(`${backend.url}/connect`, { method: 'POST', body: '{}' })).status, 401);
    assert.equal((await backend.recorded()).counters.refused, 5, 'and of longwire nothing was refused');
  });
});
