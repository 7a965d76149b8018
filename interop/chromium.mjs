// Headless Chromium as it is on the machine, and a small web server with a page to run a client in.
//
// The page's origin differs from longwire's, as it does in most installations, so its origin must be allowed.
// The browser starts with a fresh profile and none of its background traffic.

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import { basename } from 'node:path';
import { chromium } from 'playwright-core';

const PROGRAM = process.env.CHROMIUM_BIN ?? '/usr/bin/chromium';
const FLAGS = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';

export function startChromium() {
  return chromium.launch({ executablePath: PROGRAM, args: FLAGS.split(' ') });
}

/**
 * Serves a page that loads `scripts` (paths of files), and beside it `modules` (paths of files), each under its own
 * name, for the page to import. Gives its origin and a way to stop it.
 */
export async function servePage(scripts = [], modules = []) {
  const tags = scripts.map((_, i) => `<script src="/${i}.js"></script>`).join('');
  const server = http.createServer(async (request, response) => {
    const script = scripts[Number(/^\/(\d+)\.js$/.exec(request.url)?.[1] ?? -1)] ?? modules.find((module) => request.url === `/${basename(module)}`);
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html; charset=utf-8');
    response.end(script ? await readFile(script) : `<!doctype html><title>interop</title>${tags}`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
