// A backend in PHP is told of everybody who comes and goes, whatever dies meanwhile.
//
// Clients of every transport come and go, some politely, some cut off, some vanished without a word. Meanwhile the
// backend is killed and started again, and so is longwire, at once with no warning. In the end the backend's
// record must be the truth: of every client that was ever told that it is connected one beginning and one end, and
// between them everything in order.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { FaultProxy } from './fault_proxy.mjs';
import { freePort, settings, startLongwire } from './longwire.mjs';
import { PhpBackend } from './php.mjs';
import { COMBINATIONS } from './sdk_bench.mjs';
import { Bench, clientId, contexts } from './sdk_cases.mjs';
import { until } from './until.mjs';

const CLIENTS = 15;
const options = { websocket: WebSocket, fetch, readableStream: ReadableStream, eventsource: EventSource };

let backend, longwire, proxy, directory, port, configuration;

async function startAgain() {
  longwire = await startLongwire(configuration, port);
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'longwire-events-'));
  port = await freePort();
  backend = await PhpBackend.start({ flaky: 4 });
  const room = { presence: true, history_size: 1000, history_ttl: '300s', force_recovery: true, subscribe_webhook: 'default' };
  configuration = settings({ server: { drain_over: '100ms', drain_deadline: '5s', data_dir: join(directory, 'data') }, namespaces: { room }, ...backend.settings() });
  await startAgain();
  proxy = await FaultProxy.start(port);
});
after(async () => {
  await proxy?.stop();
  await longwire?.stop();
  await backend?.stop();
  await rm(directory, { recursive: true, force: true });
});

/** Someone who keeps coming back, and remembers under which names. */
class Visitor {
  constructor(number) {
    const [transport, encoding] = COMBINATIONS[number % COMBINATIONS.length];
    const Centrifuge = encoding === 'json' ? JsonCentrifuge : ProtobufCentrifuge;
    // What each sends passes the proxy, but for one, who must not notice what happens to the others.
    const url = number === 0 ? `http://127.0.0.1:${port}` : proxy.url;
    const bench = new Bench({ Centrifuge, transport, encoding, url, options, call: async () => {} });
    this.user = `visitor${number}`;
    this.transport = transport;
    this.protocol = encoding;
    this.client = bench.client({ data: bench.pack({ user: this.user, password: 'open sesame' }), timeout: 3000 });
    this.rooms = ['room:all', `room:${number % 4}`].map((channel) => bench.begun(this.client, channel));
  }

  /** Whether it is where it wants to be. */
  get isThere() {
    return this.client.state === 'connected' && this.rooms.every(({ state }) => state === 'subscribed');
  }

  /** Every id under which it was ever told that it is connected. */
  get ids() {
    return contexts(this.client, 'connected').map(({ client }) => client);
  }
}

describe('events to a backend in PHP', () => {
  let visitors, recorded;
  /** By client id: how its connection ended. */
  const ended = new Map();
  /** Whether longwire cannot notice it: the proxy acknowledges for clients that need not answer beats. */
  const isUnnoticed = ({ transport }, fault) => fault === 'swallow' && transport !== 'websocket';
  const expected = (visitor, how) => ended.set(clientId(visitor.client), how);
  const allThere = (some = visitors) => until(() => `everybody is there; missing ${some.filter(({ isThere }) => !isThere).map(({ user, transport, client }) => `${user} ${transport} ${client.state}`)}`, () => some.every(({ isThere }) => isThere), 30_000);

  async function isRecorded(what, condition, limit = 30_000) {
    await until(what, async () => {
      recorded = await backend.recorded();
      return condition(recorded.events);
    }, limit);
  }

  test('while clients come and go, the backend dies and comes back, and longwire crashes', { timeout: 180_000 }, async () => {
    visitors = Array.from({ length: CLIENTS }, (_, number) => new Visitor(number));
    const [steady, ...others] = visitors;
    let isOver = false;
    const traffic = (async () => {
      for (let n = 1; !isOver; n += 1) {
        // A longwire that is dead at the moment is no failure.
        await longwire.call('publish', { channel: `room:${['all', 0, 1, 2, 3][n % 5]}`, data: { n } }).catch(() => {});
        if (n % 10 === 0) steady.client.rpc('add', [n]).catch(() => {});
        await new Promise((resume) => setTimeout(resume, 20));
      }
    })();
    try {
      for (const { client } of visitors) client.connect();
      await allThere();

      // Some go politely, and come back.
      for (const visitor of others.slice(0, 4)) {
        expected(visitor, 'polite');
        visitor.client.disconnect();
      }
      for (const { client } of others.slice(0, 4)) client.connect();
      await allThere();

      // The backend dies; who is there stays, who leaves is remembered for it.
      await backend.kill();
      for (const visitor of others.slice(4, 8)) {
        expected(visitor, 'polite');
        visitor.client.disconnect();
      }
      const before = steady.rooms[0].noted.length;
      await until('publications still arrive', () => steady.rooms[0].noted.length > before + 5, 10_000);
      for (const { client } of others.slice(4, 8)) client.connect();
      await backend.start();
      await allThere();

      // Cut off, then vanished, the backend dying in between.
      for (const fault of ['reset', 'finish', 'swallow']) {
        const cut = others.map((visitor) => [visitor, contexts(visitor.client, 'connecting').length]);
        for (const visitor of others) expected(visitor, isUnnoticed(visitor, fault) ? 'crash' : fault);
        proxy[fault]();
        if (fault !== 'finish') await backend.kill();
        await until(`everybody noticed ${fault}`, () => cut.every(([{ client }, count]) => contexts(client, 'connecting').length > count), 20_000);
        if (fault !== 'finish') await backend.start();
        await allThere();
      }

      // Longwire dies while nobody hears it. What it told its clients, it had time to write down.
      await backend.kill();
      for (const visitor of others.slice(0, 2)) {
        expected(visitor, 'polite');
        visitor.client.disconnect();
      }
      const from = performance.now();
      await until('a second has passed', () => performance.now() > from + 1000);
      for (const visitor of visitors.filter(({ client }) => client.state === 'connected')) expected(visitor, 'crash');
      await longwire.kill();
      await startAgain();
      for (const { client } of others.slice(0, 2)) client.connect();
      await backend.start();
      await allThere();

      // Longwire ends in order, and the backend hears of everybody.
      for (const visitor of visitors) expected(visitor, 'shutdown');
      await longwire.stop();
      await startAgain();
      await allThere();
    } finally {
      isOver = true;
      await traffic;
      for (const visitor of visitors) {
        if (visitor.client.state === 'connected') expected(visitor, 'polite');
        visitor.client.disconnect();
      }
    }
    const left = (events) => new Set(events.filter(({ type }) => type === 'disconnected').map(({ client }) => client));
    const ids = visitors.flatMap(({ ids }) => ids);
    // At first, after the crash and after the shutdown all came, after three faults all but one, and eight who went.
    assert.ok(ids.length >= 3 * CLIENTS + 3 * (CLIENTS - 1) + 8, `${ids.length} connections`);
    await isRecorded('the end of every connection', (events) => ids.every((id) => left(events).has(id)));
    const open = (events) => events.filter(({ type }) => type === 'occupied').length - events.filter(({ type }) => type === 'vacated').length;
    await isRecorded('the end of every channel', (events) => open(events) === 0);
    assert.equal(contexts(visitors[0].client, 'connected').length, 3, 'who was never cut only noticed the crash and the shutdown');
  });

  const by = (key) => group(recorded.events, key);

  test('every connection has one beginning and one end, and its events are in order and complete', () => {
    const clients = by('client');
    for (const id of visitors.flatMap(({ ids }) => ids)) assert.ok(clients.has(id), `nothing was told of ${id}`);
    for (const [id, events] of clients) {
      const types = events.map(({ type }) => type);
      assert.deepEqual(events.map(({ seq }) => seq), events.map((_, index) => index + 1), `${id}: ${types}`);
      assert.deepEqual([types[0], types.at(-1)], ['connected', 'disconnected'], `${id}: ${types}`);
      assert.equal(types.filter((type) => type === 'connected' || type === 'disconnected').length, 2, `${id}: ${types}`);
    }
  });

  test('every subscription has one beginning and one end, within its connection', () => {
    for (const [id, events] of by('client')) {
      const within = new Set();
      for (const { type, channel } of events) {
        if (type === 'subscribed') {
          assert.ok(!within.has(channel), `${id} subscribed to ${channel} twice`);
          within.add(channel);
        } else if (type === 'unsubscribed') assert.ok(within.delete(channel), `${id} was not subscribed to ${channel}`);
      }
      assert.deepEqual([...within], [], `${id} is still subscribed`);
    }
    const wanted = visitors.flatMap(({ ids, rooms }) => ids.flatMap((id) => rooms.map(({ channel }) => `${id} ${channel}`)));
    const told = new Set(recorded.events.filter(({ type }) => type === 'subscribed').map(({ client, channel }) => `${client} ${channel}`));
    // Who was cut before it was subscribed again is not told of; all others are.
    const missing = wanted.filter((subscription) => !told.has(subscription));
    assert.ok(missing.length <= 2 * CLIENTS, `missing: ${missing}`);
  });

  test('a beginning says who came and over what', () => {
    const clients = by('client');
    for (const { ids, user, transport, protocol } of visitors) {
      for (const id of ids) {
        const [first] = clients.get(id);
        assert.deepEqual([first.user, first.transport, first.protocol, first.dialect], [user, transport, protocol, 'centrifuge']);
      }
    }
  });

  test('an end says why, how long it was, and when the last sign of life came', () => {
    const clients = by('client');
    const seen = {};
    for (const [id, how] of ended) {
      const end = clients.get(id).at(-1);
      (seen[how] ??= []).push(end);
      assert.equal(end.type, 'disconnected', `${id}: ${JSON.stringify(end)}`);
    }
    for (const end of [...(seen.polite ?? []), ...(seen.reset ?? []), ...(seen.finish ?? []), ...(seen.swallow ?? [])]) {
      assert.ok(Number.isInteger(end.duration_ms) && end.duration_ms >= 0, JSON.stringify(end));
      assert.ok(Number.isInteger(end.last_seen_ms_ago) && end.last_seen_ms_ago <= end.duration_ms, JSON.stringify(end));
      assert.equal(end.reconciled, undefined, JSON.stringify(end));
    }
    const categories = (how) => [...new Set(seen[how].map(({ category }) => category))].sort();
    const reasons = (how) => [...new Set(seen[how].map(({ reason }) => reason))].sort();
    assert.deepEqual(categories('swallow'), ['network'], JSON.stringify(seen.swallow[0]));
    assert.deepEqual(reasons('swallow'), ['NoHeartbeat'], JSON.stringify(seen.swallow[0]));
    assert.ok(seen.swallow.every(({ last_seen_ms_ago }) => last_seen_ms_ago >= 900), JSON.stringify(seen.swallow));
    assert.deepEqual(categories('shutdown'), ['server'], JSON.stringify(seen.shutdown[0]));
    assert.ok(seen.crash.every(({ reconciled, category }) => reconciled === true && category === 'server'), JSON.stringify(seen.crash));
    assert.ok(seen.polite.every(({ category }) => category === 'client' || category === 'network'), JSON.stringify(seen.polite));
  });

  test('channels are occupied and vacated in turn', () => {
    for (const [channel, events] of by('channel')) {
      const turns = events.map(({ type }) => type).filter((type) => type === 'occupied' || type === 'vacated');
      assert.deepEqual(turns, turns.map((_, index) => (index % 2 ? 'vacated' : 'occupied')), channel);
      assert.ok(turns.length >= 2 && turns.length % 2 === 0, `${channel}: ${turns}`);
    }
  });

  test('what was not confirmed came again, and every delivery was signed', () => {
    const { repeated, refused } = recorded.counters;
    assert.ok(repeated > 0, JSON.stringify(recorded.counters));
    assert.equal(refused, undefined);
  });
});

/** The items that have the key, by its value, each group in their order. */
function group(items, key) {
  const groups = new Map();
  for (const item of items) {
    if (item[key] !== undefined) groups.set(item[key], [...(groups.get(item[key]) ?? []), item]);
  }
  return groups;
}
