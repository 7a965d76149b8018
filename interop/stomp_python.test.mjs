// stomp.py from PyPI, unmodified, over TCP in STOMP 1.0, 1.1 and 1.2.
//
// python/stomp_client.py is told what to do and says what it saw; what it should have seen stands here.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { FaultProxy } from './fault_proxy.mjs';
import { freePort, startLongwire } from './longwire.mjs';
import { Python } from './python_process.mjs';
import { stompSettings } from './stomp_ground.mjs';

const five = (make) => [0, 1, 2, 3, 4].map(make);

/** `[what must be true, the case, what it must see, the versions that can]`. */
const CASES = [
  ['connects', 'connects', (version) => [version, 'longwire', true]],
  ['takes messages of a queue, which are gone when it acked them', 'queue', (version) => [five((n) => `grüße ${n}`), five((n) => (version === '1.0' ? `a ${n}` : `a:b\\c ${n}`)), ['last']]],
  ['hears a topic', 'topic', () => Array(3).fill(['hello', '"from the api"'])],
  ['acks one by one and gives back', 'individual', () => [['2'], ['0', '2']], ['1.1', '1.2']],
  ['has transactions', 'transaction', () => ['kept', 'last']],
  ['sends any bytes', 'binary', () => [true]],
  ['sends 4 MiB', 'large', () => [true]],
  ['beats', 'beats', () => [0, '1000,1000', true], ['1.1', '1.2']],
  ['notices silence, and what it had not acked comes back', 'silence', () => [['x'], 'true', true], ['1.1', '1.2']],
  ['loses nothing over cuts', 'cuts', () => 100],
  ['is told an error', 'refused', () => 1],
];

for (const version of ['1.0', '1.1', '1.2']) {
  describe(`stomp.py in STOMP ${version}`, () => {
    let longwire, proxy, python;
    before(async () => {
      const port = await freePort();
      longwire = await startLongwire(stompSettings({}, port));
      proxy = await FaultProxy.start(port);
      const deeds = { api: (method, request) => longwire.call(method, request), reset: () => proxy.reset(), swallow: () => proxy.swallow() };
      python = new Python('stomp_client.py', [String(proxy.port), version], async (name, ...parameters) => deeds[name](...parameters));
    });
    after(async () => {
      await python?.stop();
      await proxy?.stop();
      await longwire?.stop();
    });

    for (const [title, name, expected, versions] of CASES.filter(([, , , versions]) => versions?.includes(version) ?? true)) {
      test(title, { timeout: 60_000 }, async () => {
        const saw = await python.run(name);
        assert.deepEqual(saw, expected(version), versions?.join());
      });
    }
  });
}
