// What @stomp/stompjs must be able to do against longwire, in Node and in pages. Nothing of Node is imported here.
//
// Every case gets a `StompBench`, which makes clients and breaks links. Each has destinations of its own.

import { equal, holds } from './equal.mjs';
import { until } from './until.mjs';

let made = 0;

/** What a case works with. */
export class StompBench {
  #clients = new Set();

  /** `url` is that of the WebSocket; `call(name, ...)` reaches what is not in a page: `api`, `reset`, `swallow`. */
  constructor({ Client, url, webSocketFactory, call }) {
    Object.assign(this, { Client, url, webSocketFactory, call });
  }

  /** A client that comes back by itself; what it saw is in `seen`. `begin(client)` is done at each connection. */
  client({ begin = () => {}, ...options } = {}) {
    const seen = { connected: 0, closed: 0, errors: [], messages: [], receipts: [] };
    const client = new this.Client({
      ...(this.webSocketFactory ? { webSocketFactory: () => this.webSocketFactory(this.url) } : { brokerURL: this.url }),
      reconnectDelay: 50,
      heartbeatIncoming: 0,
      heartbeatOutgoing: 0,
      ...options,
    });
    client.onConnect = (frame) => {
      seen.version = frame.headers.version;
      seen.heartBeat = frame.headers['heart-beat'];
      begin(client);
      seen.connected += 1;
    };
    client.onWebSocketClose = () => (seen.closed += 1);
    client.onStompError = ({ headers, body }) => seen.errors.push({ ...headers, body });
    client.take = (message) => seen.messages.push(message);
    client.seen = seen;
    this.#clients.add(client);
    client.activate();
    return client;
  }

  /** A client that is connected. */
  async connected(options) {
    const client = this.client(options);
    await until(() => `a connection; errors: ${JSON.stringify(client.seen.errors)}`, () => client.seen.connected > 0);
    return client;
  }

  async close() {
    await Promise.all([...this.#clients].map((client) => client.deactivate({ force: true })));
    this.#clients.clear();
  }
}

const unique = (kind, name) => `/${kind}/${name}-${Date.now()}-${(made += 1)}`;

/** Sends and waits for the receipt. */
async function send(client, destination, body, more = {}) {
  await receipted(client, (receipt) => client.publish({ destination, ...(typeof body === 'string' ? { body } : { binaryBody: body }), headers: { receipt, ...more } }));
}

async function receipted(client, deed) {
  const receipt = `r-${(made += 1)}`;
  const came = new Promise((resolve) => client.watchForReceipt(receipt, resolve));
  deed(receipt);
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`no receipt: ${JSON.stringify(client.seen.errors)}`)), 10_000));
  return Promise.race([came, late]);
}

async function subscribed(client, destination, headers = {}) {
  let subscription;
  await receipted(client, (receipt) => (subscription = client.subscribe(destination, client.take, { receipt, ...headers })));
  return subscription;
}

const bodies = (client) => client.seen.messages.map(({ body }) => body);
const takes = (client, count) => until(() => `${count} messages, not ${JSON.stringify(bodies(client))}`, () => client.seen.messages.length >= count && bodies(client), 10_000);
const numbers = (count) => Array.from({ length: count }, (_, n) => String(n));

/** `[name, case]`. */
export const CASES = [
  [
    'a queue gives each message to one consumer, who says when it is done',
    async (bench) => {
      const destination = unique('queue', 'work');
      const [one, two] = [await bench.connected(), await bench.connected()];
      for (const n of numbers(6)) await send(one, destination, n, { n });
      for (const client of [one, two]) await subscribed(client, destination, { ack: 'client-individual', 'prefetch-count': '3' });
      await takes(one, 3);
      await takes(two, 3);
      equal([...bodies(one), ...bodies(two)].sort(), numbers(6));
      for (const client of [one, two]) {
        equal(client.seen.messages.map(({ headers, body }) => headers.n === body), [true, true, true]);
        for (const message of client.seen.messages) await receipted(client, (receipt) => message.ack({ receipt }));
        await client.deactivate();
      }
      const three = await bench.connected();
      await subscribed(three, destination);
      await send(three, destination, 'last');
      equal(await takes(three, 1), ['last']);
    },
  ],
  [
    'a topic reaches everybody',
    async (bench) => {
      const destination = unique('topic', 'news');
      const clients = [await bench.connected(), await bench.connected(), await bench.connected()];
      for (const client of clients) await subscribed(client, destination);
      await send(clients[0], destination, 'grüß \u{1f44b}', { 'my-header': 'a:b\\x\nd', 'content-type': 'text/plain' });
      for (const client of clients) {
        equal(await takes(client, 1), ['grüß \u{1f44b}']);
        const { headers } = client.seen.messages[0];
        equal([headers['my-header'], headers['content-type'], headers.destination], ['a:b\\x\nd', 'text/plain', destination]);
      }
    },
  ],
  [
    'a cumulative ack means all before it, and a nack brings back',
    async (bench) => {
      const destination = unique('queue', 'client');
      const client = await bench.connected();
      for (const n of numbers(4)) await send(client, destination, n);
      await subscribed(client, destination, { ack: 'client' });
      await takes(client, 4);
      await receipted(client, (receipt) => client.seen.messages[1].ack({ receipt }));
      await receipted(client, (receipt) => client.seen.messages[3].nack({ receipt }));
      equal((await takes(client, 6)).slice(4), ['2', '3']);
      equal(client.seen.messages.map(({ headers }) => headers.redelivered), ['false', 'false', 'false', 'false', 'true', 'true']);
    },
  ],
  [
    'a transaction is done at its commit, or never',
    async (bench) => {
      const destination = unique('queue', 'tx');
      const client = await bench.connected();
      await subscribed(client, destination);
      const lost = client.begin();
      client.publish({ destination, body: 'lost', headers: { transaction: lost.id } });
      lost.abort();
      const kept = client.begin();
      client.publish({ destination, body: 'kept', headers: { transaction: kept.id } });
      await send(client, destination, 'at once');
      equal(await takes(client, 1), ['at once']);
      kept.commit();
      equal(await takes(client, 2), ['at once', 'kept']);
    },
  ],
  [
    'binary bodies come through, in queues and topics',
    async (bench) => {
      const bytes = Uint8Array.from({ length: 1000 }, (_, n) => n % 256);
      const client = await bench.connected();
      for (const kind of ['queue', 'topic']) {
        const destination = unique(kind, 'binary');
        await subscribed(client, destination);
        client.seen.messages.length = 0;
        await send(client, destination, bytes);
        await until('the message', () => client.seen.messages.length === 1);
        equal([...client.seen.messages[0].binaryBody], [...bytes]);
      }
    },
  ],
  [
    'large frames may be split over many messages',
    async (bench) => {
      const destination = unique('queue', 'large');
      const client = await bench.connected({ splitLargeFrames: true });
      await subscribed(client, destination);
      const body = 'äbcdefghij'.repeat(100_000);
      await send(client, destination, body);
      const [received] = await takes(client, 1);
      holds(received === body, `${received.length} characters`);
    },
  ],
  [
    'a client that writes binary frames gets binary frames',
    async (bench) => {
      const destination = unique('queue', 'frames');
      const client = await bench.connected({ forceBinaryWSFrames: true, appendMissingNULLonIncoming: false });
      await subscribed(client, destination);
      await send(client, destination, 'x');
      equal(await takes(client, 1), ['x']);
    },
  ],
  [
    'heart-beats go both ways for longer than either would wait',
    async (bench) => {
      const client = await bench.connected({ heartbeatIncoming: 1000, heartbeatOutgoing: 1000 });
      equal(client.seen.heartBeat, '1000,1000');
      const began = Date.now();
      await until('five seconds of silence', () => Date.now() - began > 5000, 8000);
      equal([client.seen.connected, client.seen.closed], [1, 0]);
      const destination = unique('queue', 'beat');
      await subscribed(client, destination);
      await send(client, destination, 'alive');
      equal(await takes(client, 1), ['alive']);
    },
  ],
  [
    'a link that fell silent is noticed on both sides, and what was not acked comes back',
    async (bench) => {
      const destination = unique('queue', 'silent');
      const client = await bench.connected({
        heartbeatIncoming: 1000,
        heartbeatOutgoing: 1000,
        // A close would wait for an answer, which does not come either.
        discardWebsocketOnCommFailure: true,
        begin: (client) => client.subscribe(destination, client.take, { ack: 'client-individual' }),
      });
      await send(client, destination, 'x');
      await takes(client, 1);
      await bench.call('swallow');
      await until('it is back', () => client.seen.connected === 2, 15_000);
      await until('the message came again', () => client.seen.messages.length === 2, 15_000);
      const [first, second] = client.seen.messages;
      equal([second.headers['message-id'], second.headers.redelivered], [first.headers['message-id'], 'true']);
    },
  ],
  [
    'nothing is lost over ten cuts',
    async (bench) => {
      const destination = unique('queue', 'cuts');
      const taken = new Set();
      const work = (message) => {
        taken.add(message.body);
        message.ack();
      };
      const consumer = await bench.connected({ begin: (client) => client.subscribe(destination, work, { ack: 'client-individual', 'prefetch-count': '5' }) });
      for (const n of numbers(100)) {
        await bench.call('api', 'queue/publish', { queue: destination.slice('/queue/'.length), data: n });
        if (n % 10 === 5) {
          const before = consumer.seen.connected;
          await bench.call('reset');
          await until('it is back', () => consumer.seen.connected > before, 10_000);
        }
      }
      await until(() => `all: ${taken.size}`, () => taken.size === 100, 15_000);
    },
  ],
  [
    'a topic goes on where it stood, without the server knowing the client',
    async (bench) => {
      const destination = unique('topic', 'position');
      const channel = destination.slice('/topic/'.length);
      const one = await bench.connected();
      await subscribed(one, destination);
      await bench.call('api', 'publish', { channel, data: 0 });
      await takes(one, 1);
      const { offset, epoch } = one.seen.messages[0].headers;
      await one.deactivate();
      for (const n of [1, 2, 3]) await bench.call('api', 'publish', { channel, data: n });
      const two = await bench.connected();
      await subscribed(two, destination, { 'since-offset': offset, 'since-epoch': epoch });
      equal(await takes(two, 3), ['1', '2', '3']);
    },
  ],
  [
    'an answer comes to a temporary queue',
    async (bench) => {
      const destination = unique('queue', 'rpc');
      const [server, client] = [await bench.connected(), await bench.connected()];
      await receipted(server, (receipt) =>
        server.subscribe(destination, ({ headers, body }) => server.publish({ destination: headers['reply-to'], body: `${body}!`, headers: { 'correlation-id': headers['correlation-id'] } }), { receipt }),
      );
      await subscribed(client, '/temp-queue/answers');
      await send(client, destination, 'question', { 'reply-to': '/temp-queue/answers', 'correlation-id': '7' });
      equal(await takes(client, 1), ['question!']);
      equal(client.seen.messages[0].headers['correlation-id'], '7');
    },
  ],
  [
    'an error says what was wrong, and the client comes back',
    async (bench) => {
      const client = await bench.connected();
      client.publish({ destination: '/nowhere/x', body: 'x', headers: { receipt: 'wrong' } });
      await until('the error', () => client.seen.errors.length > 0);
      equal(client.seen.errors[0]['receipt-id'], 'wrong');
      await until('it is back', () => client.seen.connected === 2);
    },
  ],
];
