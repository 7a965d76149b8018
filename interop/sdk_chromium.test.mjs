// centrifuge-js from npm, unmodified, in headless Chromium: every transport, in JSON and Protobuf, from another
// origin than the server's, through the same cases as in Node. The cases run in the page.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { servePage, startChromium } from './chromium.mjs';
import { COMBINATIONS, startBench } from './sdk_bench.mjs';
import { CASES } from './sdk_cases.mjs';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const MODULES = ['sdk_cases.mjs', 'equal.mjs', 'until.mjs'].map(file);

let browser;
before(async () => {
  browser = await startChromium();
});
after(() => browser?.close());

// Side by side, because the cases mostly wait: for beats, for expiry. Each combination has a server of its own.
describe('centrifuge-js in Chromium', { concurrency: COMBINATIONS.length }, () => {
  for (const [transport, encoding] of COMBINATIONS) {
    describe(`over ${transport} in ${encoding}`, { concurrency: 1 }, () => {
      let site, stranger, ground, page;

      before(async () => {
        const bundle = file(`node_modules/centrifuge/dist/centrifuge${encoding === 'json' ? '' : '.protobuf'}.js`);
        [site, stranger] = [await servePage([bundle], MODULES), await servePage([bundle], MODULES)];
        ground = await startBench({ allowed_origins: [site.origin] });
        page = await opened(site);
      });
      after(async () => {
        await page?.close();
        await ground?.stop();
        site?.stop();
        stranger?.stop();
      });

      /** A page of `origin` that has a bench. */
      async function opened({ origin }) {
        const page = await browser.newPage();
        await page.exposeFunction('deed', ground.call);
        await page.goto(origin);
        await page.evaluate(
          async ([transport, encoding, url]) => {
            const { Bench, CASES } = await import('/sdk_cases.mjs');
            const bench = new Bench({ Centrifuge, transport, encoding, url, options: {}, call: deed });
            window.prove = async (index) => {
              try {
                await CASES[index][1](bench);
              } catch (error) {
                // What the SDK rejects with is no Error, and would not be told outside the page.
                throw error instanceof Error ? error : new Error(JSON.stringify(error));
              } finally {
                await bench.close();
              }
            };
            window.bench = bench;
          },
          [transport, encoding, ground.proxy.url],
        );
        return page;
      }

      for (const [index, [name]] of CASES.entries()) test(name, { timeout: 60_000 }, () => page.evaluate((index) => prove(index), index));

      test('a page of an origin that is not allowed cannot connect', async () => {
        const foreign = await opened(stranger);
        const noted = await foreign.evaluate(async () => {
          const { contexts, event } = await import('/sdk_cases.mjs');
          const client = bench.client();
          client.connect();
          await event(client, 'error');
          await bench.close();
          return { connected: contexts(client, 'connected').length, errors: contexts(client, 'error').length > 0 };
        });
        assert.deepEqual(noted, { connected: 0, errors: true });
        await foreign.close();
      });
    });
  }
});
