// @stomp/stompjs from npm, unmodified, over WebSocket in Node and in headless Chromium from another origin.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { Client } from '@stomp/stompjs';
import WebSocket from 'ws';
import { servePage, startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { startLongwire } from './longwire.mjs';
import { CASES, StompBench } from './stomp_cases.mjs';
import { stompSettings } from './stomp_ground.mjs';
import { until } from './until.mjs';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const SUBPROTOCOLS = ['v12.stomp', 'v11.stomp', 'v10.stomp'];

/** A server behind a proxy, and what cases may ask for. */
async function startGround(origins = []) {
  const longwire = await startLongwire(stompSettings({ server: { drain_over: '1s', drain_deadline: '3s', allowed_origins: origins } }));
  const proxy = await FaultProxy.start(longwire.port);
  const deeds = { api: (method, request) => longwire.call(method, request), reset: () => proxy.reset(), swallow: () => proxy.swallow() };
  return {
    longwire,
    url: `${proxy.url.replace('http', 'ws')}/stomp`,
    call: async (name, ...parameters) => deeds[name](...parameters),
    stop: async () => {
      await proxy.stop();
      await longwire.stop();
    },
  };
}

describe('stompjs in Node', () => {
  let ground, bench;
  before(async () => {
    ground = await startGround();
    bench = new StompBench({ Client, url: ground.url, webSocketFactory: (url) => new WebSocket(url, SUBPROTOCOLS), call: ground.call });
  });
  after(() => ground?.stop());

  for (const [name, prove] of CASES) {
    test(name, { timeout: 60_000 }, async () => {
      try {
        await prove(bench);
      } finally {
        await bench.close();
      }
    });
  }

  for (const [version, subprotocol] of [['1.0', 'v10.stomp'], ['1.1', 'v11.stomp'], ['1.2', 'v12.stomp']]) {
    test(`speaks STOMP ${version}, also at /ws`, { timeout: 30_000 }, async () => {
      const { Versions } = await import('@stomp/stompjs');
      let chosen;
      const webSocketFactory = () => {
        const socket = new WebSocket(ground.url.replace('/stomp', '/ws'), [subprotocol]);
        socket.addEventListener('open', () => (chosen = socket.protocol));
        return socket;
      };
      const one = new StompBench({ Client, url: ground.url, webSocketFactory, call: ground.call });
      try {
        const client = await one.connected({ stompVersions: new Versions([version]) });
        assert.deepEqual([client.seen.version, chosen], [version, subprotocol]);
        client.subscribe(`/queue/of-${version}`, client.take, { ack: 'client' });
        client.publish({ destination: `/queue/of-${version}`, body: 'x' });
        await until('the message', () => client.seen.messages.length === 1);
        client.seen.messages[0].ack();
        await client.deactivate();
      } finally {
        await one.close();
      }
    });
  }
});

describe('stompjs in Chromium', () => {
  let site, ground, browser, page;
  before(async () => {
    site = await servePage([file('node_modules/@stomp/stompjs/bundles/stomp.umd.js')], ['stomp_cases.mjs', 'equal.mjs', 'until.mjs'].map(file));
    ground = await startGround([site.origin]);
    browser = await startChromium();
    page = await browser.newPage();
    await page.exposeFunction('deed', ground.call);
    await page.goto(site.origin);
    await page.evaluate(async (url) => {
      const { CASES, StompBench } = await import('/stomp_cases.mjs');
      window.prove = async (index) => {
        const bench = new StompBench({ Client: StompJs.Client, url, call: deed });
        try {
          await CASES[index][1](bench);
        } finally {
          await bench.close();
        }
      };
    }, ground.url);
  });
  after(async () => {
    await browser?.close();
    await ground?.stop();
    site?.stop();
  });

  for (const [index, [name]] of CASES.entries()) test(name, { timeout: 60_000 }, () => page.evaluate((index) => prove(index), index));
});
