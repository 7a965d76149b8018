// The migrations from Swoole and from GatewayWorker, followed to the letter (followed.mjs says what is changed: ports), and
// every call of the classes that the pages bring, made once against a live connection.

import assert from 'node:assert/strict';
import net from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import WebSocket from 'ws';
import { startChromium } from './chromium.mjs';
import { Followed } from './followed.mjs';
import { until } from './until.mjs';

let browser, followed, sockets;
before(async () => (browser = await startChromium()));
afterEach(async () => {
  for (const socket of sockets ?? []) (socket.terminate ?? socket.destroy).call(socket);
  sockets = [];
  await followed?.stop();
  followed = undefined;
});
after(() => browser?.close());

/** A WebSocket that notes what comes. */
async function listen(url) {
  const socket = new WebSocket(url);
  (sockets ??= []).push(socket);
  socket.heard = [];
  socket.on('message', (data, isBinary) => socket.heard.push(isBinary ? [...data] : String(data)));
  socket.on('close', (code, reason) => (socket.closed = [code, String(reason)]));
  await until(() => `${url} is open`, () => socket.readyState === WebSocket.OPEN, 10_000);
  return socket;
}

/** Runs PHP in the page's folder and gives what it printed, as JSON. */
async function php(code) {
  await followed.write('ask.php', `<?php\n${code}`);
  return JSON.parse(await followed.command('php ask.php'));
}

const hears = (socket, text) => until(() => `${JSON.stringify(text)} is heard; ${JSON.stringify(socket.heard)}\n${followed.log.slice(-2000)}`, () => socket.heard.some((one) => JSON.stringify(one) === JSON.stringify(text)), 10_000);

describe('docs/coming-from-swoole.md', () => {
  test('followed to the letter, handlers go on as they were, and every call of the class does what it did', { timeout: 120_000 }, async () => {
    followed = await Followed.page('coming-from-swoole.md');
    await followed.run();

    // Two windows, and what is said while PHP is gone.
    const pages = await Promise.all([0, 1].map(async () => {
      const page = await (await browser.newContext()).newPage();
      await page.goto(followed.url(9000, '/'));
      return page;
    }));
    const shows = (page, text) => until(async () => `"${text}" is shown; ${followed.log.slice(-2000)}`, async () => (await page.$$eval('#said li', (lines) => lines.map((line) => line.textContent))).includes(text), 20_000);
    for (const page of pages) await shows(page, 'hello ann');
    await pages[0].evaluate(() => window.socket.send('hi'));
    for (const page of pages) await shows(page, 'hi');
    const back = await followed.end('php -S');
    await pages[1].evaluate(() => window.socket.send('still here'));
    await back();
    for (const page of pages) await shows(page, 'still here');
    for (const page of pages) await page.close();

    const url = `ws://127.0.0.1:${followed.ports[8000]}/ws?client=`;
    const [one, two] = [await listen(`${url}one`), await listen(`${url}two`)];
    await hears(two, 'hello stranger');
    one.send('ping');
    await hears(one, 'pong');
    const before = `class Quiet extends Server { public function start(): void {} }`;
    const begin = `require 'lib/Server.php'; ${before} $server = new Quiet('${followed.url(8000, '/api')}', 'a long secret that PHP shows to longwire', '');
      $fds = array_keys(array_filter($server->call('connections', [])['connections'], fn ($one) => in_array($one['name'] ?? '', ['one', 'two'])));
      $names = []; foreach ($fds as $fd) $names[$server->call('session_get', ['client' => $fd])['name']] = $fd;`;
    const told = await php(`${begin}
      $one = $names['one']; $gone = '00000000-0000-4000-8000-000000000000';
      echo json_encode([
        'push' => [$server->push($one, '"quoted"'), $server->push($one, "\\xff\\x00", 2), $server->push($gone, 'x')],
        'send' => $server->send($one, '{"a":1}'),
        'exist' => [$server->exist($one), $server->exist($gone)],
        'isEstablished' => [$server->isEstablished($one), $server->isEstablished($gone)],
        'bind' => [$server->bind($one, 42), $server->bind($gone, 42)],
        'info' => $server->getClientInfo($one), 'none' => $server->getClientInfo($gone), 'now' => time(),
        'list' => count($server->getClientList('', 1)),
        'connections' => array_values(array_intersect(iterator_to_array($server->connections, false), $fds)) == $fds,
        'rest' => $server->getClientList(max($fds)),
      ]);`);
    assert.deepEqual(told.push, [true, true, false]);
    assert.deepEqual([told.send, told.exist, told.isEstablished, told.bind], [true, [true, false], [true, false], [true, false]]);
    assert.deepEqual([told.info.remote_ip, told.info.uid, told.info.send_queued_bytes, told.none], ['127.0.0.1', '42', 0, false]);
    assert.ok(told.now - told.info.connect_time <= 20 && told.info.last_time <= told.now, JSON.stringify(told));
    assert.deepEqual([told.list, told.connections], [1, true]);
    assert.ok(told.rest.length <= 1, 'nothing is listed twice');
    for (const text of ['"quoted"', [255, 0], '{"a":1}']) await hears(one, text);
    await php(`${begin} echo json_encode([$server->disconnect($names['one'], 4001, 'bye'), $server->close($names['two'])]);`);
    await until('both are closed', () => one.closed && two.closed, 10_000);
    assert.deepEqual([one.closed, two.closed], [[4001, 'bye'], [4500, 'closed']]);
  });
});

describe('docs/coming-from-workerman.md', () => {
  test('followed to the letter, Events.php goes on as it was, and every call of the class does what it did', { timeout: 120_000 }, async () => {
    followed = await Followed.page('coming-from-workerman.md');
    await followed.run();
    const url = `ws://127.0.0.1:${followed.ports[8000]}/ws`;
    const [ann, bob] = [await listen(url), await listen(url)];
    for (const [socket, name] of [[ann, 'ann'], [bob, 'bob']]) {
      await until(`${name} is greeted`, () => socket.heard.length > 0, 10_000);
      socket.id = JSON.parse(socket.heard[0]).client_id;
      socket.send(JSON.stringify({ type: 'login', name, room: 'lobby' }));
      await hears(socket, JSON.stringify({ type: 'login', name }));
    }
    await hears(ann, '{"type":"login","name":"bob"}');
    ann.send('Hello!'); // Nothing comes of it: it is no JSON, and onMessage would fail.
    ann.send('{"type":"count"}');
    await hears(ann, '{"type":"count","here":2}');

    const told = await php(`require 'lib/Gateway.php'; [$ann, $bob] = ['${ann.id}', '${bob.id}'];
      Gateway::sendToAll('all'); Gateway::sendToAll('but ann', null, [$ann]); Gateway::sendToAll('ann alone', [$ann]);
      Gateway::sendToClient($ann, 'client'); Gateway::sendToUid('ann', 'uid'); Gateway::sendToUid(['ann', 'bob'], 'uids');
      Gateway::sendToGroup('lobby', 'group'); Gateway::sendToGroup(['lobby'], 'but bob', [$bob]); Gateway::sendToClient($ann, "\\xff");
      Gateway::joinGroup($bob, 'cellar'); Gateway::setSession($bob, ['a' => 1, 'b' => 2]); Gateway::updateSession($bob, ['b' => 3]);
      $all = [];
      foreach (['isOnline' => $ann, 'isUidOnline' => 'ann', 'getUidByClientId' => $ann, 'getClientIdByUid' => 'ann', 'getClientIdListByGroup' => 'lobby',
        'getClientIdCountByGroup' => 'lobby', 'getClientCountByGroup' => 'cellar', 'getClientSessionsByGroup' => 'cellar', 'getUidListByGroup' => 'lobby', 'getUidCountByGroup' => 'lobby',
        'getSession' => $bob] as $method => $about) $all[$method] = Gateway::$method($about);
      foreach (['getAllClientIdList', 'getAllClientIdCount', 'getAllClientCount', 'getAllClientSessions', 'getAllUidList', 'getAllUidCount', 'getAllGroupIdList', 'getAllGroupClientIdCount',
        'getAllGroupClientIdList', 'getAllGroupUidList', 'getAllGroupUidCount'] as $method) $all[$method] = Gateway::$method();
      Gateway::leaveGroup($bob, 'lobby'); Gateway::ungroup('cellar'); Gateway::unbindUid($bob, 'somebody else'); $all['still'] = Gateway::getUidByClientId($bob);
      Gateway::unbindUid($bob, 'bob'); $all['later'] = Gateway::getUidByClientId($bob); $all['nobody'] = Gateway::getSession('nobody');
      Gateway::closeClient($bob, 'bye');
      echo json_encode($all);`);
    const both = (one, other) => ({ [ann.id]: one, [bob.id]: other });
    const [sessionOfAnn, sessionOfBob] = [{ name: 'ann', room: 'lobby' }, { a: 1, b: 3 }];
    const uids = { ann: 'ann', bob: 'bob' };
    const sorted = (value) => JSON.stringify(value, (_, inner) => (inner && inner.constructor === Object ? Object.fromEntries(Object.entries(inner).sort()) : inner));
    for (const [method, expected] of Object.entries({
      isOnline: 1, isUidOnline: 1, getUidByClientId: 'ann', getClientIdByUid: [ann.id], getClientIdListByGroup: both(ann.id, bob.id),
      getClientIdCountByGroup: 2, getClientCountByGroup: 1, getClientSessionsByGroup: { [bob.id]: sessionOfBob }, getUidListByGroup: uids, getUidCountByGroup: 2,
      getSession: sessionOfBob, getAllClientIdList: both(ann.id, bob.id), getAllClientIdCount: 2, getAllClientCount: 2, getAllClientSessions: both(sessionOfAnn, sessionOfBob),
      getAllUidList: uids, getAllUidCount: 2, getAllGroupIdList: ['cellar', 'lobby'], getAllGroupClientIdCount: { cellar: 1, lobby: 2 },
      getAllGroupClientIdList: { cellar: { [bob.id]: bob.id }, lobby: both(ann.id, bob.id) }, getAllGroupUidList: { cellar: { bob: 'bob' }, lobby: uids }, getAllGroupUidCount: { cellar: 1, lobby: 2 },
      still: 'bob', later: null, nobody: null,
    })) assert.equal(sorted(told[method]), sorted(expected), method);
    for (const text of ['all', 'ann alone', 'client', 'uid', 'uids', 'group', 'but bob', [255]]) await hears(ann, text);
    await until('bob is closed', () => bob.closed, 10_000);
    assert.deepEqual(bob.heard.slice(-5), ['all', 'but ann', 'uids', 'group', 'bye']);
    assert.deepEqual(bob.closed, [3503, 'force disconnect']);
    // onClose had no room by then: setSession had taken it out. It has Ann's.
    const carl = net.connect(followed.ports[9501], '127.0.0.1');
    sockets.push(carl);
    carl.text = '';
    carl.on('data', (data) => (carl.text += data));
    await until('carl is greeted', () => carl.text.includes('init'), 10_000);
    carl.write('{"type":"login","name":"carl","room":"lobby"}\n');
    await until('carl is in', () => carl.text.includes('"login"'), 10_000);
    ann.close();
    await until(() => `carl hears that Ann left: ${carl.text}`, () => carl.text.includes('{"type":"logout","name":"ann"}\n'), 10_000);
  });
});
