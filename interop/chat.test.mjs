// The chat example as it stands, in use: three pages in Chromium over WebSocket, SSE and long-poll, and two programs in
// Python over TCP with both framings, talk in one room while PHP is deployed and longwire restarted under them.
//
// Backend, configuration and page are those of examples/thinkphp-chat, but for ports, and for one more listener. Beside
// what pages show stands what reached them: `longwire.js` is wrapped, so that a copy which the page would hide is seen.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { startChromium } from './chromium.mjs';
import { Followed } from './followed.mjs';
import { until } from './until.mjs';

const OUT = fileURLToPath(new URL('./out/', import.meta.url));
const PHP = 'PHP_CLI_SERVER_WORKERS=4 exec php -q -S 127.0.0.1:PORT -t public public/router.php';
const EVERY = 0.5;
const DEPLOY = 10_000;

let chat, browser;
const pages = [];
const talkers = [];

before(async () => {
  await mkdir(OUT, { recursive: true });
  chat = await Followed.example('thinkphp-chat');
  await chat.write('longwire.toml', `${await chat.command('cat longwire.toml')}
[listeners.framed]
address = "127.0.0.1:${chat.ports[9502]}"
protocol = "tcp"
framing = "length"
first_packet = "json"
`);
  await chat.serve(PHP.replace('PORT', chat.ports[9000]));
  await chat.serve('exec longwire serve --config longwire.toml --server.drain-over 2s');
  browser = await startChromium();
});
after(async () => {
  for (const { child } of talkers) child.kill('SIGKILL');
  await browser?.close();
  await chat?.stop();
  await writeFile(`${OUT}chat.log`, chat?.log ?? '');
});

/** A page that somebody opened, logged in by hand; its arrivals are in `window.arrived`. */
async function open(name, transport) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
  const page = await context.newPage();
  const visitor = { name, transport, page, asked: [], complaints: [], count: 0 };
  page.on('request', (request) => visitor.asked.push(`${request.method()} ${new URL(request.url()).pathname}`));
  page.on('pageerror', (error) => visitor.complaints.push(String(error)));
  await page.route('**/longwire.js', async (route) => {
    const answer = await route.fetch();
    const wrapped = (await answer.text()).replace('export function connect(', 'function real(');
    const wrapper = 'window.arrived = []; export const connect = (given) => real({ ...given, heard: (message) => (window.arrived.push(message), given.heard(message)) });';
    await route.fulfill({ response: answer, body: `${wrapped}\n${wrapper}` });
  });
  await page.goto(`${chat.url(9000)}/?transport=${transport}`);
  await page.fill('#name', name);
  await page.click('#login button');
  await until(`${name} is connected by ${transport}; ${chat.log.slice(-3000)}`, () => page.evaluate(() => document.getElementById('line').dataset.state === 'open'), 15_000);
  assert.equal(await page.textContent('#line'), transport);
  pages.push(visitor);
  return visitor;
}

/** A program that talks over TCP. */
async function talk(name, framing, port) {
  const token = (await chat.command(`longwire token make --user ${name} --expires 1h --config longwire.toml`)).trim();
  const child = spawn('python3', [fileURLToPath(new URL('python/talker.py', import.meta.url)), String(chat.ports[port]), framing, token, name, String(EVERY)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const talker = { name, child, heard: [], welcomes: [], said: null };
  let rest = '';
  child.stdout.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines.map((line) => JSON.parse(line))) {
      if (line.n) talker.heard.push(line);
      else if (line.welcome) talker.welcomes.push(line.welcome);
      else if (line.said) talker.said = line.said;
    }
  });
  talkers.push(talker);
  await until(`${name} is connected; ${chat.log.slice(-3000)}`, () => talker.welcomes.length > 0, 15_000);
  return talker;
}

async function say(visitor) {
  visitor.count += 1;
  await visitor.page.fill('#text', `${visitor.name} ${visitor.count}`);
  await visitor.page.press('#text', 'Enter');
}

/** Everybody talks for a while. */
async function talkFor(milliseconds) {
  const end = performance.now() + milliseconds;
  while (performance.now() < end) {
    const next = performance.now() + EVERY * 1000;
    for (const visitor of pages) await say(visitor);
    await until('the next word', () => performance.now() >= next, 5000);
  }
}

const shot = (visitor, what) => visitor.page.screenshot({ path: `${OUT}chat-${what}-${visitor.transport}.png` });
const shown = ({ page }) => page.$$eval('#messages li', (lines) => lines.map((line) => ({ id: line.dataset.id, text: line.querySelector('span').textContent, isWaiting: line.className === 'waiting' })));
/** The table as the backend has it, in its order. */
const kept = async () => JSON.parse(await chat.command(`php -r 'echo json_encode((new PDO("sqlite:runtime/chat.sqlite"))->query("SELECT n, id, text FROM messages ORDER BY n")->fetchAll(PDO::FETCH_ASSOC));'`));

describe('the chat example', () => {
  test('three pages and two programs talk through a deploy of PHP and a restart of longwire', { timeout: 240_000 }, async () => {
    for (const [name, transport] of [['Ann', 'websocket'], ['Bob', 'sse'], ['Cleo', 'poll']]) await open(name, transport);
    await talk('robot', 'line', 9501);
    await talk('meter', 'length', 9502);
    await talkFor(4000);
    let people;
    await until(() => `everybody is shown to everybody: ${JSON.stringify(people)}`, async () => {
      people = await Promise.all(pages.map(({ page }) => page.$$eval('#people .online b', (names) => names.map((name) => name.textContent))));
      return people.every((names) => names.join() === 'Ann,Bob,Cleo,meter,robot');
    }, 20_000);
    await shot(pages[0], 'talk');

    // A deploy: the backend dies in the middle of whatever it does, and is away for ten seconds.
    const deploy = await chat.end('php -q -S', 'SIGKILL');
    await talkFor(DEPLOY);
    await shot(pages[0], 'deploy');
    await deploy();
    await talkFor(3000);

    // A restart: longwire ends in order, and is back as soon as it can.
    const talking = talkFor(8000);
    const from = performance.now();
    const restart = await chat.end('longwire serve');
    await restart();
    // What was said in that moment is taken at once, though PHP asks longwire for it: nothing waits for a deadline.
    assert.ok(performance.now() - from < 10_000, `the restart took ${performance.now() - from} ms`);
    await talking;
    await talkFor(3000);

    for (const { child } of talkers) child.stdin.end();
    await until(() => `the programs have heard all that they said: ${talkers.map(({ name, said }) => `${name} ${said?.length}`)}`, () => talkers.every(({ said }) => said), 60_000);
    await until('nothing waits to be said', async () => (await Promise.all(pages.map(shown))).flat().every(({ isWaiting }) => !isWaiting), 60_000);
  });

  test('every message was accepted once', async () => {
    const texts = (await kept()).map(({ text }) => text);
    const said = [...pages.map(({ name, count }) => [name, count]), ...talkers.map(({ name, said }) => [name, said.length])].flatMap(([name, count]) => Array.from({ length: count }, (_, i) => `${name} ${i + 1}`));
    assert.deepEqual([...texts].sort(), said.sort());
    assert.ok(said.length > 200, `${said.length} messages`);
  });

  test('each speaker was heard in the order in which it spoke', async () => {
    const rows = await kept();
    for (const { name } of [...pages, ...talkers]) {
      const own = rows.map(({ text }) => text.split(' ')).filter(([speaker]) => speaker === name).map(([, number]) => Number(number));
      assert.deepEqual(own, own.map((_, i) => i + 1), name);
    }
  });

  test('every page and program heard every message once and in order', async () => {
    const rows = await kept();
    for (const visitor of pages) {
      await until(`all is shown to ${visitor.name}`, async () => (await shown(visitor)).length === rows.length, 10_000);
      await shot(visitor, 'end');
      assert.deepEqual((await shown(visitor)).map(({ id }) => id), rows.map(({ id }) => id), `what ${visitor.name} sees`);
      const arrived = (await visitor.page.evaluate(() => window.arrived)).filter(({ channel, data }) => channel && data?.n).map(({ data }) => data.n);
      assert.deepEqual(arrived, rows.map(({ n }) => n).slice(-arrived.length), `what came to ${visitor.name} over ${visitor.transport}`);
      assert.ok(arrived.length >= rows.length - 10, `only ${arrived.length} of ${rows.length} came to ${visitor.name}`);
    }
    // A program left when it had heard all that it had said.
    for (const { name, heard, said } of talkers) {
      const [first, all] = [rows.findIndex(({ n }) => n === heard[0].n), rows.map(({ n }) => n)];
      assert.deepEqual(heard.map(({ n }) => n), all.slice(first, first + heard.length), `what came to ${name}`);
      assert.ok(said.every((id) => heard.some((one) => one.id === id)), name);
    }
  });

  test('nobody logged in again, and nothing had to be loaded anew', async () => {
    for (const { name, transport, page, asked, complaints } of pages) {
      const returns = await page.evaluate(() => window.arrived.filter(({ session, recovered }) => session && recovered !== true));
      const times = (request) => asked.filter((one) => one === request).length;
      assert.equal(times('POST /chat/login'), 1, name);
      // Who polls is told after a restart that what was sent to it alone may be gone; what is shown is complete all the same.
      assert.equal(times('GET /chat/history'), transport === 'poll' ? returns.length : 1, `${name} was told that something is missing: ${JSON.stringify(returns)}`);
      assert.deepEqual(complaints, [], name);
    }
    for (const { name, welcomes } of talkers) assert.ok(welcomes.slice(1).every(({ recovered }) => recovered === true), `${name}: ${JSON.stringify(welcomes)}`);
    // Once at the beginning, once by the restart.
    assert.ok(talkers.every(({ welcomes }) => welcomes.length === 2), JSON.stringify(talkers.map(({ welcomes }) => welcomes)));
  });

  test('a page that is reloaded shows all again, and a duplicated one throws nobody out', async () => {
    const [ann] = pages;
    const count = Math.min((await kept()).length, 200); // as many as the page asks for
    await ann.page.reload();
    await until('all is shown again', async () => (await shown(ann)).length === count, 15_000);
    // As a browser duplicates a tab: with a copy of what its session keeps.
    const name = await ann.page.evaluate(() => sessionStorage.client);
    const twin = await ann.page.context().newPage();
    await twin.addInitScript((name) => (sessionStorage.client ??= name), name);
    await twin.goto(ann.page.url());
    const isOpen = (page) => page.evaluate(() => document.getElementById('line').dataset.state === 'open');
    await until('the twin is connected', () => isOpen(twin), 15_000);
    assert.notEqual(await twin.evaluate(() => sessionStorage.client), name);
    assert.ok(await isOpen(ann.page));
    await twin.close();
  });

  test('who is there is told only to those who are', async () => {
    assert.equal((await fetch(`${chat.url(9000)}/chat/online?room=lobby`)).status, 401);
  });

  test('who leaves is shown as gone, with the cause', async () => {
    // In the moment in which its poll is answered, too.
    await say(pages[0]);
    await pages[2].page.close();
    await until('Cleo has left', async () => (await pages[0].page.$$eval('#people .left', (lines) => lines.map((line) => line.textContent))).some((text) => /^Cleoleft \d\d:\d\d, (client|network)$/.test(text)), 45_000);
    await shot(pages[0], 'left');
  });
});
