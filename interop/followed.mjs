// Follows a page of docs/ as a reader does: writes its files, runs its commands, and looks at what they printed. Or
// takes an example as it stands, and runs it.
//
// A fenced block whose first line, or second after `<?php`, is a comment with a path is that file; absolute paths are
// laid below the folder, too. Blocks of `sh` are commands, run with bash in the folder, line by line: one that begins a
// server (`longwire serve`, `longwire demo`, `php -S`) is left running until the end, any other must succeed. A block
// of `json` or `text` that follows is what they must have printed, `...` standing for anything. The only thing that
// is changed is ports: PORTS, below, are replaced by free ones throughout the page, so that tests do not meet each other.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './longwire.mjs';
import { until } from './until.mjs';

/** The ports that pages name, each of which becomes a free one. */
const PORTS = [8000, 8080, 9000, 9501, 9502];
const above = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const SERVER = /\blongwire (serve|demo)\b|\bphp( -q)? -S\b/;

/** Cuts a page into fenced blocks: language, text, and the file that the text says it is. */
export function blocksOf(page) {
  return [...page.matchAll(/^```(\w+)[^\n]*\n([\s\S]*?)^```$/gm)].map(([, language, text]) => {
    const path = language === 'sh' || language === 'json' || language === 'text' ? null : /^(?:<\?php\s+)?(?:\/\/|#|;|<!--)\s+(\/?[\w.-]+(?:\/[\w.-]+)*\.\w+)(?: -->)?\s*$/m.exec(text.split('\n').slice(0, 2).join('\n'))?.[1];
    return { language, text, path };
  });
}

/** The commands of a block: one a line, continued lines joined, comments gone. */
export function commandsOf(text) {
  const lines = text.replaceAll('\\\n', ' ').split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '' && !line.startsWith('#'));
}

/** Whether something printed is what a page shows: alike but for white space, `...` being anything. */
export function isShown(printed, shown) {
  const [is, should] = [printed, shown].map((text) => text.replace(/\s+/g, ' ').trim());
  const parts = should.split('...').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${parts.join('.*')}$`).test(is);
}

export class Followed {
  /** By the number on the page, the port that stands for it. */
  ports = {};
  /** Everything that servers wrote. */
  log = '';
  #servers = [];

  /** Reads a page of docs/ and writes its files into a new folder, besides `given` (path by path, a file's text). */
  static async page(name, given = {}) {
    const followed = await Followed.#begun();
    followed.blocks = blocksOf(followed.moved(await readFile(above(`docs/${name}`), 'utf8')));
    const files = followed.blocks.filter(({ path }) => path).map(({ path, text }) => [path, text]);
    for (const [path, text] of [...Object.entries(given), ...files]) await followed.write(path, text);
    return followed;
  }

  /** Copies examples/NAME into a new folder; the blocks are those of its README.md. */
  static async example(name) {
    const followed = await Followed.#begun();
    const source = above(`examples/${name}`);
    for (const entry of await readdir(source, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath ?? entry.path, entry.name).slice(source.length + 1);
      // What somebody left who tried it by hand.
      if (!entry.isFile() || path.startsWith('runtime/') || path.endsWith('.jsonl')) continue;
      await followed.write(path, followed.moved(await readFile(join(source, path), 'utf8')));
    }
    followed.blocks = blocksOf(await readFile(join(followed.folder, 'README.md'), 'utf8'));
    return followed;
  }

  static async #begun() {
    const followed = new Followed();
    followed.folder = await mkdtemp(join(tmpdir(), 'longwire-docs-'));
    for (const port of PORTS) followed.ports[port] = await freePort();
    await mkdir(join(followed.folder, 'bin'));
    await symlink(process.env.LONGWIRE_BIN, join(followed.folder, 'bin/longwire'));
    return followed;
  }

  /** Writes a file below the folder. */
  async write(path, text) {
    const file = join(this.folder, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  }

  /** A text with the ports replaced. */
  moved(text) {
    return text.replace(new RegExp(`\\b(${PORTS.join('|')})\\b`, 'g'), (port) => this.ports[port]);
  }

  url(port, path = '') {
    return `http://127.0.0.1:${this.ports[port]}${path}`;
  }

  /** Runs the page's commands in order, with what `between` (called before each block of commands) does. */
  async run(between = async () => {}) {
    let printed = '';
    for (const [index, { language, text }] of this.blocks.entries()) {
      if (language === 'sh') {
        await between(text, index);
        printed = '';
        for (const command of commandsOf(text)) printed += SERVER.test(command) ? await this.serve(command) : await this.command(command);
      } else if (!this.blocks[index].path && (language === 'json' || language === 'text') && this.blocks[index - 1]?.language === 'sh') {
        assert.ok(isShown(printed, text), `the page shows\n${text}\nbut this was printed:\n${printed}\n${this.log}`);
      }
    }
  }

  /** Runs a command to its end and gives what it printed. */
  async command(command, limit = 30_000) {
    const child = this.#spawn(command);
    const kill = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), limit);
    let [out, err] = ['', ''];
    child.stdout.on('data', (chunk) => (out += chunk));
    child.stderr.on('data', (chunk) => (err += chunk));
    const [code, signal] = await once(child, 'close');
    clearTimeout(kill);
    assert.equal(code ?? signal, 0, `${command}\nprinted ${out}${err}\n${this.log}`);
    return out;
  }

  /** Begins a server and waits until its port, the one that the command or its configuration names, takes connections. */
  async serve(command) {
    const child = this.#spawn(command);
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (this.log += chunk));
    const port = Number(/ -S \S+:(\d+)/.exec(command)?.[1] ?? this.ports[8000]);
    const server = { command, child, port, exit: once(child, 'exit') };
    // Workers of PHP are children of their own: the whole group goes.
    server.end = (signal) => {
      if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, signal);
      return server.exit;
    };
    this.#servers.push(server);
    const kill = () => server.end('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    await until(() => `${command} takes connections; it said ${this.log}`, () => isListening(port), 15_000);
    return '';
  }

  /** Ends the server whose command contains `part`; gives what begins it again. */
  async end(part, signal = 'SIGTERM') {
    const server = this.#servers.find(({ command, child }) => command.includes(part) && child.exitCode === null && child.signalCode === null);
    assert.ok(server, `${part} is not running`);
    await server.end(signal);
    const port = server.port;
    await until(`${part} has let go of its port`, async () => !(await isListening(port)));
    return () => this.serve(server.command);
  }

  async stop() {
    await Promise.all(this.#servers.map((server) => server.end('SIGKILL')));
    await rm(this.folder, { recursive: true, force: true });
  }

  #spawn(command) {
    const environment = { ...process.env, PATH: `${join(this.folder, 'bin')}:${process.env.PATH}` };
    // A group of its own, so that a signal meets the program and its children, not the tests.
    return spawn('bash', ['-c', command], { cwd: this.folder, env: environment, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  }
}

/** Whether somebody takes connections on a loopback port. */
export function isListening(port) {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => resolve(socket.destroy() && true)).once('error', () => resolve(false));
  });
}
