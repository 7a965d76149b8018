// The HTTP API as a backend sees it: exact JSON, exact statuses, exact errors.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { API_KEY, inSeconds, settings, startLongwire, token } from './longwire.mjs';
import { until } from './until.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const EPOCH = /^[a-zA-Z0-9]{8}$/;

let longwire;
const clients = [];

before(async () => {
  longwire = await startLongwire();
});
after(async () => {
  for (const client of clients) client.disconnect();
  await longwire?.stop();
});

/** A connected client of the user, subscribed to the channels; `closed` tells the code it was closed with. */
async function connected(user, channels = [], claims = {}) {
  const client = new Centrifuge(`ws://127.0.0.1:${longwire.port}/connection/websocket`, {
    websocket: WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 100,
    ...(user && { token: token({ sub: user, exp: inSeconds(60), ...claims }) }),
  });
  clients.push(client);
  client.on('connected', (context) => (client.id = context.client));
  client.on('disconnected', ({ code }) => (client.closed = code));
  client.connect();
  await client.ready(5000);
  for (const channel of channels) {
    const subscription = client.newSubscription(channel);
    subscription.subscribe();
    await subscription.ready(5000);
  }
  return client;
}

/** A call that must be answered with status 200 and exactly `expected`. */
async function exactly(method, request, expected) {
  const { status, body, text } = await longwire.post(method, request);
  assert.equal(status, 200, `${method} ${JSON.stringify(request)}: ${text}`);
  assert.deepEqual(body, expected, `${method} ${JSON.stringify(request)}`);
}

const error = (code, message) => ({ error: { code, message } });
const BAD_REQUEST = error(107, 'bad request');
const UNKNOWN_CHANNEL = error(102, 'unknown channel');
const NOT_AVAILABLE = error(108, 'not available');

describe('who may call', () => {
  test('the key is taken from X-API-Key, Authorization or the query', async () => {
    const request = { channel: 'bare:key', data: {} };
    for (const headers of [{ 'X-API-Key': API_KEY }, { Authorization: `apikey ${API_KEY}` }, { Authorization: `ApiKey ${API_KEY}` }]) {
      assert.equal((await longwire.post('publish', request, headers)).status, 200, JSON.stringify(headers));
    }
    assert.equal((await longwire.post(`publish?api_key=${API_KEY}`, request, {})).status, 200);
  });

  test('no key and a wrong key are answered 401 with nothing', async () => {
    const request = { channel: 'bare:key', data: {} };
    for (const headers of [{}, { 'X-API-Key': 'wrong' }, { 'X-API-Key': '' }, { Authorization: 'apikey wrong' }, { Authorization: `Bearer ${API_KEY}` }]) {
      const { status, text } = await longwire.post('publish', request, headers);
      assert.deepEqual([status, text], [401, ''], JSON.stringify(headers));
    }
  });

  test('a wrong X-API-Key is not made good by a right Authorization', async () => {
    const headers = { 'X-API-Key': 'wrong', Authorization: `apikey ${API_KEY}` };
    assert.equal((await longwire.post('publish', { channel: 'bare:key', data: {} }, headers)).status, 401);
  });

  test('without a configured key loopback is served, and the log says so', async () => {
    const configuration = settings();
    delete configuration.api;
    const open = await startLongwire(configuration);
    try {
      assert.equal((await open.post('publish', { channel: 'bare:key', data: {} }, {})).status, 200);
      assert.match(open.log, /loopback/);
    } finally {
      await open.stop();
    }
  });
});

describe('what is not a call', () => {
  test('another HTTP method is answered 405', async () => {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const { status } = await fetch(`${longwire.url}/api/publish`, { method, headers: { 'X-API-Key': API_KEY } });
      assert.equal(status, 405, method);
    }
  });

  test('an unknown method is answered 404', async () => {
    assert.equal((await longwire.post('no_such_method', {})).status, 404);
  });

  test('a body that is not a JSON object is answered 400', async () => {
    for (const body of ['', '{', 'nonsense', '{"channel":"a"', '[]', '"text"', '{"channel":7,"data":{}}', '\u0000']) {
      const { status } = await longwire.post('publish', body);
      assert.equal(status, 400, JSON.stringify(body));
    }
  });

  test('a body above the limit is answered 413', async () => {
    const { status } = await longwire.post('publish', JSON.stringify({ channel: 'big', data: 'x'.repeat(1024 * 1024) }));
    assert.equal(status, 413);
  });

  test('the content type of a call does not matter, that of an answer is JSON', async () => {
    for (const type of ['application/json', 'application/x-www-form-urlencoded', 'text/plain']) {
      const answer = await fetch(`${longwire.url}/api/info`, { method: 'POST', headers: { 'X-API-Key': API_KEY, 'Content-Type': type }, body: '{}' });
      assert.equal(answer.status, 200, type);
      assert.match(answer.headers.get('content-type'), /^application\/json/);
    }
  });
});

describe('publish', () => {
  test('answers with the position, or with nothing in a channel without history', async () => {
    const { status, body } = await longwire.post('publish', { channel: 'pub1', data: { a: 1 } });
    assert.equal(status, 200);
    assert.deepEqual(Object.keys(body), ['result']);
    assert.deepEqual(Object.keys(body.result).sort(), ['epoch', 'offset']);
    assert.equal(body.result.offset, 1);
    assert.match(body.result.epoch, EPOCH);
    assert.equal((await longwire.post('publish', { channel: 'bare:pub1', data: { a: 1 } })).text, '{"result":{}}');
  });

  test('takes any JSON as data, and base64', async () => {
    const values = [[], {}, 'text', 0, false, [{ deep: [1.5e3] }], 'ümläut \u{1f600}'];
    for (const data of values) await longwire.call('publish', { channel: 'pub2', data });
    await longwire.call('publish', { channel: 'pub2', b64data: Buffer.from('{"b":64}').toString('base64') });
    const { publications } = await longwire.call('history', { channel: 'pub2', limit: 100 });
    assert.deepEqual(publications.map(({ data }) => data), [...values, { b: 64 }]);
  });

  test('refuses what is missing or malformed', async () => {
    await exactly('publish', { data: {} }, BAD_REQUEST);
    await exactly('publish', { channel: '', data: {} }, BAD_REQUEST);
    await exactly('publish', { channel: 'pub3' }, BAD_REQUEST);
    await exactly('publish', { channel: 'pub3', b64data: '%%%' }, BAD_REQUEST);
    await exactly('publish', { channel: 'nowhere:x', data: {} }, UNKNOWN_CHANNEL);
  });

  test('skip_history delivers without keeping', async () => {
    const client = await connected('', ['pub4']);
    const received = [];
    client.getSubscription('pub4').on('publication', ({ data }) => received.push(data));
    await longwire.call('publish', { channel: 'pub4', data: 'fleeting', skip_history: true });
    await until('the publication', () => received.length === 1);
    assert.deepEqual((await longwire.call('history', { channel: 'pub4', limit: 10 })).publications, []);
  });

  test('what is repeated or older is published once', async () => {
    for (const option of [{ idempotency_key: 'order-7' }, { version: 7 }]) {
      const first = await longwire.call('publish', { channel: 'pub5', data: option, ...option });
      await exactly('publish', { channel: 'pub5', data: 'again', ...option }, { result: first });
    }
    const { publications } = await longwire.call('history', { channel: 'pub5', limit: 10 });
    assert.deepEqual(publications.map(({ data }) => data), [{ idempotency_key: 'order-7' }, { version: 7 }]);
  });

  test('tags travel along', async () => {
    await longwire.call('publish', { channel: 'pub6', data: 1, tags: { kind: 'x', lang: 'de' } });
    const { publications } = await longwire.call('history', { channel: 'pub6', limit: 1 });
    assert.deepEqual(publications, [{ data: 1, offset: 1, tags: { kind: 'x', lang: 'de' } }]);
  });

  test('takes the defaults that phpcent spells out', async () => {
    await longwire.call('publish', { channel: 'pub7', data: [], skip_history: false });
    await longwire.call('history', { channel: 'pub7', limit: 0, reverse: false });
    await longwire.call('subscribe', { channel: 'pub7', user: 'nobody', client: '' });
    await longwire.call('unsubscribe', { channel: 'pub7', user: 'nobody', client: '' });
    await longwire.call('disconnect', { user: 'nobody', client: '' });
    await longwire.call('channels', { pattern: '' });
  });
});

describe('broadcast', () => {
  test('answers for each channel in its place', async () => {
    const { status, body } = await longwire.post('broadcast', { channels: ['bc1', 'nowhere:x', 'bare:bc'], data: { a: 1 } });
    assert.equal(status, 200);
    const [{ result }] = body.result.responses;
    assert.equal(result.offset, 1);
    assert.match(result.epoch, EPOCH);
    assert.deepEqual(body, { result: { responses: [{ result }, UNKNOWN_CHANNEL, { result: {} }] } });
  });

  test('refuses no channels and no data', async () => {
    await exactly('broadcast', { channels: [], data: {} }, BAD_REQUEST);
    await exactly('broadcast', { data: {} }, BAD_REQUEST);
  });
});

describe('history', () => {
  test('gives the position, pages and both directions', async () => {
    const { epoch } = await longwire.call('publish', { channel: 'h1', data: { n: 1 } });
    for (let n = 2; n <= 5; n += 1) await longwire.call('publish', { channel: 'h1', data: { n } });
    const pub = (n) => ({ data: { n }, offset: n });
    const page = (publications) => ({ result: { publications, epoch, offset: 5 } });
    await exactly('history', { channel: 'h1' }, page([]));
    await exactly('history', { channel: 'h1', limit: 2 }, page([pub(1), pub(2)]));
    await exactly('history', { channel: 'h1', limit: -1 }, page([1, 2, 3, 4, 5].map(pub)));
    await exactly('history', { channel: 'h1', limit: 2, since: { offset: 2, epoch } }, page([pub(3), pub(4)]));
    await exactly('history', { channel: 'h1', limit: 2, reverse: true }, page([pub(5), pub(4)]));
    await exactly('history', { channel: 'h1', limit: 9, since: { offset: 3, epoch }, reverse: true }, page([pub(2), pub(1)]));
  });

  test('of a channel that nobody used is empty', async () => {
    const { epoch } = await longwire.call('history', { channel: 'h2', limit: 5 });
    assert.match(epoch, EPOCH);
    await exactly('history', { channel: 'h2', limit: 5 }, { result: { publications: [], epoch, offset: 0 } });
  });

  test('history_remove forgets publications and keeps the position', async () => {
    const { epoch, offset } = await longwire.call('publish', { channel: 'h3', data: 1 });
    await exactly('history_remove', { channel: 'h3' }, { result: {} });
    await exactly('history', { channel: 'h3', limit: 5 }, { result: { publications: [], epoch, offset } });
  });

  test('refuses another epoch, no channel, a channel without history', async () => {
    await exactly('history', { channel: 'h1', limit: 1, since: { offset: 1, epoch: 'zzzzzzzz' } }, error(112, 'unrecoverable position'));
    for (const method of ['history', 'history_remove']) {
      await exactly(method, {}, BAD_REQUEST);
      await exactly(method, { channel: 'nowhere:x' }, UNKNOWN_CHANNEL);
      await exactly(method, { channel: 'bare:x' }, NOT_AVAILABLE);
    }
  });
});

describe('presence', () => {
  test('lists clients with user and infos, and counts them', async () => {
    const ann = await connected('ann', ['p1'], { info: { name: 'Ann' } });
    const guest = await connected('', ['p1']);
    assert.match(ann.id, UUID);
    await exactly('presence', { channel: 'p1' }, {
      result: {
        presence: {
          [ann.id]: { user: 'ann', client: ann.id, conn_info: { name: 'Ann' } },
          [guest.id]: { user: '', client: guest.id },
        },
      },
    });
    await exactly('presence_stats', { channel: 'p1' }, { result: { num_clients: 2, num_users: 2 } });
  });

  test('of an empty channel is empty', async () => {
    assert.equal((await longwire.post('presence', { channel: 'p2' })).text, '{"result":{"presence":{}}}');
    assert.equal((await longwire.post('presence_stats', { channel: 'p2' })).text, '{"result":{"num_clients":0,"num_users":0}}');
  });

  test('refuses no channel, an unknown one, one without presence', async () => {
    for (const method of ['presence', 'presence_stats']) {
      await exactly(method, {}, BAD_REQUEST);
      await exactly(method, { channel: 'nowhere:x' }, UNKNOWN_CHANNEL);
      await exactly(method, { channel: 'bare:x' }, NOT_AVAILABLE);
    }
  });
});

describe('clients', () => {
  test('subscribe and unsubscribe change what a user receives', async () => {
    const client = await connected('eve');
    const events = [];
    for (const name of ['subscribed', 'unsubscribed', 'publication']) client.on(name, ({ channel }) => events.push([name, channel]));
    await exactly('subscribe', { channel: 'c1', user: 'eve' }, { result: {} });
    await until('the subscription', () => events.length === 1);
    await longwire.call('publish', { channel: 'c1', data: 1 });
    await until('the publication', () => events.length === 2);
    await exactly('unsubscribe', { channel: 'c1', user: 'eve' }, { result: {} });
    await until('the end', () => events.length === 3);
    assert.deepEqual(events, [['subscribed', 'c1'], ['publication', 'c1'], ['unsubscribed', 'c1']]);
  });

  test('disconnect spares the whitelisted clients', async () => {
    const [kept, gone] = [await connected('mallory'), await connected('mallory')];
    await exactly('disconnect', { user: 'mallory', whitelist: [kept.id] }, { result: {} });
    await until('the other is closed', () => gone.closed !== undefined);
    assert.equal(gone.closed, 3503);
    assert.equal(kept.state, 'connected');
    await exactly('disconnect', { user: 'mallory', disconnect: { code: 4999, reason: 'over' } }, { result: {} });
    await until('the last is closed', () => kept.closed !== undefined);
    assert.equal(kept.closed, 4999);
  });

  test('what concerns a user who is not there succeeds', async () => {
    for (const [method, request] of [['subscribe', { channel: 'c2' }], ['unsubscribe', { channel: 'c2' }], ['disconnect', {}], ['refresh', { expire_at: inSeconds(60) }]]) {
      await exactly(method, { user: 'not-there', ...request }, { result: {} });
    }
  });

  test('refresh can end a connection', async () => {
    const client = await connected('trent');
    let left;
    client.on('connecting', ({ code }) => (left = code));
    await exactly('refresh', { user: 'trent', expired: true }, { result: {} });
    await until('the connection expired', () => left !== undefined);
    assert.equal(left, 3005);
  });

  test('subscribe and unsubscribe refuse unknown channels', async () => {
    await exactly('subscribe', { user: 'eve' }, BAD_REQUEST);
    await exactly('subscribe', { user: 'eve', channel: 'nowhere:x' }, UNKNOWN_CHANNEL);
    await exactly('unsubscribe', { user: 'eve', channel: 'nowhere:x' }, UNKNOWN_CHANNEL);
  });
});

describe('overview', () => {
  test('channels lists those with subscribers, all or by pattern', async () => {
    await connected('', ['ov1', 'ov2', 'bare:ov']);
    await connected('', ['ov1']);
    const { channels } = await longwire.call('channels', {});
    assert.deepEqual([channels.ov1, channels.ov2, channels['bare:ov']], [{ num_clients: 2 }, { num_clients: 1 }, { num_clients: 1 }]);
    await exactly('channels', { pattern: 'ov*' }, { result: { channels: { ov1: { num_clients: 2 }, ov2: { num_clients: 1 } } } });
    await exactly('channels', { pattern: 'none*' }, { result: { channels: {} } });
  });

  test('info describes the node', async () => {
    const { nodes } = await longwire.call('info', {});
    assert.equal(nodes.length, 1);
    const [node] = nodes;
    for (const [key, type] of Object.entries({ uid: 'string', name: 'string', version: 'string', num_clients: 'number', num_users: 'number', num_channels: 'number', num_subs: 'number', uptime: 'number' })) {
      assert.equal(typeof node[key], type, key);
    }
    assert.ok(node.num_clients >= 2 && node.num_channels >= 3, JSON.stringify(node));
  });

  test('health answers, metrics are for Prometheus', async () => {
    assert.equal((await fetch(`${longwire.url}/health`)).status, 200);
    // Metrics tell about users' behaviour: they need the key too.
    assert.equal((await fetch(`${longwire.url}/metrics`)).status, 401);
    const answer = await fetch(`${longwire.url}/metrics`, { headers: { 'X-API-Key': API_KEY } });
    assert.equal(answer.status, 200);
    assert.match(await answer.text(), /^# TYPE /m);
  });
});

describe('batch', () => {
  test('answers at the top, in order, each in its own shape', async () => {
    const commands = [
      { publish: { channel: 'b1', data: 1 } },
      { publish: { channel: 'b1', data: 2 } },
      { publish: { channel: 'nowhere:x', data: 1 } },
      { broadcast: { channels: ['bare:b'], data: 1 } },
      { history: { channel: 'b1', limit: 1 } },
      { presence_stats: { channel: 'b1' } },
      null,
      { no_such_method: {} },
      { unsubscribe: { channel: 'b1', user: 'nobody' } },
    ];
    const { status, body } = await longwire.post('batch', { commands });
    assert.equal(status, 200);
    const { epoch } = body.replies[0].publish;
    assert.deepEqual(body, {
      replies: [
        { publish: { offset: 1, epoch } },
        { publish: { offset: 2, epoch } },
        UNKNOWN_CHANNEL,
        { broadcast: { responses: [{ result: {} }] } },
        { history: { publications: [{ data: 1, offset: 1 }], epoch, offset: 2 } },
        { presence_stats: { num_clients: 0, num_users: 0 } },
        BAD_REQUEST,
        error(104, 'method not found'),
        { unsubscribe: {} },
      ],
    });
  });

  test('in parallel gives the replies in the order of the commands', async () => {
    const commands = Array.from({ length: 20 }, (_, i) => ({ publish: { channel: `b2-${i}`, data: i } }));
    const { body } = await longwire.post('batch', { commands, parallel: true });
    assert.equal(body.replies.length, 20);
    assert.ok(body.replies.every(({ publish }) => publish.offset === 1), JSON.stringify(body));
    assert.deepEqual((await longwire.call('history', { channel: 'b2-7', limit: 1 })).publications, [{ data: 7, offset: 1 }]);
  });
});
