// PHP's own Stomp class (PECL, Debian's php-stomp), unmodified, over TCP.
//
// php/stomp.php does what each case says and tells what it saw; what it should have seen stands here. The worker of
// docs/stomp.md runs as it stands there, but for the port, and for `send_mail`, which is ours.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test } from 'node:test';
import { blocksOf } from './followed.mjs';
import { freePort, startLongwire } from './longwire.mjs';
import { runPhp } from './php.mjs';
import { stompSettings } from './stomp_ground.mjs';
import { until } from './until.mjs';

const PHP = process.env.PHP_BIN ?? 'php';

/** `[what must be true, the case, what it must see, the versions that can]`. */
const CASES = [
  ['acks one by one, and what it had not acked comes again', 'acks', [['0', '1', '1', '2'], 'true', true, true]],
  ['reads a burst of messages', 'burst', [30, true]],
  ['gives back and throws away', 'nack', ['false', 'true', 'work', 'rejected'], ['1.1', '1.2']],
  ['has transactions', 'transaction', ['result', '/queue/out', true]],
  ['hears a topic', 'topic', ['hello', 'red']],
  ['sends any bytes', 'bytes', [true]],
  ['is told an error', 'refused', [false, true]],
];

for (const version of ['1.0', '1.1', '1.2']) {
  describe(`PHP's Stomp in STOMP ${version}`, () => {
    let longwire, port;
    before(async () => {
      port = await freePort();
      longwire = await startLongwire(stompSettings({}, port));
    });
    after(() => longwire?.stop());

    for (const [title, name, expected, versions] of CASES.filter(([, , , versions]) => versions?.includes(version) ?? true)) {
      test(title, { timeout: 60_000 }, async () => {
        const lines = await runPhp('stomp.php', [String(port), version, name]);
        assert.deepEqual(lines.map((line) => JSON.parse(line)), [expected], versions?.join());
      });
    }
  });
}

describe('the worker of docs/stomp.md', () => {
  let longwire, port, directory, workers;
  before(async () => {
    port = await freePort();
    longwire = await startLongwire(stompSettings({}, port));
    directory = await mkdtemp(join(tmpdir(), 'longwire-worker-'));
    workers = [];
  });
  after(async () => {
    for (const { child } of workers ?? []) child.kill('SIGKILL');
    await longwire?.stop();
    if (directory) await rm(directory, { recursive: true, force: true });
  });

  /** Starts it with a `send_mail` that says to whom it sent, and fails as often as a mail says. */
  async function worker() {
    const page = await readFile(fileURLToPath(new URL('../docs/stomp.md', import.meta.url)), 'utf8');
    const blocks = blocksOf(page).filter(({ language, text }) => language === 'php' && text.includes('new Stomp('));
    assert.equal(blocks.length, 1, 'the page has one worker of this class');
    const sendMail = 'function send_mail(array $mail): bool { static $tries = []; $to = $mail["to"]; $tries[$to] = ($tries[$to] ?? 0) + 1; usleep($mail["us"] ?? 0); '
      + 'if ($tries[$to] <= ($mail["fails"] ?? 0)) return false; fwrite(STDOUT, "$to\\n"); return true; }';
    const file = join(directory, `worker-${workers.length}.php`);
    await writeFile(file, `${blocks[0].text.replaceAll('61613', String(port))}\n${sendMail}\n`);
    const child = spawn(PHP, [file], { stdio: ['ignore', 'pipe', 'pipe'] });
    const started = { child, sent: [], said: '' };
    let rest = '';
    child.stdout.on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      started.sent.push(...lines);
    });
    child.stderr.on('data', (chunk) => (started.said += chunk));
    workers.push(started);
    return started;
  }

  test('does what it is given, again where it failed, and loses nothing when it is killed', { timeout: 60_000 }, async () => {
    const give = (mail) => longwire.call('queue/publish', { queue: 'mails', data: mail });
    const first = await worker();
    await give({ to: 'ada@example.org' });
    await give({ to: 'bob@example.org', fails: 2 });
    await until(() => `both mails are sent: ${first.sent} ${first.said}`, () => first.sent.length === 2, 10_000);
    assert.deepEqual(first.sent.toSorted(), ['ada@example.org', 'bob@example.org']);
    for (let n = 0; n < 50; n++) await give({ to: `${n}`, us: 2000 });
    await until(() => `some are sent: ${first.said}`, () => first.sent.length > 12, 10_000);
    first.child.kill('SIGKILL');
    await once(first.child, 'exit');
    const second = await worker();
    const all = () => new Set([...first.sent, ...second.sent]);
    await until(() => `every mail is sent: ${[...all()]} ${second.said}`, () => all().size === 52, 20_000);
    await until('all of them are acknowledged', async () => {
      const result = await longwire.call('queue/stats', { queue: 'mails' });
      return result.waiting + result.in_flight + result.delayed === 0;
    }, 10_000);
  });
});
