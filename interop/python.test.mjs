// centrifuge-python from PyPI, unmodified, over WebSocket in JSON and Protobuf.
//
// python/client.py is told what to do and says what it saw; what it should have seen stands here. `run` has
// installed it into .venv.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Python } from './python_process.mjs';
import { startBench } from './sdk_bench.mjs';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

const CHAT = [{ text: 'hello \u{1f44b}', nested: [1, null, true] }, 'from the backend'];
const HEARD = [CHAT, [1, 'ann', { name: 'Ann' }, true], [2, null, { kind: 'x' }]];
const YES = [true, true];

/** `[what must be true, the case, what it must see]`. */
const CASES = [
  ['connects', 'connect', ({ state, client }) => assert.deepEqual([state, UUID.test(client)], ['connected', true])],
  ['publishes, and both subscribers receive it', 'publish_and_receive', [HEARD, HEARD]],
  [
    'reads history in pages and both directions',
    'history',
    {
      position: [10, [], true],
      first: [[1, 1], [2, 2], [3, 3]],
      all: 10,
      since: [[4, 4], [5, 5]],
      reverse: [[10, 10], [9, 9]],
      'reverse since': [[3, 3], [2, 2]],
      'other epoch': 112,
    },
  ],
  ['lists presence and counts it', 'presence', { there: [['ann', 'ann', 'ann', { name: 'Ann' }], ['guest', 'guest', '', null]], stats: [2, 2] }],
  ['sees others join and leave', 'join_and_leave', 'both'],
  ['recovers what it missed', 'recovers', [YES, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]],
  ['is told when that is impossible', 'cannot_recover', [[true, false], 21, [1, 22]]],
  // Of the first 30, one is the first, three were published without, and what follows those is a delta again.
  ['makes the same publications of deltas', 'deltas', ([same, count, recovery]) => assert.deepEqual([same, count >= 23 && count <= 26, recovery], [true, true, YES], `${count} deltas`)],
  ['filters by tags', 'filters', [[6, 8, 10], 107]],
  ['outlives its token', 'token_refresh', 1],
  ['outlives a subscription token', 'subscription_token_refresh', [['still open'], 1, ['$py-secret']]],
  ['asks for the state when recovery is impossible', 'get_state', [[1, 22], [0, 21], [true, true]]],
  [
    'calls the backend',
    'rpc',
    ({ echo, refuse, crash }, encoding) => {
      assert.deepEqual(echo, { method: 'echo', user: 'ann', said: { say: 'grüß' }, transport: 'websocket', protocol: encoding, encoding: 'json' });
      assert.deepEqual([refuse, crash], [1404, 100]);
    },
  ],
  ['recovers server-side subscriptions', 'server_side', [YES, [1, 2, 3], ['py-inbox', 'py-inbox', 'py-inbox'], 'py-inbox']],
  ['goes when it is told to, for good or not', 'ordered_away', [[3503, 'force disconnect'], [4501, 'banned'], 4001]],
  ['is told why it is refused', 'refused', [[103, 102, 103, 103, 103], 1]],
];

for (const encoding of ['json', 'protobuf']) {
  describe(`centrifuge-python in ${encoding}`, () => {
    let ground, python;
    before(async () => {
      ground = await startBench();
      python = new Python('client.py', [`${ground.proxy.url.replace('http', 'ws')}/connection/websocket`, encoding], ground.call);
    });
    after(async () => {
      await python?.stop();
      await ground?.stop();
    });

    for (const [title, name, expected] of CASES) {
      test(title, { timeout: 60_000 }, async () => {
        const saw = await python.run(name);
        if (typeof expected === 'function') expected(saw, encoding);
        else assert.deepEqual(saw, expected);
      });
    }
  });
}
