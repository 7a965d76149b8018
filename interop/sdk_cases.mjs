// What centrifuge-js must be able to do against longwire, whatever it speaks over. Runs in Node and in pages.
//
// Every case gets a `Bench`, which makes clients of one transport and one encoding, and knows how to call the
// HTTP API and how to break links. The cases say what must come of it and know neither transport nor encoding; so
// a case that fails for one combination only tells which part of the server is wrong. Nothing of Node is
// imported here. Each case has channels of its own.

import { equal, holds, rejectedWith } from './equal.mjs';
import { until } from './until.mjs';

const CLIENT_EVENTS = ['connecting', 'connected', 'disconnected', 'error', 'subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'message'];
const SUBSCRIPTION_EVENTS = ['subscribing', 'subscribed', 'unsubscribed', 'publication', 'join', 'leave', 'error'];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** What a case works with: clients of one transport and one encoding. */
export class Bench {
  #clients = new Set();

  /**
   * `options` are the client's for this environment, `url` is where clients find the server. `call(name, ...)`
   * reaches what is not in a page: `api`, `token`, `refuse`, `allow`, `reset`, `finish`, `swallow`.
   */
  constructor({ Centrifuge, transport, encoding, url, options, call }) {
    Object.assign(this, { Centrifuge, transport, encoding, url, options, call });
  }

  /** A client that is not yet connected and notes its events. `user` and `claims` make its token. */
  client({ user, claims, ...options } = {}) {
    const endpoint = this.transport === 'websocket' ? this.url.replace('http', 'ws') : this.url;
    const client = new this.Centrifuge([{ transport: this.transport, endpoint: `${endpoint}/connection/${this.transport}` }], {
      minReconnectDelay: 20,
      maxReconnectDelay: 200,
      maxServerPingDelay: 1000,
      emulationEndpoint: `${this.url}/emulation`,
      ...this.options,
      ...((user || claims) && { getToken: () => this.token({ ...(user && { sub: user }), ...claims }) }),
      ...options,
    });
    this.#clients.add(client);
    client.noted = note(client, CLIENT_EVENTS);
    return client;
  }

  async connected(options) {
    const client = this.client(options);
    client.connect();
    await client.ready(10_000);
    return client;
  }

  /** A subscription of `client` that notes its events, begun but not yet there. */
  begun(client, channel, options = {}) {
    const subscription = client.newSubscription(channel, { minResubscribeDelay: 20, maxResubscribeDelay: 200, ...options });
    subscription.noted = note(subscription, SUBSCRIPTION_EVENTS);
    subscription.subscribe();
    return subscription;
  }

  async subscribed(client, channel, options) {
    const subscription = this.begun(client, channel, options);
    await subscription.ready(10_000);
    return subscription;
  }

  /** A token of the claims that is good for a minute unless they say otherwise; `ttl` counts in seconds. */
  token({ ttl = 60, ...claims }) {
    return this.call('token', { exp: Math.floor(Date.now() / 1000) + ttl, ...claims });
  }

  api(method, request) {
    return this.call('api', method, request);
  }

  publish(channel, data, more = {}) {
    return this.api('publish', { channel, data, ...more });
  }

  /** Cuts every link and lets nobody back; `subscription` has noticed it. */
  async away(emitter) {
    const before = contexts(emitter, 'subscribing').length + contexts(emitter, 'connecting').length;
    await this.call('refuse');
    await this.call('reset');
    await until('the client noticed the cut', () => contexts(emitter, 'subscribing').length + contexts(emitter, 'connecting').length > before, 10_000);
  }

  /** Lets everybody back. */
  back() {
    return this.call('allow');
  }

  /** Data in the form in which this encoding's client takes it. */
  pack(value) {
    return this.encoding === 'json' ? value : new TextEncoder().encode(JSON.stringify(value));
  }

  /** What the client gave as data, as a value. */
  unpack(data) {
    if (this.encoding === 'json' || data === undefined || data === null) return data;
    const text = new TextDecoder('utf-8', { fatal: true }).decode(data);
    return text === '' ? undefined : JSON.parse(text);
  }

  /** The data of every publication that the emitter got. */
  received(emitter) {
    return contexts(emitter, 'publication').map(({ data }) => this.unpack(data));
  }

  /** Waits for that many publications and gives their data. */
  async receives(emitter, count, limit = 10_000) {
    await until(() => `${count} publications; there are ${JSON.stringify(this.received(emitter))}; events ${emitter.noted.map(([name]) => name)}`, () => contexts(emitter, 'publication').length >= count, limit);
    return this.received(emitter);
  }

  /** Ends every client; links pass again. */
  async close() {
    for (const client of this.#clients) client.disconnect();
    this.#clients.clear();
    await this.call('allow');
  }
}

function note(emitter, names) {
  const noted = [];
  for (const name of names) emitter.on(name, (context) => noted.push([name, context]));
  return noted;
}

/** The contexts of every event `wanted`. */
export function contexts(emitter, wanted) {
  return emitter.noted.filter(([name]) => name === wanted).map(([, context]) => context);
}

/** Waits for the event `name` with the number `index`. */
export function event(emitter, name, index = 0, limit = 10_000) {
  const happened = () => emitter.noted.map(([name, { code, type, error }]) => [name, code, type, error?.code, error?.message].filter((part) => part !== undefined).join(' '));
  return until(() => `event ${name} number ${index}; there were: ${happened().join(', ')}`, () => contexts(emitter, name)[index], limit);
}

export function clientId(client) {
  return contexts(client, 'connected').at(-1).client;
}

const recovery = ({ wasRecovering, recovered }) => ({ wasRecovering, recovered });
const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** A text of 3 kB of which one line changes from one number to the next. */
function page(n) {
  return { n, lines: Array.from({ length: 40 }, (_, i) => (i === n % 40 ? `line ${i}, changed by ${n} \u{1f58a}` : `line ${i} of the page, which is as it ever wäs, and will be`)) };
}

/** `[what must be true, the proof]`; the order does not matter. */
export const CASES = [
  [
    'a client connects over the transport that it was told to use',
    async (bench) => {
      const client = await bench.connected();
      const [context] = contexts(client, 'connected');
      equal(context.transport, bench.transport);
      holds(UUID.test(context.client), `client ${context.client}`);
      equal(client.state, 'connected');
    },
  ],
  [
    'a publication reaches every subscriber, the publisher too, with offset and publisher',
    async (bench) => {
      const [ann, bob] = [await bench.connected({ user: 'ann', claims: { info: { name: 'Ann' } } }), await bench.connected({ user: 'bob' })];
      const [hers, his] = [await bench.subscribed(ann, 'chat'), await bench.subscribed(bob, 'chat')];
      const data = { text: 'hello \u{1f44b}\nnext "line"', nested: [1, null, true, { deep: -1.5e3 }] };
      await hers.publish(bench.pack(data));
      for (const subscription of [hers, his]) {
        const publication = await event(subscription, 'publication');
        equal(bench.unpack(publication.data), data);
        equal([publication.channel, publication.offset, publication.info.user, publication.info.client, bench.unpack(publication.info.connInfo)], ['chat', 1, 'ann', clientId(ann), { name: 'Ann' }]);
      }
    },
  ],
  [
    '300 publications arrive once and in order, whatever JSON they are',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'stream');
      const odd = ['', 'ü\u2028\u{1f600}', 0, -1, 1.5, false, [], {}, [[]], { '': '' }, null];
      const all = numbers(1, 300).map((n) => [n, odd[n % odd.length]]);
      for (const data of all) await bench.publish('stream', data, { tags: { n: String(data[0]) } });
      equal(await bench.receives(subscription, 300), all);
      const got = contexts(subscription, 'publication');
      equal(got.map(({ offset }) => offset), numbers(1, 300), 'offsets');
      equal(got[9].tags, { n: '10' }, 'tags');
    },
  ],
  [
    'a message of 40 kB passes in both directions',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'large');
      const text = 'ü\u{1f600}'.repeat(6667);
      await subscription.publish(bench.pack({ text }));
      const [data] = await bench.receives(subscription, 1);
      holds(data.text === text, `a text of ${text.length} came back as ${data.text.length}`);
    },
  ],
  [
    'many subscriptions begun at once are all answered',
    async (bench) => {
      const client = bench.client();
      const subscriptions = numbers(1, 50).map((n) => bench.begun(client, `many${n}`));
      client.connect();
      await Promise.all(subscriptions.map((subscription) => subscription.ready(10_000)));
      equal(contexts(client, 'connected').length, 1, 'connects');
    },
  ],
  [
    'history gives a page, the page after a position, and the newest first',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'past');
      for (let n = 1; n <= 10; n += 1) await bench.publish('past', { n }, { tags: { n: String(n) } });
      const got = async (options) => (await subscription.history(options)).publications.map(({ data, offset }) => [bench.unpack(data).n, offset]);
      const { publications, offset, epoch } = await subscription.history({ limit: 0 });
      equal([publications, offset, typeof epoch], [[], 10, 'string']);
      equal(await got({ limit: 3 }), [[1, 1], [2, 2], [3, 3]]);
      equal((await got({ limit: -1 })).length, 10);
      equal(await got({ limit: 2, since: { offset: 3, epoch } }), [[4, 4], [5, 5]]);
      equal(await got({ limit: 2, reverse: true }), [[10, 10], [9, 9]]);
      equal(await got({ limit: 2, since: { offset: 4, epoch }, reverse: true }), [[3, 3], [2, 2]]);
      equal((await subscription.history({ limit: 1 })).publications[0].tags, { n: '1' });
      await rejectedWith(112, subscription.history({ limit: 1, since: { offset: 1, epoch: 'zzzzzzzz' } }));
    },
  ],
  [
    'presence lists who is there with their infos, and presenceStats counts them',
    async (bench) => {
      const [ann, guest] = [await bench.connected({ user: 'ann', claims: { info: { name: 'Ann' } } }), await bench.connected()];
      const subscription = await bench.subscribed(ann, 'room');
      const other = await bench.subscribed(guest, 'room');
      const { clients } = await subscription.presence();
      const there = Object.values(clients).map(({ client, user, connInfo, chanInfo }) => [client, user, bench.unpack(connInfo), bench.unpack(chanInfo)]);
      equal(there.sort(), [[clientId(ann), 'ann', { name: 'Ann' }, undefined], [clientId(guest), '', undefined, undefined]].sort());
      equal(Object.keys(clients).sort(), [clientId(ann), clientId(guest)].sort());
      equal(await subscription.presenceStats(), { numClients: 2, numUsers: 2 });
      other.unsubscribe();
      await until('the guest has left', async () => (await subscription.presenceStats()).numClients === 1);
    },
  ],
  [
    'a subscriber that asks sees others join and leave',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'door', { joinLeave: true });
      const deaf = await bench.subscribed(await bench.connected(), 'door');
      const guest = await bench.connected({ user: 'guest' });
      await bench.subscribed(guest, 'door');
      const isGuest = ({ info, channel }) => info.client === clientId(guest) && info.user === 'guest' && channel === 'door';
      await until('the join of the guest', () => contexts(subscription, 'join').some(isGuest));
      guest.disconnect();
      await until('the leave of the guest', () => contexts(subscription, 'leave').some(isGuest), 10_000);
      equal([contexts(deaf, 'join'), contexts(deaf, 'leave')], [[], []], 'who did not ask');
    },
  ],
  [
    'what is refused says why, and the connection lives on',
    async (bench) => {
      const client = await bench.connected();
      for (const [channel, code] of [['closed:x', 103], ['nowhere:x', 102], ['$private', 103], ['room#ann', 103]]) {
        equal((await event(bench.begun(client, channel), 'unsubscribed')).code, code, channel);
      }
      await rejectedWith(103, client.publish('closed:x', bench.pack({})));
      await rejectedWith(102, client.publish('nowhere:x', bench.pack({})));
      await rejectedWith(103, client.presence('closed:x'));
      await rejectedWith(103, client.history('closed:x', { limit: 1 }));
      await bench.subscribed(client, 'bare:x');
      await rejectedWith(103, client.publish('bare:x', bench.pack({})));
      await rejectedWith(108, client.presence('wish:x').then(() => client.presence('bare:x')), 'presence where there is none');
      equal([client.state, contexts(client, 'connected').length], ['connected', 1]);
    },
  ],
  [
    'kinds of subscription that longwire does not have are refused for good',
    async (bench) => {
      const client = await bench.connected();
      const subscription = client.newMapSubscription('map');
      subscription.noted = note(subscription, ['unsubscribed', 'error']);
      subscription.subscribe();
      equal((await event(subscription, 'unsubscribed')).code, 108);
      equal(client.state, 'connected');
    },
  ],
  [
    'a channel limited to users lets those in',
    async (bench) => {
      const [ann, eve] = [await bench.connected({ user: 'ann' }), await bench.connected({ user: 'eve' })];
      const hers = await bench.subscribed(ann, 'dialog#ann,bob');
      equal((await event(bench.begun(eve, 'dialog#ann,bob'), 'unsubscribed')).code, 103);
      await bench.publish('dialog#ann,bob', 'hush');
      equal(await bench.receives(hers, 1), ['hush']);
    },
  ],
  [
    'after an unsubscribe nothing arrives, and the client can subscribe again',
    async (bench) => {
      const [client, other] = [await bench.connected(), await bench.connected()];
      const subscription = await bench.subscribed(client, 'pause');
      const witness = await bench.subscribed(other, 'pause');
      subscription.unsubscribe();
      await until('the server has forgotten it', async () => (await bench.api('presence_stats', { channel: 'pause' })).num_clients === 1);
      await bench.publish('pause', 1);
      await bench.receives(witness, 1);
      equal(bench.received(subscription), []);
      subscription.subscribe();
      await subscription.ready(10_000);
      await bench.publish('pause', 2);
      // The subscription is recoverable, so that a return brings what was missed.
      equal((await bench.receives(subscription, 2)).at(-1), 2);
    },
  ],
  [
    'after a cut a subscription goes on where it stopped',
    async (bench) => {
      const client = await bench.connected();
      const subscription = await bench.subscribed(client, 'cut');
      const other = await bench.subscribed(client, 'cut2');
      await bench.publish('cut', { n: 1 });
      await bench.receives(subscription, 1);
      await bench.away(subscription);
      for (const n of [2, 3, 4]) await bench.publish('cut', { n }, { tags: { n: String(n) } });
      await bench.back();
      equal(recovery(await event(subscription, 'subscribed', 1)), { wasRecovering: true, recovered: true });
      equal(recovery(await event(other, 'subscribed', 1)), { wasRecovering: true, recovered: true }, 'where nothing was missed');
      await bench.publish('cut', { n: 5 });
      equal(await bench.receives(subscription, 5), numbers(1, 5).map((n) => ({ n })));
      equal(contexts(subscription, 'publication').map(({ offset }) => offset), [1, 2, 3, 4, 5]);
      equal(contexts(subscription, 'publication')[2].tags, { n: '3' });
    },
  ],
  [
    'a client that missed more than history keeps is told so, and given nothing old',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'small:gone');
      await bench.publish('small:gone', 1);
      await bench.receives(subscription, 1);
      await bench.away(subscription);
      for (const n of numbers(2, 21)) await bench.publish('small:gone', n);
      await bench.back();
      const context = await event(subscription, 'subscribed', 1);
      equal([recovery(context), context.streamPosition.offset], [{ wasRecovering: true, recovered: false }, 21]);
      await bench.publish('small:gone', 22);
      equal(await bench.receives(subscription, 2), [1, 22]);
    },
  ],
  [
    'a link that went silent is noticed by the client, and over a WebSocket by the server',
    async (bench) => {
      const client = await bench.connected();
      const subscription = await bench.subscribed(client, 'silence');
      const vanished = clientId(client);
      await bench.call('swallow');
      equal((await event(client, 'connecting', 1)).code, 2, 'no ping');
      await event(subscription, 'subscribed', 1, 20_000);
      holds(clientId(client) !== vanished, 'it is another connection');
      // A client of a stream is not asked for answers: docs/why/streams-need-no-pong.md. Here, the proxy still
      // acknowledges for it.
      if (bench.transport !== 'websocket') return;
      await until('only the new connection is there', async () => {
        const { presence } = await bench.api('presence', { channel: 'silence' });
        return Object.keys(presence).join() === clientId(client);
      }, 10_000);
    },
  ],
  [
    'a client that answers pings stays',
    async (bench) => {
      const client = await bench.connected();
      const from = performance.now();
      await until('three beats have passed or the connection has ended', () => performance.now() - from > 7000 || client.noted.length > 2, 8000);
      equal(client.noted.map(([name]) => name), ['connecting', 'connected']);
    },
  ],
  [
    'positioned and recoverable are as the client asks, where it may ask',
    async (bench) => {
      const client = await bench.connected();
      const got = async (channel, options) => {
        const context = contexts(await bench.subscribed(client, channel, options), 'subscribed')[0];
        return [context.positioned, context.recoverable, context.streamPosition?.offset];
      };
      await bench.publish('wish:positioned', 1);
      equal(await got('wish:positioned', { positioned: true }), [true, false, 1]);
      equal(await got('wish:recoverable', { recoverable: true }), [true, true, 0]);
      equal(await got('wish:neither', {}), [false, false, undefined]);
      equal(await got('bare:both', { positioned: true, recoverable: true }), [false, false, undefined]);
    },
  ],
  [
    'in cache mode a return brings the latest publication and nothing twice',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'cache:price');
      await bench.publish('cache:price', 1);
      await bench.receives(subscription, 1);
      await bench.away(subscription);
      for (const n of [2, 3, 4]) await bench.publish('cache:price', n);
      await bench.back();
      equal(recovery(await event(subscription, 'subscribed', 1)), { wasRecovering: true, recovered: true });
      equal(await bench.receives(subscription, 2), [1, 4]);
      await bench.away(subscription);
      await bench.back();
      equal(recovery(await event(subscription, 'subscribed', 2)), { wasRecovering: true, recovered: true });
      await bench.publish('cache:price', 5);
      equal(await bench.receives(subscription, 3), [1, 4, 5]);
    },
  ],
  [
    'deltas become the very same publications, across a cut too',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'delta', { delta: 'fossil' });
      const plain = await bench.subscribed(await bench.connected(), 'delta');
      const send = async (from, to) => {
        // Now and then one that is not to be a delta, and one that has little in common with the last.
        for (const n of numbers(from, to)) await bench.publish('delta', n % 25 === 0 ? { n, other: 'ö'.repeat(n) } : page(n), { delta: n % 10 !== 3 });
      };
      const all = (to) => numbers(1, to).map((n) => (n % 25 === 0 ? { n, other: 'ö'.repeat(n) } : page(n)));
      await send(1, 60);
      equal(await bench.receives(subscription, 60), all(60));
      equal(await bench.receives(plain, 60), all(60), 'who did not ask for deltas');
      const before = subscription.deltaStats();
      // Without a delta: 6 were published so, and where the page changed as a whole, 4, it may be shorter without.
      holds(before.numPublications === 60 && before.numDeltaPayloads >= 48 && before.numDeltaPayloads <= 53, `deltas ${JSON.stringify(before)}`);
      holds(before.compressionRatio > 0.7, `deltas ${JSON.stringify(before)}`);
      await bench.away(subscription);
      await send(61, 80);
      await bench.back();
      equal(recovery(await event(subscription, 'subscribed', 1)), { wasRecovering: true, recovered: true });
      await send(81, 90);
      equal(await bench.receives(subscription, 90), all(90));
      const after = subscription.deltaStats();
      holds(after.numDeltaPayloads - before.numDeltaPayloads >= 15, `deltas after the cut ${JSON.stringify([before, after])}`);
    },
  ],
  [
    'a delta that a namespace does not allow is not agreed on',
    async (bench) => {
      const subscription = await bench.subscribed(await bench.connected(), 'wish:delta', { delta: 'fossil' });
      for (const n of [1, 2, 3]) await bench.publish('wish:delta', page(n), { delta: true });
      equal(await bench.receives(subscription, 3), [1, 2, 3].map(page));
      equal(subscription.deltaStats().numDeltaPayloads, 0);
    },
  ],
  [
    'a tag filter lets pass what it describes, across a cut too, and loses nothing',
    async (bench) => {
      const isEven = { key: 'kind', cmp: 'eq', val: 'even' };
      const tagsFilter = { op: 'and', nodes: [isEven, { op: 'or', nodes: [{ key: 'n', cmp: 'gt', val: '4' }, { key: 'n', cmp: 'in', vals: ['2'] }] }] };
      const client = await bench.connected();
      const subscription = await bench.subscribed(client, 'filtered', { tagsFilter });
      const send = async (from, to) => {
        for (const n of numbers(from, to)) await bench.publish('filtered', n, { tags: { kind: n % 2 ? 'odd' : 'even', n: String(n) } });
      };
      await send(1, 10);
      equal(await bench.receives(subscription, 4), [2, 6, 8, 10]);
      equal(contexts(subscription, 'publication').map(({ offset }) => offset), [2, 6, 8, 10]);
      await bench.away(subscription);
      await send(11, 15);
      await bench.back();
      equal(recovery(await event(subscription, 'subscribed', 1)), { wasRecovering: true, recovered: true });
      await send(16, 20);
      await bench.publish('filtered', 'untagged');
      await bench.publish('filtered', 'last', { tags: { kind: 'even', n: '99' } });
      equal(await bench.receives(subscription, 10), [2, 6, 8, 10, 12, 14, 16, 18, 20, 'last']);
      equal(contexts(subscription, 'subscribing').length, 2, 'no gap was seen where publications were left out');
    },
  ],
  [
    'a tag filter that is nonsense, or not allowed, is refused',
    async (bench) => {
      const client = await bench.connected();
      const leaf = { key: 'a', cmp: 'eq', val: '1' };
      for (const [i, tagsFilter] of [{ ...leaf, cmp: 'nonsense' }, { op: 'nonsense', nodes: [leaf] }, { op: 'not', nodes: [leaf, leaf] }, { op: 'and', nodes: [] }].entries()) {
        equal((await event(bench.begun(client, `nonsense${i}`, { tagsFilter }), 'unsubscribed')).code, 107, JSON.stringify(tagsFilter));
      }
      equal((await event(bench.begun(client, 'wish:filter', { tagsFilter: leaf }), 'unsubscribed')).code, 107, 'not allowed');
    },
  ],
  [
    'a connection outlives its token if it is refreshed in time',
    async (bench) => {
      let asked = 0;
      const getToken = () => {
        asked += 1;
        return bench.token({ sub: 'long', ttl: 2 });
      };
      const client = await bench.connected({ getToken });
      const subscription = await bench.subscribed(client, 'long');
      await until('three refreshes', () => asked >= 4, 15_000);
      await subscription.publish(bench.pack('still here'));
      await bench.receives(subscription, 1);
      equal(contexts(client, 'connected').length, 1, 'it never had to reconnect');
    },
  ],
  [
    'an expired token is answered by a request for a fresh one',
    async (bench) => {
      let asked = 0;
      const getToken = () => {
        asked += 1;
        return bench.token({ sub: 'late' });
      };
      const client = await bench.connected({ token: await bench.token({ sub: 'late', ttl: -3600 }), getToken });
      equal([asked, contexts(client, 'disconnected').length], [1, 0]);
    },
  ],
  [
    'a connection whose token is not refreshed is closed as expired and comes back with a fresh one',
    async (bench) => {
      let given = 0;
      const getToken = () => {
        given += 1;
        if (given === 2) return Promise.reject(new Error('no token at the moment'));
        return bench.token({ sub: 'late', ttl: given === 1 ? 3 : 60 });
      };
      const client = await bench.connected({ getToken });
      equal((await event(client, 'connecting', 1, 15_000)).code, 3005);
      await event(client, 'connected', 1);
    },
  ],
  [
    'a token with a wrong signature ends the attempt for good',
    async (bench) => {
      const client = bench.client({ token: `${(await bench.token({ sub: 'eve' })).slice(0, -6)}AAAAAA` });
      client.connect();
      equal((await event(client, 'disconnected')).code, 3500);
    },
  ],
  [
    'a subscription token opens a private channel, and is refreshed',
    async (bench) => {
      let asked = 0;
      const getToken = ({ channel }) => {
        asked += 1;
        return bench.token({ sub: 'ann', channel, info: { role: 'guest' }, ttl: 2 });
      };
      const client = await bench.connected({ user: 'ann' });
      const subscription = await bench.subscribed(client, '$secret', { getToken });
      const { presence } = await bench.api('presence', { channel: '$secret' });
      equal(presence, { [clientId(client)]: { user: 'ann', client: clientId(client), chan_info: { role: 'guest' } } });
      await until('three refreshes', () => asked >= 4, 15_000);
      await bench.publish('$secret', 'still open');
      equal(await bench.receives(subscription, 1), ['still open']);
      equal(contexts(subscription, 'subscribing').length, 1, 'it never had to subscribe again');
    },
  ],
  [
    'a subscription whose token is not refreshed ends, and begins again with a fresh one',
    async (bench) => {
      let given = 0;
      const getToken = ({ channel }) => {
        given += 1;
        if (given === 2) return Promise.reject(new Error('no token at the moment'));
        return bench.token({ sub: 'ann', channel, ttl: given === 1 ? 3 : 60 });
      };
      const client = await bench.connected({ user: 'ann' });
      const subscription = await bench.subscribed(client, '$brief', { getToken });
      equal((await event(subscription, 'subscribing', 1, 15_000)).code, 2501, 'subscription expired');
      await event(subscription, 'subscribed', 1, 15_000);
      equal(contexts(client, 'connected').length, 1, 'the connection lives on');
    },
  ],
  [
    'getState is asked at first and when recovery is impossible, and not otherwise',
    async (bench) => {
      const states = [];
      const getState = async () => {
        const { offset, epoch } = await bench.api('history', { channel: 'small:state' });
        states.push(offset);
        // Published after the state was read: it must arrive as a publication.
        if (states.length === 1) await bench.publish('small:state', 1);
        return { offset, epoch };
      };
      const subscription = await bench.subscribed(await bench.connected(), 'small:state', { getState });
      equal(await bench.receives(subscription, 1), [1]);
      equal(states, [0]);
      await bench.away(subscription);
      for (const n of [2, 3]) await bench.publish('small:state', n);
      await bench.back();
      equal(await bench.receives(subscription, 3), [1, 2, 3]);
      equal(states, [0], 'recovery was possible');
      await bench.away(subscription);
      for (const n of numbers(4, 23)) await bench.publish('small:state', n);
      await bench.back();
      await until('getState was asked again', () => states.length === 2, 10_000);
      await subscription.ready(10_000);
      await bench.publish('small:state', 24);
      equal(await bench.receives(subscription, 4), [1, 2, 3, 24]);
      equal(states, [0, 23]);
      const answers = contexts(subscription, 'subscribed').map(({ recovered }) => recovered);
      equal(answers, [true, true, true], 'where it is impossible, the answer is an error and not recovered: false');
    },
  ],
  [
    'an RPC is answered by the backend, with data, an error of its own, or a temporary error',
    async (bench) => {
      const client = await bench.connected({ user: 'ann' });
      const { data } = await client.rpc('echo', bench.pack({ say: 'grüß \u{1f44b}' }));
      const { method, user, said, transport, protocol, encoding } = bench.unpack(data);
      equal([method, user, said], ['echo', 'ann', { say: 'grüß \u{1f44b}' }]);
      equal([transport, protocol, encoding], [bench.transport, bench.encoding, 'json']);
      await rejectedWith(1404, client.rpc('refuse', bench.pack({})), 'an error of the backend');
      await rejectedWith(100, client.rpc('crash', bench.pack({})), 'a backend that answers 500');
      await rejectedWith(100, client.rpc('garbage', bench.pack({})), 'a backend that answers nonsense');
      equal([client.state, contexts(client, 'connected').length], ['connected', 1]);
      client.rpc('ban', bench.pack({})).catch(() => {});
      equal((await event(client, 'disconnected')).code, 4501, 'a backend that orders a disconnect');
    },
  ],
  [
    'a server-side subscription recovers what was published while the client was away',
    async (bench) => {
      const client = await bench.connected({ user: 'post', claims: { channels: ['inbox', 'spam'] } });
      await until('both subscriptions', () => contexts(client, 'subscribed').length === 2);
      await bench.publish('inbox', 1);
      await bench.receives(client, 1);
      await bench.away(client);
      for (const n of [2, 3]) await bench.publish('inbox', n);
      await bench.back();
      await until('both subscriptions again', () => contexts(client, 'subscribed').length === 4, 10_000);
      const again = contexts(client, 'subscribed').slice(2).map((context) => [context.channel, recovery(context)]);
      equal(again.sort(), [['inbox', { wasRecovering: true, recovered: true }], ['spam', { wasRecovering: true, recovered: true }]]);
      await bench.publish('spam', 'buy');
      equal(await bench.receives(client, 4), [1, 2, 3, 'buy']);
      equal(contexts(client, 'publication').map(({ channel, offset }) => [channel, offset]), [['inbox', 1], ['inbox', 2], ['inbox', 3], ['spam', 1]]);
    },
  ],
  [
    'what the backend subscribes, unsubscribes and says is told to the client',
    async (bench) => {
      const client = await bench.connected({ user: 'told' });
      await bench.publish('news', 'old');
      const { epoch } = await bench.api('history', { channel: 'news' });
      await bench.api('subscribe', { channel: 'news', user: 'told', data: { why: 'because' }, recover_since: { offset: 0, epoch } });
      const context = await event(client, 'subscribed');
      equal([context.channel, bench.unpack(context.data)], ['news', { why: 'because' }]);
      equal(await bench.receives(client, 1), ['old'], 'recover_since');
      await bench.publish('news', 'extra');
      equal(await bench.receives(client, 2), ['old', 'extra']);
      await bench.api('unsubscribe', { channel: 'news', user: 'told' });
      equal((await event(client, 'unsubscribed')).channel, 'news');
      const own = await bench.subscribed(client, 'own');
      await bench.api('unsubscribe', { channel: 'own', user: 'told' });
      equal((await event(own, 'unsubscribed')).code, 2000);
      equal(client.state, 'connected');
    },
  ],
  [
    'a disconnect by the backend has its code and reason, and is final where it says so',
    async (bench) => {
      for (const [disconnect, code, reason] of [[undefined, 3503, 'force disconnect'], [{ code: 4501, reason: 'banned' }, 4501, 'banned']]) {
        const client = await bench.connected({ user: `gone${code}` });
        await bench.api('disconnect', { user: `gone${code}`, ...(disconnect && { disconnect }) });
        const context = await event(client, 'disconnected');
        equal([context.code, context.reason], [code, reason]);
      }
      const client = await bench.connected({ user: 'elsewhere' });
      await bench.api('disconnect', { user: 'elsewhere', disconnect: { code: 4001, reason: 'elsewhere' } });
      equal((await event(client, 'connecting', 1)).code, 4001);
      await event(client, 'connected', 1);
    },
  ],
  [
    'a publication spares who is excluded',
    async (bench) => {
      const [ann, bob, eve] = [await bench.connected({ user: 'ann' }), await bench.connected({ user: 'bob' }), await bench.connected({ user: 'eve' })];
      const [hers, his, other] = [await bench.subscribed(ann, 'spare'), await bench.subscribed(bob, 'spare'), await bench.subscribed(eve, 'spare')];
      await bench.publish('spare', 1, { exclude_client: clientId(ann) });
      await bench.publish('spare', 2, { exclude_user: 'bob' });
      await bench.publish('spare', 3);
      equal(await bench.receives(other, 3), [1, 2, 3]);
      equal(await bench.receives(hers, 2), [2, 3]);
      equal(await bench.receives(his, 2), [1, 3]);
      equal([hers, his].map((subscription) => contexts(subscription, 'subscribing').length), [1, 1], 'who was spared saw no gap');
    },
  ],
];
