// A TCP proxy that breaks links on command, in the ways in which networks do.
//
// It stands between a client and longwire and understands nothing of what passes. A fault hits every link
// that is open at that moment (or those that a filter picks); later links are whole again. What must stay
// true: after `swallow` neither side is told anything, whatever the other side does, because that is what a
// vanished peer is.

import { once } from 'node:events';
import net from 'node:net';

export class FaultProxy {
  /** The loopback port to which links lead; may be changed for later ones. */
  target;
  /** Links made so far, broken ones included. */
  accepted = 0;
  /** A link whose client begins with this (a pattern for its first bytes) is reset, as a firewall would. */
  forbids = null;
  /** A link whose client begins with this hears nothing: as from a proxy that waits for the end of an answer. */
  holds = null;
  #server;
  #links = new Set();
  #refuses = false;

  /** Starts a proxy to a loopback port. */
  static async start(targetPort) {
    const proxy = new FaultProxy();
    proxy.target = targetPort;
    // Half-open sockets are wanted: whether an end of stream is passed on is decided here.
    proxy.#server = net.createServer({ allowHalfOpen: true }, (client) => proxy.#accept(client));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port() {
    return this.#server.address().port;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Links that are open and whole. */
  get whole() {
    return [...this.#links].filter((link) => link.fault === null).length;
  }

  /** Both sides get a reset (RST). */
  reset(pick = () => true) {
    for (const link of this.#picked(pick)) link.reset();
  }

  /** Both sides get an orderly end of stream (FIN), in the middle of whatever was being said. */
  finish(pick = () => true) {
    for (const link of this.#picked(pick)) link.finish();
  }

  /** Nothing is passed on in either direction and nobody is told: the peer has vanished. */
  swallow(pick = () => true) {
    for (const link of this.#picked(pick)) link.fault = 'swallowed';
  }

  /** The next `bytes` bytes from the server still pass, then both sides get a reset: a torn frame. */
  tear(bytes, pick = () => true) {
    for (const link of this.#picked(pick)) link.bytesLeft = bytes;
  }

  /** Nothing is read from the server, so that its send buffer fills; `resume` reads on. */
  stall(pick = () => true) {
    for (const link of this.#picked(pick)) link.stall();
  }

  resume(pick = () => true) {
    for (const link of this.#picked(pick)) link.resume();
  }

  /** Whether a connection attempt is answered with a reset. */
  refuse(refuses = true) {
    this.#refuses = refuses;
  }

  async stop() {
    this.#server.close();
    for (const link of this.#links) link.destroy();
    await once(this.#server, 'close');
  }

  #picked(pick) {
    return [...this.#links].filter((link) => link.fault === null && pick(link));
  }

  #accept(client) {
    if (this.#refuses) {
      client.resetAndDestroy();
      return;
    }
    const server = net.connect({ port: this.target, host: '127.0.0.1', allowHalfOpen: true });
    this.accepted += 1;
    const link = new Link(this.accepted, client, server, () => this.#links.delete(link));
    this.#links.add(link);
    client.once('data', (chunk) => {
      if (this.forbids?.test(chunk.toString('latin1'))) link.reset();
      else if (this.holds?.test(chunk.toString('latin1'))) link.stall();
    });
  }
}

class Link {
  /** `reset`, `finished`, `swallowed`, or null while the link is whole. */
  fault = null;
  /** How many bytes from the server may still pass. */
  bytesLeft = Infinity;
  #isStalled = false;
  #gone;

  constructor(number, client, server, gone) {
    Object.assign(this, { number, client, server });
    this.#gone = gone;
    this.#pass(client, server);
    this.#pass(server, client);
  }

  reset() {
    this.fault = 'reset';
    this.client.resetAndDestroy();
    this.server.resetAndDestroy();
  }

  finish() {
    this.fault = 'finished';
    this.client.end();
    this.server.end();
    // What still arrives is read and dropped, or the sockets would never close.
    this.client.resume();
    this.server.resume();
  }

  stall() {
    this.#isStalled = true;
    this.server.pause();
  }

  resume() {
    this.#isStalled = false;
    this.server.resume();
  }

  destroy() {
    this.client.destroy();
    this.server.destroy();
  }

  #pass(from, to) {
    from.on('data', (chunk) => {
      if (this.fault !== null) return;
      if (from === this.server) {
        const part = chunk.subarray(0, Math.min(chunk.length, this.bytesLeft));
        this.bytesLeft -= part.length;
        if (part.length < chunk.length) {
          to.write(part, () => this.reset());
          return;
        }
      }
      if (!to.write(chunk)) {
        from.pause();
        to.once('drain', () => {
          if (from !== this.server || !this.#isStalled) from.resume();
        });
      }
    });
    from.on('end', () => {
      if (this.fault === null) to.end();
    });
    // A reset of one side resets the other, unless nobody is to be told.
    from.on('error', () => {
      if (this.fault === null) to.resetAndDestroy();
    });
    from.on('close', () => {
      if (from.destroyed && to.destroyed) this.#gone();
    });
  }
}
