// centrifuge-js from npm, unmodified, in Node over `ws`.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { FaultProxy } from './fault_proxy.mjs';
import { inSeconds, settings, startLongwire, token } from './longwire.mjs';
import { assertContiguous, assertExactlyOnce, publishThroughCuts } from './scenario.mjs';
import { until } from './until.mjs';

let longwire;
const clients = new Set();

/** A client of `server`, closed at the end; it notes its events as `[name, context]`. */
function newClient(server, options = {}) {
  const client = new Centrifuge(`ws://127.0.0.1:${server.port}/connection/websocket`, {
    websocket: WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    maxServerPingDelay: 500,
    ...options,
  });
  clients.add(client);
  client.noted = note(client, ['connecting', 'connected', 'disconnected', 'error', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave']);
  return client;
}

/** A subscription of `client`, subscribed; it notes its events too. */
async function subscribed(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, options);
  subscription.noted = note(subscription, ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error']);
  subscription.subscribe();
  client.connect();
  await subscription.ready(5000);
  return subscription;
}

function note(emitter, names) {
  const noted = [];
  for (const name of names) emitter.on(name, (context) => noted.push([name, context]));
  return noted;
}

function contexts(emitter, wanted) {
  return emitter.noted.filter(([name]) => name === wanted).map(([, context]) => context);
}

/** Waits for the first event `name`, or the one with the number `index`. */
function event(emitter, name, index = 0, limit = 5000) {
  return until(`event ${name} number ${index}; there were ${emitter.noted.map(([name]) => name)}`, () => contexts(emitter, name)[index], limit);
}

function clientId(client) {
  return contexts(client, 'connected').at(-1).client;
}

function closeClients() {
  for (const client of clients) client.disconnect();
  clients.clear();
}

before(async () => {
  longwire = await startLongwire();
});
after(async () => {
  closeClients();
  await longwire?.stop();
});

describe('commands', () => {
  test('a publication reaches every subscriber, the publisher too, with offset and publisher', async () => {
    const [alice, bob] = [newClient(longwire), newClient(longwire)];
    const [hers, his] = [await subscribed(alice, 'chat'), await subscribed(bob, 'chat')];
    await hers.publish({ text: 'hello \u{1f44b}', nested: [1, null, true] });
    for (const subscription of [hers, his]) {
      const publication = await event(subscription, 'publication');
      assert.deepEqual(publication.data, { text: 'hello \u{1f44b}', nested: [1, null, true] });
      assert.equal(publication.offset, 1);
      assert.equal(publication.info.client, clientId(alice));
      assert.equal(publication.info.user, '');
    }
  });

  test('many subscriptions in the first message are all answered', async () => {
    const client = newClient(longwire);
    const subscriptions = Array.from({ length: 50 }, (_, i) => client.newSubscription(`many${i}`));
    for (const subscription of subscriptions) subscription.subscribe();
    client.connect();
    await Promise.all(subscriptions.map((subscription) => subscription.ready(5000)));
    assert.equal(contexts(client, 'connected').length, 1);
  });

  test('a message of 60 kB passes in both directions', async () => {
    const subscription = await subscribed(newClient(longwire), 'large');
    const text = 'ü'.repeat(30_000);
    await subscription.publish({ text });
    assert.equal((await event(subscription, 'publication')).data.text, text);
  });

  test('presence lists who is there and presenceStats counts them', async () => {
    const [alice, bob] = [newClient(longwire), newClient(longwire)];
    const subscription = await subscribed(alice, 'room');
    const other = await subscribed(bob, 'room');
    const { clients: there } = await subscription.presence();
    assert.deepEqual(Object.keys(there).sort(), [clientId(alice), clientId(bob)].sort());
    assert.deepEqual(there[clientId(bob)], { client: clientId(bob), user: '' });
    assert.deepEqual(await subscription.presenceStats(), { numClients: 2, numUsers: 1 });
    other.unsubscribe();
    await until('bob has left', async () => (await subscription.presenceStats()).numClients === 1);
  });

  test('history gives a page, the page after a position, and the newest first', async () => {
    const subscription = await subscribed(newClient(longwire), 'past');
    for (let n = 1; n <= 10; n += 1) await longwire.call('publish', { channel: 'past', data: { n } });
    const numbers = async (options) => (await subscription.history(options)).publications.map(({ data, offset }) => [data.n, offset]);

    const position = await subscription.history({ limit: 0 });
    assert.deepEqual(position.publications, []);
    assert.equal(position.offset, 10);
    assert.match(position.epoch, /^[a-z0-9]{8}$/i);
    const { epoch } = position;
    assert.deepEqual(await numbers({ limit: 3 }), [[1, 1], [2, 2], [3, 3]]);
    assert.equal((await numbers({ limit: -1 })).length, 10);
    assert.deepEqual(await numbers({ limit: 2, since: { offset: 3, epoch } }), [[4, 4], [5, 5]]);
    assert.deepEqual(await numbers({ limit: 2, reverse: true }), [[10, 10], [9, 9]]);
    assert.deepEqual(await numbers({ limit: 2, since: { offset: 4, epoch }, reverse: true }), [[3, 3], [2, 2]]);
    await assert.rejects(subscription.history({ limit: 1, since: { offset: 1, epoch: 'zzzzzzzz' } }), { code: 112 });
  });

  test('a subscriber that asks sees others join and leave', async () => {
    const watcher = newClient(longwire);
    const subscription = await subscribed(watcher, 'door', { joinLeave: true });
    const guest = newClient(longwire);
    await subscribed(guest, 'door');
    const isGuest = ({ info }) => info.client === clientId(guest);
    const joined = await until('the join of the guest', () => contexts(subscription, 'join').find(isGuest));
    assert.equal(joined.channel, 'door');
    guest.disconnect();
    await until('the leave of the guest', () => contexts(subscription, 'leave').find(isGuest));
  });

  test('after an unsubscribe nothing arrives and the client can subscribe again', async () => {
    const client = newClient(longwire);
    const subscription = await subscribed(client, 'pause');
    const witness = await subscribed(newClient(longwire), 'pause');
    subscription.unsubscribe();
    await until('the server has forgotten it', async () => (await longwire.call('presence_stats', { channel: 'pause' })).num_clients === 1);
    await longwire.call('publish', { channel: 'pause', data: 1 });
    await event(witness, 'publication');
    assert.deepEqual(contexts(subscription, 'publication'), []);
    subscription.subscribe();
    await subscription.ready(5000);
    await longwire.call('publish', { channel: 'pause', data: 2 });
    await until('the second publication', () => contexts(subscription, 'publication').some(({ data }) => data === 2));
  });

  test('what is refused says why', async () => {
    const client = newClient(longwire);
    client.connect();
    await client.ready(5000);
    const denied = client.newSubscription('closed:x');
    const unknown = client.newSubscription('nowhere:x');
    for (const [subscription, code] of [[denied, 103], [unknown, 102]]) {
      subscription.noted = note(subscription, ['unsubscribed']);
      subscription.subscribe();
      assert.equal((await event(subscription, 'unsubscribed')).code, code);
    }
    await assert.rejects(client.publish('closed:x', {}), { code: 103 });
    await assert.rejects(client.publish('nowhere:x', {}), { code: 102 });
    await assert.rejects(client.presence('closed:x'), { code: 103 });
    await assert.rejects(client.history('closed:x', { limit: 1 }), { code: 103 });
    await assert.rejects(client.rpc('method', {}), { code: 108 });
    await subscribed(client, 'bare:x');
    await assert.rejects(client.publish('bare:x', {}), { code: 103 });
    assert.equal(client.state, 'connected');
    assert.equal(contexts(client, 'connected').length, 1);
  });
});

describe('tokens', () => {
  let strict;
  before(async () => {
    strict = await startLongwire(settings({ client: { allow_anonymous: false, expired_close_delay: '1s' } }));
  });
  after(async () => {
    closeClients();
    await strict?.stop();
  });

  test('a connection token says who the client is', async () => {
    const client = newClient(strict, { token: token({ sub: '42', info: { name: 'Ann' }, exp: inSeconds(60) }) });
    const subscription = await subscribed(client, 'who');
    const { clients: there } = await subscription.presence();
    const { user, connInfo } = there[clientId(client)];
    assert.deepEqual([user, connInfo], ['42', { name: 'Ann' }]);
  });

  test('a token with a wrong signature ends the attempt for good', async () => {
    const client = newClient(strict, { token: token({ sub: '42', exp: inSeconds(60) }, 'another-secret-of-at-least-thirty-two-bytes') });
    client.connect();
    const { code } = await event(client, 'disconnected');
    assert.equal(code, 3500);
  });

  test('without a token an anonymous client is turned away', async () => {
    const client = newClient(strict);
    client.connect();
    assert.equal((await event(client, 'disconnected')).code, 3501);
  });

  test('an expired token is answered by a request for a fresh one', async () => {
    let asked = 0;
    const client = newClient(strict, {
      token: token({ sub: '42', exp: inSeconds(-3600) }),
      getToken: async () => {
        asked += 1;
        return token({ sub: '42', exp: inSeconds(60) });
      },
    });
    client.connect();
    await client.ready(5000);
    assert.equal(asked, 1);
  });

  test('a connection outlives its token if it is refreshed in time', async () => {
    let asked = 0;
    const client = newClient(strict, {
      getToken: async () => {
        asked += 1;
        return token({ sub: '42', exp: inSeconds(2) });
      },
    });
    const subscription = await subscribed(client, 'long');
    await until('three refreshes', () => asked >= 4, 12_000);
    await subscription.publish({ still: 'here' });
    await event(subscription, 'publication');
    assert.equal(contexts(client, 'connected').length, 1, 'it never had to reconnect');
  });

  test('a connection whose token is not refreshed is closed as expired', async () => {
    let given = 0;
    const client = newClient(strict, {
      // The second token is refused, so that the client cannot prolong its time.
      getToken: async () => ((given += 1) === 1 ? token({ sub: '42', exp: inSeconds(1) }) : Promise.reject(new Error('no token today'))),
    });
    client.connect();
    await client.ready(5000);
    const connecting = await event(client, 'connecting', 1, 10_000);
    assert.equal(connecting.code, 3005);
  });

  test('a subscription token opens a private channel', async () => {
    const client = newClient(strict, { token: token({ sub: '42', exp: inSeconds(60) }) });
    const subscription = await subscribed(client, '$secret', {
      getToken: async ({ channel }) => token({ sub: '42', channel, info: { role: 'guest' }, exp: inSeconds(60) }),
    });
    const { presence } = await strict.call('presence', { channel: '$secret' });
    assert.deepEqual(presence[clientId(client)], { user: '42', client: clientId(client), chan_info: { role: 'guest' } });
    assert.equal(subscription.state, 'subscribed');
  });

  test('a private channel stays closed without a token or with an invalid one', async () => {
    const client = newClient(strict, { token: token({ sub: '42', exp: inSeconds(60) }) });
    client.connect();
    await client.ready(5000);
    const wrong = token({ sub: '42', channel: '$secret2', exp: inSeconds(60) }, 'another-secret-of-at-least-thirty-two-bytes');
    for (const [channel, options] of [['$secret1', {}], ['$secret2', { token: wrong }]]) {
      const subscription = client.newSubscription(channel, options);
      subscription.noted = note(subscription, ['unsubscribed']);
      subscription.subscribe();
      assert.equal((await event(subscription, 'unsubscribed')).code, 103);
    }
  });

  test('a subscription token for another channel ends the connection for good', async () => {
    const client = newClient(strict, { token: token({ sub: '42', exp: inSeconds(60) }) });
    client.newSubscription('$mine', { token: token({ sub: '42', channel: '$theirs', exp: inSeconds(60) }) }).subscribe();
    client.connect();
    assert.equal((await event(client, 'disconnected')).code, 3500);
  });

  test('channels in the token are subscribed by the server', async () => {
    const client = newClient(strict, { token: token({ sub: '42', channels: ['inbox'], exp: inSeconds(60) }) });
    client.connect();
    const context = await event(client, 'subscribed');
    assert.equal(context.channel, 'inbox');
    await strict.call('publish', { channel: 'inbox', data: { text: 'for you' } });
    const publication = await event(client, 'publication');
    assert.deepEqual([publication.channel, publication.data], ['inbox', { text: 'for you' }]);
  });

  test('a server-side subscription recovers what was published while the client was away', async () => {
    const proxy = await FaultProxy.start(strict.port);
    try {
      const client = newClient(proxy, { token: token({ sub: '43', channels: ['post'], exp: inSeconds(60) }) });
      client.connect();
      await event(client, 'subscribed');
      await strict.call('publish', { channel: 'post', data: 1 });
      await event(client, 'publication');
      proxy.refuse();
      proxy.reset();
      await event(client, 'connecting', 1);
      for (const data of [2, 3]) await strict.call('publish', { channel: 'post', data });
      proxy.refuse(false);
      const context = await event(client, 'subscribed', 1);
      assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
      await event(client, 'publication', 2);
      assert.deepEqual(contexts(client, 'publication').map(({ data }) => data), [1, 2, 3]);
      client.disconnect();
    } finally {
      await proxy.stop();
    }
  });
});

describe('what a backend does', () => {
  test('disconnect closes with the given code, for good above 4500', async () => {
    for (const [disconnect, code] of [[undefined, 3503], [{ code: 4501, reason: 'banned' }, 4501]]) {
      const client = newClient(longwire);
      client.connect();
      await client.ready(5000);
      await longwire.call('disconnect', { user: '', client: clientId(client), ...(disconnect && { disconnect }) });
      const context = await event(client, 'disconnected');
      assert.equal(context.code, code);
      assert.equal(context.reason, disconnect?.reason ?? 'force disconnect');
    }
  });

  test('disconnect with a code that allows it lets the client come back', async () => {
    const client = newClient(longwire);
    client.connect();
    await client.ready(5000);
    await longwire.call('disconnect', { user: '', client: clientId(client), disconnect: { code: 4001, reason: 'elsewhere' } });
    assert.equal((await event(client, 'connecting', 1)).code, 4001);
    await event(client, 'connected', 1);
  });

  test('subscribe and unsubscribe are told to the client', async () => {
    const client = newClient(longwire);
    client.connect();
    await client.ready(5000);
    const who = { user: '', client: clientId(client) };
    await longwire.call('subscribe', { channel: 'news', ...who });
    assert.equal((await event(client, 'subscribed')).channel, 'news');
    await longwire.call('publish', { channel: 'news', data: 'extra' });
    assert.equal((await event(client, 'publication')).data, 'extra');
    await longwire.call('unsubscribe', { channel: 'news', ...who });
    assert.equal((await event(client, 'unsubscribed')).channel, 'news');
  });

  test('unsubscribe ends a subscription of the client with code 2000', async () => {
    const client = newClient(longwire);
    const subscription = await subscribed(client, 'goodbye');
    await longwire.call('unsubscribe', { channel: 'goodbye', user: '', client: clientId(client) });
    const context = await event(subscription, 'unsubscribed');
    assert.equal(context.code, 2000);
    assert.equal(client.state, 'connected');
  });

  test('a server that ends tells its clients to come back', async () => {
    const server = await startLongwire();
    const client = newClient(server);
    client.connect();
    await client.ready(5000);
    await server.stop();
    assert.equal((await event(client, 'connecting', 1)).code, 3001);
    client.disconnect();
  });
});

describe('cuts', () => {
  let proxy;
  before(async () => {
    proxy = await FaultProxy.start(longwire.port);
  });
  after(async () => {
    closeClients();
    await proxy?.stop();
  });

  test('through 20 cuts every one of 2000 messages arrives exactly once and in order', { timeout: 120_000 }, async () => {
    const faults = [() => proxy.reset(), () => proxy.swallow(), () => proxy.tear(100), () => proxy.finish()];
    const client = newClient(proxy);
    const subscription = await subscribed(client, 'cuts');
    await publishThroughCuts({
      longwire,
      channel: 'cuts',
      cut: (round) => faults[round % faults.length](),
      isBack: (round) => event(subscription, 'subscribed', round + 1, 10_000),
    });
    const publications = await until(
      'the last message',
      () => {
        const received = contexts(subscription, 'publication');
        return received.some(({ data }) => data.n === 2000) && received;
      },
      10_000,
    );
    assertExactlyOnce(publications.map(({ data }) => data));
    assertContiguous(publications.map(({ offset }) => offset));
    const returns = contexts(subscription, 'subscribed').slice(1);
    assert.equal(returns.length, 20);
    assert.ok(returns.every(({ wasRecovering, recovered }) => wasRecovering && recovered));
    client.disconnect();
  });

  test('a client that missed more than history keeps is told so, and given nothing old', async () => {
    const client = newClient(proxy);
    const subscription = await subscribed(client, 'small:a');
    await longwire.call('publish', { channel: 'small:a', data: { n: 1 } });
    await event(subscription, 'publication');
    proxy.refuse();
    proxy.reset();
    await event(subscription, 'subscribing', 1);
    for (let n = 2; n <= 21; n += 1) await longwire.call('publish', { channel: 'small:a', data: { n } });
    proxy.refuse(false);
    const context = await event(subscription, 'subscribed', 1);
    assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
    assert.equal(context.streamPosition.offset, 21);
    await longwire.call('publish', { channel: 'small:a', data: { n: 22 } });
    await event(subscription, 'publication', 1);
    assert.deepEqual(contexts(subscription, 'publication').map(({ data }) => data.n), [1, 22]);
    client.disconnect();
  });

  test('a client that missed exactly as much as history keeps recovers all of it', async () => {
    const client = newClient(proxy);
    const subscription = await subscribed(client, 'small:b');
    await longwire.call('publish', { channel: 'small:b', data: { n: 1 } });
    await event(subscription, 'publication');
    proxy.refuse();
    proxy.reset();
    await event(subscription, 'subscribing', 1);
    for (let n = 2; n <= 6; n += 1) await longwire.call('publish', { channel: 'small:b', data: { n } });
    proxy.refuse(false);
    const context = await event(subscription, 'subscribed', 1);
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    await event(subscription, 'publication', 5);
    assert.deepEqual(contexts(subscription, 'publication').map(({ data }) => data.n), [1, 2, 3, 4, 5, 6]);
    client.disconnect();
  });

  test('a server that was restarted cannot recover, and says so', async () => {
    const first = await startLongwire();
    const throughProxy = await FaultProxy.start(first.port);
    const client = newClient(throughProxy);
    const subscription = await subscribed(client, 'restart');
    await first.call('publish', { channel: 'restart', data: 1 });
    await event(subscription, 'publication');
    throughProxy.refuse();
    await first.stop();
    const second = await startLongwire();
    try {
      await second.call('publish', { channel: 'restart', data: 2 });
      throughProxy.target = second.port;
      throughProxy.refuse(false);
      const context = await event(subscription, 'subscribed', 1, 10_000);
      assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
      client.disconnect();
    } finally {
      await throughProxy.stop();
      await second.stop();
    }
  });
});
