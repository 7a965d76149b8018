// The pages and examples that a newcomer follows, followed to the letter: files written as they stand there, commands run
// as they stand there (followed.mjs says what is changed: ports), and then looked at what a reader would see.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, describe, test } from 'node:test';
import { startChromium } from './chromium.mjs';
import { blocksOf, commandsOf, Followed, isListening, isShown } from './followed.mjs';
import { until } from './until.mjs';

const OUT = fileURLToPath(new URL('./out/', import.meta.url));
const above = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));

let browser, followed, others = [];
before(async () => {
  await mkdir(OUT, { recursive: true });
  browser = await startChromium();
});
afterEach(async () => {
  for (const child of others ?? []) child.kill('SIGKILL');
  others = [];
  await followed?.stop();
  followed = undefined;
});
after(() => browser?.close());

async function open(url) {
  const page = await (await browser.newContext({ viewport: { width: 900, height: 600 } })).newPage();
  await page.goto(url);
  return page;
}

/** nginx with the page's file, in the foreground, with everything that it writes below the folder. */
async function startNginx({ folder, ports }) {
  const around = `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr;
    events { worker_connections 256; }
    http { access_log off; ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/nginx-${kind};`).join(' ')}
      include ${folder}/etc/nginx/conf.d/*.conf; }`;
  await followed.write('nginx.conf', around);
  const child = spawn(process.env.NGINX_BIN ?? 'nginx', ['-c', join(folder, 'nginx.conf'), '-p', folder], { stdio: ['ignore', 'ignore', 'pipe'] });
  others.push(child);
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  await until(() => `nginx takes connections; it said ${said}`, () => isListening(ports[8080]), 10_000);
}

describe('following a page', () => {
  test('finds files, commands and what they print', () => {
    const page = '```php\n<?php\n// app/a.php\nx();\n```\ntext\n```nginx\n# /etc/x.conf\n```\n```html\n<!-- public/x.html -->\n```\n```sh\n# a remark\none \\\n  two\n```\n```json\n{"a":1}\n```\n';
    assert.deepEqual(blocksOf(page).map(({ language, path }) => [language, path ?? null]), [['php', 'app/a.php'], ['nginx', '/etc/x.conf'], ['html', 'public/x.html'], ['sh', null], ['json', null]]);
    assert.deepEqual(commandsOf(blocksOf(page)[3].text), ['one    two']);
  });

  test('notices when something else is printed', () => {
    assert.ok(isShown('{"a": 1, "b": "xyz"}\n', '{"a": 1,\n "b": "..."}'));
    assert.ok(!isShown('{"a": 2}', '{"a": 1}'));
    assert.ok(!isShown('', '{"a": 1}'));
  });
});

describe('docs/thinkphp.md', () => {
  test('followed to the letter, two pages talk through nginx, PHP pushes, and a restart is not noticed', { timeout: 180_000 }, async () => {
    // What a ThinkPHP project brings along.
    followed = await Followed.page('thinkphp.md', { 'public/router.php': await readFile(above('examples/thinkphp-chat/public/router.php'), 'utf8') });
    const pages = {};
    const said = (name) => pages[name].$$eval('#said li', (lines) => lines.map((line) => line.textContent));
    const shows = (name, text) => until(async () => `${name} is shown "${text}", not ${JSON.stringify(await said(name))}; ${followed.log.slice(-3000)}`, async () => (await said(name)).includes(text), 15_000);
    await followed.run(async (text) => {
      if (!text.includes('live/announce')) return;
      await startNginx(followed);
      for (const name of ['ann', 'bob']) {
        pages[name] = await open(followed.url(8080, `/live.html?as=${name}`));
        await shows(name, `welcome, ${name}`);
      }
      await pages.ann.fill('#text', 'hello from Ann');
      await pages.ann.click('#say button');
      for (const name of ['ann', 'bob']) await shows(name, 'ann: hello from Ann');
    });
    for (const name of ['ann', 'bob']) await shows(name, 'system: tea is ready');
    await shows('ann', 'your parcel is here');
    assert.ok(!(await said('bob')).includes('your parcel is here'), 'the parcel is Ann\'s alone');

    // What the page promises of a restart and of a deploy.
    const back = await followed.end('longwire serve');
    await back();
    const deployed = await followed.end('php -S');
    await deployed();
    await until('both are connected again', async () => (await Promise.all(['ann', 'bob'].map((name) => said(name)))).every((lines) => lines.filter((line) => line.startsWith('welcome')).length === 2), 45_000);
    await pages.bob.fill('#text', 'still here');
    await pages.bob.click('#say button');
    for (const name of ['ann', 'bob']) await shows(name, 'bob: still here');
    await pages.ann.screenshot({ path: `${OUT}docs-thinkphp.png` });
    for (const name of ['ann', 'bob']) {
      const lines = (await said(name)).filter((line) => line.startsWith('ann: ') || line.startsWith('bob: '));
      assert.deepEqual(lines, ['ann: hello from Ann', 'bob: still here'], name);
    }

    // A page that is closed politely is told of as gone by the client's own doing, at the latest after the grace.
    await pages.bob.close();
    await until('close was called', async () => (await readFile(join(followed.folder, 'runtime/closed.txt'), 'utf8').catch(() => '')).includes('bob '), 30_000);

    // API and metrics stay inside, the other transports go through.
    for (const path of ['/api/info', '/metrics']) assert.equal((await fetch(followed.url(8080, path))).status, 404, path);
    const cookie = (await fetch(followed.url(8080, '/live/login'), { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"name":"cleo"}' })).headers.get('set-cookie').split(';')[0];
    let stand = await (await fetch(followed.url(8080, '/poll'), { headers: { cookie } })).json();
    const heard = [...stand.publications];
    await fetch(followed.url(8080, '/live/announce'));
    await until(() => `the tea by long-poll: ${JSON.stringify(heard)}`, async () => {
      if (heard.some(({ data }) => data?.text === 'tea is ready')) return true;
      const answer = await fetch(followed.url(8080, `/poll?${new URLSearchParams({ client: stand.name, since: stand.since, wait: 1 })}`), { headers: { cookie } });
      if (answer.status === 200) heard.push(...(stand = await answer.json()).publications);
      return false;
    }, 10_000);
  });

  test('its units for systemd and supervisor start what the page configures', async () => {
    followed = await Followed.page('thinkphp.md');
    const unit = followed.blocks.find(({ path }) => path?.endsWith('longwire.service')).text;
    const program = followed.blocks.find(({ path }) => path?.includes('supervisor')).text;
    const [, started] = /^ExecStart=\/usr\/local\/bin\/(.*)$/m.exec(unit);
    const [, commanded] = /^command=\/usr\/local\/bin\/(.*)$/m.exec(program);
    assert.equal(started, commanded);
    await followed.serve(`exec ${started}`);
    await followed.end('longwire serve');
  });
});

describe('examples/ticker', () => {
  test('its commands run, its page shows quotes by SSE and by long-poll, through a restart', { timeout: 120_000 }, async () => {
    followed = await Followed.example('ticker');
    const commands = followed.blocks.filter(({ language }) => language === 'sh').flatMap(({ text }) => commandsOf(text));
    assert.equal(commands.length, 3);
    for (const command of commands) if (!command.includes('publish')) await followed.serve(`exec ${command}`);
    const publisher = spawn('bash', ['-c', `LONGWIRE_API=${followed.url(8000, '/api')} exec php publish.php 0.1`], { cwd: followed.folder, stdio: 'ignore' });
    others.push(publisher);
    const byStream = await open(followed.url(9000, '/'));
    const byPoll = await open(followed.url(9000, '/?transport=poll'));
    const state = (page) => page.textContent('#state');
    const rows = (page) => page.$$eval('tr', (lines) => lines.map((line) => line.textContent).sort());
    const isLive = async () => {
      await until('live by SSE', async () => (await state(byStream)) === 'live, by SSE', 20_000);
      await until('live by long-poll', async () => (await state(byPoll)) === 'live, by long-poll', 20_000);
    };
    await isLive();
    for (const page of [byStream, byPoll]) await until('all three quotes', async () => (await rows(page)).length === 3, 20_000);
    const back = await followed.end('longwire serve');
    await until('the page says so', async () => (await state(byStream)) === 'waiting', 10_000);
    await back();
    await isLive();
    publisher.kill();
    await once(publisher, 'exit');
    await until('both show the same', async () => (await rows(byStream)).join() === (await rows(byPoll)).join(), 10_000);
    await byStream.screenshot({ path: `${OUT}ticker.png` });
  });
});

describe('examples/tcp-devices', () => {
  test('devices of both kinds report, are answered, repeat what was not, and can be told things', { timeout: 120_000 }, async () => {
    followed = await Followed.example('tcp-devices');
    const [runs, curl] = followed.blocks.filter(({ language }) => language === 'sh').map(({ text }) => commandsOf(text));
    const [php, longwire, ...devices] = runs;
    await followed.serve(`PHP_CLI_SERVER_WORKERS=4 exec ${php}`);
    await followed.serve(`exec ${longwire}`);
    const printed = devices.map((command) => {
      const child = spawn('bash', ['-c', `exec ${command} --every 0.2`], { cwd: followed.folder, stdio: ['ignore', 'pipe', 'inherit'] });
      others.push(child);
      const device = { number: command.split(' ').at(-1), text: '' };
      child.stdout.on('data', (chunk) => (device.text += chunk));
      return device;
    });
    const keeps = ({ text }) => [...text.matchAll(/: (\d+) is kept/g)].map(([, n]) => Number(n));
    const isReporting = (count) => until(() => `${count} reports; ${JSON.stringify(printed)}\n${followed.log.slice(-3000)}`, () => printed.every((device) => keeps(device).length >= count), 30_000);
    await isReporting(5);
    assert.deepEqual(JSON.parse(await followed.command(curl[0])), { result: { sent: 1 } });
    await until('the meter heard it', () => printed[0].text.includes('restart'));
    // Both ends go away in turn, and nothing that was measured is missing.
    const php2 = await followed.end('php -S', 'SIGKILL');
    const from = performance.now();
    await until('two seconds without PHP', () => performance.now() - from > 2000);
    await php2();
    const longwire2 = await followed.end('longwire serve');
    await longwire2();
    await isReporting(Math.max(...printed.map((device) => keeps(device).length)) + 15);
    const readings = (await readFile(join(followed.folder, 'readings.jsonl'), 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
    for (const device of printed) {
      const kept = keeps(device);
      assert.deepEqual(kept, kept.map((_, i) => i + 1), `${device.number} was answered in order and without a gap`);
      const written = new Set(readings.filter(({ device: number, n }) => number === device.number && n).map(({ n }) => n));
      assert.ok(kept.every((n) => written.has(n)), `${device.number}: what was confirmed is kept`);
    }
    const truck = readings.find(({ device, n }) => device === 'truck-12' && n === 1);
    assert.deepEqual([truck.lat, truck.lon], [52.520018, -13.404944]);
  });
});
