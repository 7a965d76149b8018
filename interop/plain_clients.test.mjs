// The plain dialect with what every program has: `new WebSocket`, `fetch` and a long-poll in Node and in Chromium, a socket
// in PHP. What is said reaches a backend and is answered; who breaks off returns as the same; a second one replaces the first.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { Backend } from './backend.mjs';
import { servePage, startChromium } from './chromium.mjs';
import { FaultProxy } from './fault_proxy.mjs';
import { freePort, OPEN_CHANNEL, settings, startLongwire } from './longwire.mjs';
import { openLink } from './plain.mjs';
import { until } from './until.mjs';

const MODULE = fileURLToPath(new URL('plain.mjs', import.meta.url));
const GRACE = 3000;

let backend, longwire, proxy, site, browser, page, lines, frames;
before(async () => {
  backend = await Backend.start({
    '/open': ({ name, query }) => {
      if (query.includes('stranger')) return [403, '{}'];
      return [200, JSON.stringify({ join: ['inbox:all'], data: { hello: name ?? null }, session_data: { room: 'hall' }, ...(query.includes('as=') && { user: new URLSearchParams(query).get('as') }) })];
    },
    '/message': ({ data, b64data, seq, session_data }) => {
      if (data === 'leave') return [200, JSON.stringify({ close: { code: 4001, reason: 'as you wish' } })];
      if (data === 'join') return [200, JSON.stringify({ join: ['inbox:later'], session_data: { room: 'attic' } })];
      if (data === 'tell') return [200, JSON.stringify({ publish: [{ channel: 'news', data: 'told' }] })];
      if (data === 'nothing') return [200, ''];
      return [200, JSON.stringify({ data: { echo: data ?? null, b64: b64data ?? null, seq, room: session_data?.room } })];
    },
    '/close': () => [200, ''],
  });
  site = await servePage([], [MODULE]);
  [lines, frames] = [await freePort(), await freePort()];
  const webhook = Object.fromEntries(['open', 'message', 'close'].map((name) => [name, { endpoint: `${backend.url}/${name}`, timeout: '3s' }]));
  longwire = await startLongwire(settings({
    server: { allowed_origins: [site.origin], drain_over: '1s', drain_deadline: '3s' },
    plain: { grace: `${GRACE}ms` },
    listeners: {
      lines: { address: `127.0.0.1:${lines}`, protocol: 'tcp', first_packet: 'json' },
      frames: { address: `127.0.0.1:${frames}`, protocol: 'tcp', framing: 'length', length_bytes: 2, length_order: 'little', length_offset: 2, body_offset: 4, first_packet: 'client', format: 'bare' },
    },
    webhook,
    namespaces: { inbox: { ...OPEN_CHANNEL, join_leave: false }, quiet: { ...OPEN_CHANNEL, join_leave: false }, small: { ...OPEN_CHANNEL, history_size: 5 }, bare: { allow_subscribe_for_client: true, allow_subscribe_for_anonymous: true, presence: true } },
  }));
  proxy = await FaultProxy.start(longwire.port);
  browser = await startChromium();
  page = await browser.newPage();
  await page.goto(site.origin);
  await page.evaluate(async () => {
    const { openLink } = await import('/plain.mjs');
    window.openLink = (...given) => openLink(...given, window);
  });
});
after(async () => {
  await browser?.close();
  await proxy?.stop();
  await longwire?.stop();
  backend?.stop();
  site?.stop();
});

const calls = (path, client) => backend.asked.filter(([asked, body]) => asked === path && (!client || body.client === client)).map(([, body]) => body);
const publish = (channel, data, more = {}) => longwire.call('publish', { channel, data, ...more });
const called = (path, client, count = 1) => until(`${path} of ${client}`, () => calls(path, client).length >= count && calls(path, client));

/** A link in Node, whose welcome has come. */
async function linked(transport, query, url = longwire.url) {
  const link = openLink(transport, url, query, { WebSocket, fetch });
  await until(() => `a welcome over ${transport}: ${JSON.stringify(link)}\n${longwire.log.slice(-2000)}`, () => link.heard.some(({ session }) => session));
  return Object.assign(link, { client: link.heard.find(({ session }) => session).client });
}

const publications = (link) => link.heard.filter(({ channel, data }) => channel && data !== undefined);
const hears = (link, count) => until(() => `${count} publications; it heard ${JSON.stringify(link.heard)}`, () => publications(link).length >= count && publications(link));
const said = (link) => link.heard.filter(({ type, channel, session, data, b64data }) => !type && !channel && !session && (data !== undefined || b64data !== undefined));
const isSaid = (link, count) => until(() => `${count} direct messages; it heard ${JSON.stringify(link.heard)}`, () => said(link).length >= count && said(link));

for (const transport of ['ws', 'sse', 'stream']) {
  describe(`plain over ${transport}`, () => {
    test('is welcomed, hears publications with their positions, and what the backend says', async () => {
      const link = await linked(transport, { channels: `a-${transport}`, client: `one-${transport}` });
      assert.deepEqual(await isSaid(link, 1).then((all) => all.map(({ data }) => data)), [{ hello: `one-${transport}` }]);
      const welcome = link.heard.find(({ session }) => session);
      assert.deepEqual([welcome.type, Object.keys(welcome.channels).sort()], ['subscribed', [`a-${transport}`, 'inbox:all']]);
      await publish(`a-${transport}`, { n: 1 });
      await publish(`a-${transport}`, 'zwei \u{1f4e8}\nzwei');
      const [one, two] = await hears(link, 2);
      assert.deepEqual([one.data, two.data, two.offset], [{ n: 1 }, 'zwei \u{1f4e8}\nzwei', 2]);
      assert.ok(one.id.includes(`a-${transport}=1.`) && two.id.includes(`a-${transport}=2.`), `${one.id} ${two.id}`);
      const [opened] = await called('/open', welcome.client);
      const transports = { ws: 'websocket', sse: 'sse', stream: opened.transport };
      assert.deepEqual([opened.event, opened.name, opened.user, opened.seq, opened.transport, opened.channels], ['open', `one-${transport}`, '', 0, transports[transport], [`a-${transport}`]]);
      assert.equal(opened.session, welcome.session);
      link.close();
    });

    test('what it says goes to the backend in order, and is answered', async () => {
      const link = await linked(transport, { channels: 'news', client: `talks-${transport}` });
      await isSaid(link, 1);
      for (let n = 1; n <= 20; n += 1) {
        const status = await link.say(`word ${n}`);
        if (transport !== 'ws') assert.equal(status, 202);
      }
      const answers = (await isSaid(link, 21)).slice(1).map(({ data }) => data);
      assert.deepEqual(answers, Array.from({ length: 20 }, (_, i) => ({ echo: `word ${i + 1}`, b64: null, seq: i + 1, room: 'hall' })));
      await link.say(Uint8Array.of(0, 255, 1));
      assert.deepEqual((await isSaid(link, 22)).at(-1).data, { echo: null, b64: 'AP8B', seq: 21, room: 'hall' });
      await link.say('join');
      await until('it was joined', () => link.heard.some(({ type, channel, channels }) => /^subscribe/.test(type ?? '') && (channel === 'inbox:later' || channels?.['inbox:later'])));
      await publish('inbox:later', 'late');
      assert.equal((await hears(link, 1)).at(-1).data, 'late');
      await link.say('tell');
      assert.equal((await hears(link, 2)).at(-1).data, 'told');
      await link.say('where am I');
      assert.equal((await isSaid(link, 23)).at(-1).data.room, 'attic');
      await link.say('leave');
      await until('it is closed', () => link.ended);
      if (transport === 'ws') assert.deepEqual(link.ended, { code: 4001, reason: 'as you wish' });
      const [closed] = await called('/close', link.client);
      assert.deepEqual([closed.code, closed.initiator, closed.seq], [4001, 'server', 26]);
    });

    test('cut off, it returns as the same client with what it missed, and the backend hears nothing of it', async () => {
      const name = `returns-${transport}`;
      const first = await linked(transport, { channels: `r-${transport}`, client: name }, proxy.url);
      const witness = await linked('ws', { channels: `r-${transport}`, client: `witness-${transport}` });
      await publish(`r-${transport}`, 1);
      const [{ id }] = await hears(first, 1);
      proxy.reset();
      await until('the cut is noticed', () => first.ended);
      for (const n of [2, 3]) await publish(`r-${transport}`, n);
      const second = await linked(transport, { channels: `r-${transport}`, client: name, since: id }, proxy.url);
      const welcome = second.heard.find(({ session }) => session);
      assert.deepEqual([welcome.client, welcome.resumed, welcome.recovered], [first.client, true, true], JSON.stringify(welcome));
      assert.deepEqual((await hears(second, 2)).map(({ data }) => data), [2, 3]);
      await publish(`r-${transport}`, 4);
      assert.deepEqual((await hears(second, 3)).map(({ data }) => data), [2, 3, 4]);
      await hears(witness, 4);
      const present = witness.heard.filter(({ type, info, client }) => ['join', 'leave'].includes(type) && (info?.client ?? client) === first.client);
      assert.deepEqual(present, [], 'nobody saw it leave or join');
      assert.deepEqual([calls('/open', first.client).length, calls('/close', first.client).length], [1, 0]);
      second.close();
      witness.close();
    });

    test('who does not return within the grace is closed then, once, with the reason of the break', async () => {
      const link = await linked(transport, { channels: 'bare:x', client: `lapses-${transport}` }, proxy.url);
      proxy.reset();
      const from = performance.now();
      const [closed] = await called('/close', link.client);
      const after = performance.now() - from;
      assert.ok(after >= GRACE - 100 && after < GRACE + 2000, `closed after ${after} ms`);
      assert.deepEqual([closed.category, closed.event, closed.name], ['network', 'close', `lapses-${transport}`]);
      assert.ok(closed.open_seconds >= 0);
      assert.equal((await longwire.call('presence_stats', { channel: 'bare:x' })).num_clients, 0);
    });

    test('a second one of the same name takes over, and the first is told that it was replaced', async () => {
      const first = await linked(transport, { channels: 'twice', client: `twin-${transport}` });
      const second = await linked(transport, { channels: 'twice', client: `twin-${transport}` });
      await until('the first is closed', () => first.ended);
      assert.equal(second.client, first.client);
      if (transport === 'ws') assert.equal(first.ended.code, 3510);
      else assert.ok(first.heard.some(({ type, code, reconnect }) => type === 'disconnect' && code === 3510 && reconnect === false), JSON.stringify(first.heard));
      await publish('twice', 'to one');
      assert.equal((await hears(second, 1)).length, 1);
      assert.deepEqual([calls('/open', first.client).length, calls('/close', first.client).length], [1, 0]);
      second.close();
    });

    test('whom the backend refuses is refused', async () => {
      const link = openLink(transport, longwire.url, { channels: 'a', who: 'stranger' }, { WebSocket, fetch });
      await until('it is refused', () => link.ended);
      assert.deepEqual(link.heard.filter(({ session }) => session), []);
      if (transport === 'ws') assert.equal(link.ended.code, 3507);
      else assert.equal(link.status, 403);
    });

    test('in Chromium, from another origin, it hears and is heard', async () => {
      const heard = await page.evaluate(async ([transport, url]) => {
        const wait = async (condition) => {
          for (let i = 0; i < 500 && !condition(); i += 1) await new Promise((resume) => setTimeout(resume, 10));
        };
        const link = window.openLink(transport, url, { channels: 'page', client: `page-${transport}` });
        await wait(() => link.heard.some(({ session }) => session));
        await link.say('from a page');
        await wait(() => link.heard.some(({ data }) => data?.echo));
        link.close();
        return link.heard;
      }, [transport, longwire.url]);
      assert.ok(heard.some(({ data }) => data?.echo === 'from a page'), JSON.stringify(heard));
    });
  });
}

describe('a long-poll', () => {
  /** One request and its answer. */
  async function poll(query) {
    const answer = await fetch(`${longwire.url}/poll?${new URLSearchParams(query)}`);
    return { status: answer.status, headers: answer.headers, text: await answer.text() };
  }

  test('is told where it stands, then waits, hears and goes on, and nothing may keep its answers', async () => {
    const first = await poll({ channels: 'quiet:polled' });
    assert.equal(first.status, 200);
    assert.equal(first.headers.get('cache-control'), 'no-store');
    assert.equal(first.headers.get('etag'), null);
    const begun = JSON.parse(first.text);
    assert.deepEqual(begun.publications.filter(({ channel }) => channel), []);
    const waiting = poll({ channels: 'quiet:polled', client: begun.name, since: begun.since });
    await publish('quiet:polled', 'one');
    const one = JSON.parse((await waiting).text);
    assert.deepEqual(one.publications.filter(({ channel }) => channel).map(({ data }) => data), ['one']);
    assert.equal(one.client, begun.client, 'the same connection for the backend');
    for (const n of ['two', 'three']) await publish('quiet:polled', n);
    const next = JSON.parse((await poll({ channels: 'quiet:polled', client: begun.name, since: one.since })).text);
    assert.deepEqual(next.publications.filter(({ channel }) => channel).map(({ data }) => data), ['two', 'three']);
    assert.deepEqual(calls('/open', begun.client).length, 1);
  });

  test('is answered 204 when nothing came within its wait', async () => {
    const { name, since } = JSON.parse((await poll({ channels: 'quiet:still' })).text);
    const from = performance.now();
    const { status, text } = await poll({ channels: 'quiet:still', client: name, since, wait: 1 });
    assert.deepEqual([status, text], [204, '']);
    assert.ok(performance.now() - from >= 990, 'it waited');
  });

  test('an answer that was lost is given again', async () => {
    const { name, since } = JSON.parse((await poll({ channels: 'quiet:lost' })).text);
    await publish('quiet:lost', 1);
    for (let i = 0; i < 2; i += 1) {
      const { publications } = JSON.parse((await poll({ channels: 'quiet:lost', client: name, since })).text);
      assert.deepEqual(publications.filter(({ channel }) => channel).map(({ data }) => data), [1]);
    }
  });

  test('is told who came and left while it was not asking', async () => {
    const { name, since } = JSON.parse((await poll({ channels: 'busy' })).text);
    const other = await linked('ws', { channels: 'busy' });
    other.close(1000);
    await called('/close', other.client);
    const heard = [];
    await until(() => `a join and a leave of ${other.client}: ${JSON.stringify(heard)}`, async () => {
      const { status, text } = await poll({ channels: 'busy', client: name, since, wait: 1 });
      if (status === 200) heard.push(...JSON.parse(text).publications);
      const [join, leave] = ['join', 'leave'].map((type) => heard.find((one) => one.type === type && one.info.client === other.client));
      return join && leave;
    });
  });

  test('says things with POST /send, and hears the answers', async () => {
    const { name, since, session } = JSON.parse((await poll({ channels: 'quiet:sends' })).text);
    const answer = await fetch(`${longwire.url}/send?session=${session}`, { method: 'POST', body: 'by request' });
    assert.equal(answer.status, 202);
    const { publications } = JSON.parse((await poll({ channels: 'quiet:sends', client: name, since })).text);
    assert.ok(publications.some(({ data }) => data?.echo === 'by request'), JSON.stringify(publications));
    assert.equal((await fetch(`${longwire.url}/send?session=nobody`, { method: 'POST', body: 'x' })).status, 404);
  });
});

describe('mistakes', () => {
  test('are named, with the parameter', async () => {
    for (const [path, name] of [['/sse?channels=a,a', 'channel'], ['/sse?channels=a&since=nonsense', 'since'], ['/poll?channels=a&wait=soon', 'wait'], ['/stream?channels=a&format=xml', 'format']]) {
      const answer = await fetch(`${longwire.url}${path}`);
      const text = await answer.text();
      assert.ok(answer.status === 400 && text.includes(name), `${path}: ${answer.status} ${text}`);
    }
  });
  test('a channel that is not allowed is refused', async () => {
    for (const transport of ['sse', 'stream', 'poll']) assert.equal((await fetch(`${longwire.url}/${transport}?channels=closed:x`)).status, 403, transport);
  });
});

describe('bare data', () => {
  test('over a WebSocket is the data and nothing else, text as text and bytes as bytes', async () => {
    const link = openLink('ws', longwire.url, { channels: 'plainly', client: 'bare-ws', format: 'bare' }, { WebSocket, fetch });
    await until('what open answered', () => link.heard.length === 1);
    assert.deepEqual(link.heard, [{ hello: 'bare-ws' }]);
    await publish('plainly', 'only text');
    await publish('plainly', [1, 2]);
    await until('both', () => link.heard.length === 3);
    assert.deepEqual(link.heard.slice(1), [{ text: 'only text' }, [1, 2]]);
    const { sent } = await longwire.call('send', { client: calls('/open').find(({ name }) => name === 'bare-ws').client, b64data: 'AAEC' });
    assert.equal(sent, 1);
    await until('bytes', () => link.heard.length === 4);
    assert.deepEqual(link.heard[3], { bytes: [0, 1, 2] });
    link.close();
  });
});

describe('a PHP program on TCP', () => {
  /** php/tcp_client.php with what it wrote. */
  function start(port, framing, first) {
    const child = spawn(process.env.PHP_BIN ?? 'php', [fileURLToPath(new URL('php/tcp_client.php', import.meta.url)), String(port), framing, first], { stdio: ['pipe', 'pipe', 'inherit'] });
    const client = { child, heard: [], ended: false, say: (text) => child.stdin.write(`${text}\n`) };
    let rest = '';
    child.stdout.on('data', (chunk) => {
      const parts = (rest + chunk).split('\n');
      rest = parts.pop();
      client.heard.push(...parts);
    });
    child.once('exit', () => (client.ended = true));
    return client;
  }

  test('speaks lines of JSON, says who it is in the first, and returns as the same', async () => {
    const first = start(lines, 'line', JSON.stringify({ client: 'php-lines', channels: ['tcp'] }));
    const welcome = await until(() => `a welcome: ${first.heard}`, () => first.heard.map((line) => JSON.parse(line)).find(({ session }) => session));
    first.say('hello');
    await until('the answer', () => first.heard.some((line) => JSON.parse(line).data?.echo === 'hello'));
    await publish('tcp', 'one');
    const { id } = await until('a publication', () => first.heard.map((line) => JSON.parse(line)).find(({ channel, data }) => channel === 'tcp' && data));
    first.child.kill('SIGKILL');
    await until('it is away', async () => (await longwire.call('session_get', { client: welcome.client })).away);
    await publish('tcp', 'two');
    const second = start(lines, 'line', JSON.stringify({ client: 'php-lines', channels: ['tcp'], since: [...welcome.id.split(',').filter((one) => !one.startsWith('tcp=')), id].join() }));
    const back = await until(() => `a welcome: ${second.heard}`, () => second.heard.map((line) => JSON.parse(line)).find(({ session }) => session));
    assert.deepEqual([back.client, back.resumed, back.recovered], [welcome.client, true, true]);
    const missed = await until('what it missed', () => second.heard.map((line) => JSON.parse(line)).find(({ channel, data }) => channel === 'tcp' && data));
    assert.equal(missed.data, 'two');
    second.child.kill('SIGKILL');
  });

  test('speaks packets with a length, and is sent bare data', async () => {
    const client = start(frames, 'v2', 'php-frames');
    await until('what open answered', () => client.heard.length === 1);
    assert.deepEqual(JSON.parse(client.heard[0]), { hello: 'php-frames' });
    client.say('hello');
    await until('the answer', () => client.heard.length === 2);
    assert.equal(JSON.parse(client.heard[1]).echo, 'hello');
    client.say('leave');
    await until('it is closed', () => client.ended);
  });

  test('is cut off at a length beyond the limit, at once and with a name', async () => {
    const socket = net.connect(frames, '127.0.0.1');
    let isClosed = false;
    socket.on('close', () => (isClosed = true));
    socket.on('error', () => {});
    socket.resume();
    socket.write(Buffer.from([0x5a, 0xa5, 3, 0, 0x62, 0x69, 0x67, 0x5a, 0xa5, 0xff, 0xff, 0]));
    await until('it is closed', () => isClosed);
    await until('the log names it', () => longwire.log.includes('MessageTooBig'));
  });
});
