// centrifuge-python from PyPI, unmodified, over WebSocket in JSON and Protobuf.
//
// python/client.py is told what to do and says what it saw; what it should have seen stands here. `run` has
// installed it into .venv.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { startBench } from './sdk_bench.mjs';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const PYTHON = process.env.INTEROP_PYTHON ?? file('.venv/bin/python');
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** A Python process that runs cases against `url`; `call` does what it cannot do itself. */
class Python {
  #child;
  #said = '';
  #outcome;

  constructor(url, encoding, call) {
    this.#child = spawn(PYTHON, [file('python/client.py'), url, encoding], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr.on('data', (chunk) => (this.#said += chunk));
    const kill = () => this.#child.kill('SIGKILL');
    process.once('exit', kill);
    this.#child.once('exit', (code, signal) => {
      process.off('exit', kill);
      this.#outcome?.reject(new Error(`it ended with ${code ?? signal}; it said:\n${this.#said}`));
    });
    createInterface({ input: this.#child.stdout }).on('line', (text) => this.#hear(JSON.parse(text), call));
  }

  /** Runs a case and gives what it saw. */
  async run(name) {
    const outcome = new Promise((resolve, reject) => (this.#outcome = { resolve, reject }));
    this.#say({ run: name });
    const { saw, failed } = await outcome;
    if (failed !== undefined) throw new Error(`${failed}\n${this.#said}`);
    return saw;
  }

  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const force = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
    this.#child.stdin.end();
    await once(this.#child, 'exit');
    clearTimeout(force);
  }

  async #hear(line, call) {
    if (line.call === undefined) {
      this.#outcome.resolve(line);
      return;
    }
    const answer = await call(line.deed, ...line.arguments).then(
      (value) => ({ value }),
      (error) => ({ failed: error.message }),
    );
    this.#say({ answer: line.call, ...answer });
  }

  #say(line) {
    this.#child.stdin.write(`${JSON.stringify(line)}\n`);
  }
}

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
      python = new Python(`${ground.proxy.url.replace('http', 'ws')}/connection/websocket`, encoding, ground.call);
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
