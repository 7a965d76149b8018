// The HTTP API as a backend in PHP uses it, with curl: php/api.php has the calls and the exact answers.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';
import { API_KEY, settings, startLongwire, token } from './longwire.mjs';
import { runPhp } from './php.mjs';
import { Bench, clientId, contexts, event } from './sdk_cases.mjs';

let longwire, bench;
before(async () => {
  longwire = await startLongwire(settings({ channel: { allow_user_limited_channels: true } }));
  const deeds = { token: async (claims) => token(claims), allow: async () => {} };
  bench = new Bench({ Centrifuge, transport: 'websocket', encoding: 'json', url: longwire.url, options: { websocket: WebSocket }, call: (name, ...parameters) => deeds[name](...parameters) });
});
after(async () => {
  await bench.close();
  await longwire?.stop();
});

test('the comparison of JSON that the calls rely on can fail', async () => {
  assert.deepEqual(await runPhp('expect_check.php', []), ['']);
});

test('every method is answered exactly', { timeout: 90_000 }, async (t) => {
  const [ann, bob] = [await bench.connected({ user: 'ann', claims: { info: { name: 'Ann' } } }), await bench.connected({ user: 'bob' })];
  const rooms = [await bench.subscribed(ann, 'room'), await bench.subscribed(bob, 'room')];
  await bench.subscribed(ann, 'limited#ann');
  const [carl, dora] = [await bench.connected({ user: 'carl', claims: { jti: 'stolen' } }), await bench.connected({ user: 'dora', claims: { iat: 1_700_000_000 } })];
  const clients = { ann: clientId(ann), bob: clientId(bob) };
  const lines = (await runPhp('api.php', [longwire.url, API_KEY, JSON.stringify(clients)])).map((line) => JSON.parse(line));
  assert.ok(lines.length >= 25, `${lines.length} cases`);
  for (const { name, wrong } of lines) await t.test(name, () => assert.equal(wrong, null, wrong));

  await t.test('and the clients saw it', async () => {
    assert.equal((await event(ann, 'subscribed')).data.why, 'because');
    assert.equal((await event(ann, 'unsubscribed')).channel, 'told');
    const { code, reason } = await event(bob, 'disconnected');
    assert.deepEqual([code, reason], [4999, 'over']);
    for (const revoked of [carl, dora]) assert.equal((await event(revoked, 'disconnected')).code, 3503);
    assert.equal(ann.state, 'connected');
    assert.deepEqual(await bench.receives(rooms[0], 3), ['to both', 'not to Bob', 'to both']);
    assert.deepEqual(await bench.receives(rooms[1], 3), ['to both', 'not to Ann', 'to both']);
    assert.equal(contexts(rooms[0], 'subscribing').length, 1);
  });
});
