// centrifuge-js from npm, unmodified, in Node: every transport, in JSON and Protobuf, through the same cases.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Centrifuge as JsonCentrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { assertContiguous, assertExactlyOnce, publishThroughCuts } from './scenario.mjs';
import { COMBINATIONS, startBench } from './sdk_bench.mjs';
import { Bench, CASES, contexts, event } from './sdk_cases.mjs';
import { until } from './until.mjs';

const options = { websocket: WebSocket, fetch, readableStream: ReadableStream, eventsource: EventSource };

// Side by side, because the cases mostly wait: for beats, for expiry. Each combination has a server of its own.
describe('centrifuge-js in Node', { concurrency: COMBINATIONS.length }, () => {
  for (const [transport, encoding] of COMBINATIONS) {
    describe(`over ${transport} in ${encoding}`, { concurrency: 1 }, () => {
      let ground, bench;
      before(async () => {
        ground = await startBench();
        const Centrifuge = encoding === 'json' ? JsonCentrifuge : ProtobufCentrifuge;
        bench = new Bench({ Centrifuge, transport, encoding, url: ground.proxy.url, options, call: ground.call });
      });
      afterEach(() => bench.close());
      after(() => ground?.stop());

      for (const [name, prove] of CASES) test(name, { timeout: 60_000 }, () => prove(bench));

      test('through 10 cuts every one of 500 messages arrives exactly once and in order', { timeout: 120_000 }, async () => {
        const { proxy, longwire } = ground;
        const faults = [() => proxy.reset(), () => proxy.swallow(), () => proxy.tear(100), () => proxy.finish()];
        const subscription = await bench.subscribed(await bench.connected(), 'cuts');
        await publishThroughCuts({
          longwire,
          channel: 'cuts',
          total: 500,
          cuts: 10,
          cut: (round) => faults[round % faults.length](),
          isBack: (round) => event(subscription, 'subscribed', round + 1, 15_000),
        });
        await until('the last message', () => bench.received(subscription).some(({ n }) => n === 500), 10_000);
        assertExactlyOnce(bench.received(subscription), 500);
        assertContiguous(contexts(subscription, 'publication').map(({ offset }) => offset));
        const returns = contexts(subscription, 'subscribed').slice(1);
        assert.equal(returns.length, 10);
        assert.ok(returns.every(({ wasRecovering, recovered }) => wasRecovering && recovered));
      });

      // The last test: afterwards this server is gone.
      test('a server that ends tells its clients to come back', async () => {
        const client = await bench.connected();
        await ground.longwire.stop();
        assert.equal((await event(client, 'connecting', 1)).code, 3001);
      });
    });
  }
});
