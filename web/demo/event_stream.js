// One channel over SSE, with the browser's own EventSource.
//
// EventSource does nearly everything by itself: it notices the end of the stream, reconnects after the
// delay that the server advised, and sends the id of the last event, from which the server recovers. Two
// things it cannot do, and this class says so rather than pretend: it hides heartbeats (they are comments)
// and it cannot notice a silent link. It gives up for good when the server answers with an error; only then
// do we start another one, handing the id over in `?since=`.
//
// What happens is told to `on`, the same functions as those of websocket.js, and `heard()` for any event.

import { Backoff } from './backoff.js';

export class EventStreamConnection {
  #url;
  #channel;
  #on;
  #source = null;
  #lastEventId = '';
  #backoff = new Backoff(500, 20_000);
  #retryTimer = 0;
  #toRecover = 0; // how many of the next publications are what was missed
  #farewell = ''; // the reason that the server gave before it ended the stream

  constructor(url, channel, on) {
    this.#url = url;
    this.#channel = channel;
    this.#on = on;
  }

  open() {
    this.#on.state('connecting');
    const url = new URL(this.#url);
    url.searchParams.set('channels', this.#channel);
    if (this.#lastEventId) url.searchParams.set('since', this.#lastEventId);
    const source = new EventSource(url);
    this.#source = source;
    const listen = (name, handle) =>
      source.addEventListener(name, (event) => {
        if (this.#source !== source) return;
        this.#lastEventId = event.lastEventId || this.#lastEventId;
        this.#on.heard();
        handle(JSON.parse(event.data));
      });
    listen('message', (publication) => this.#published(publication));
    listen('subscribed', (data) => this.#subscribed(data));
    listen('recovered', (data) => this.#recovered(data));
    listen('join', ({ info }) => this.#on.person('join', info.client));
    listen('leave', ({ info }) => this.#on.person('leave', info.client));
    listen('unsubscribe', ({ code, reason }) => this.#stop(`unsubscribed: ${reason} (${code})`));
    listen('disconnect', (data) => this.#disconnected(data));
    source.onopen = () => this.#backoff.reset();
    source.onerror = () => this.#failed();
  }

  close() {
    clearTimeout(this.#retryTimer);
    this.#source?.close();
    this.#source = null;
  }

  #subscribed(data) {
    this.#on.client(data.client);
    this.#on.state('live');
    this.#on.began(data.channels[this.#channel]);
  }

  // Comes once, first, when the browser returned with an id; what was missed follows it.
  #recovered(data) {
    const channel = data.channels[this.#channel];
    this.#on.client(data.client);
    this.#on.state('live');
    this.#toRecover = channel.recovered ? channel.publications : 0;
    if (!channel.recovered) this.#on.lost(channel);
    else if (this.#toRecover === 0) this.#on.recovered();
  }

  #published(publication) {
    if (publication.channel !== this.#channel) return;
    const isRecovered = this.#toRecover > 0;
    this.#on.publication(publication, isRecovered);
    if (!isRecovered) return;
    this.#toRecover -= 1;
    if (this.#toRecover === 0) this.#on.recovered();
  }

  // The browser comes back after any end of a stream; only we can know that it should not.
  #disconnected({ code, reason, reconnect }) {
    this.#farewell = `${reason} (${code})`;
    if (!reconnect) this.#stop(this.#farewell);
  }

  #stop(why) {
    this.close();
    this.#on.state('stopped', why);
  }

  #failed() {
    if (this.#source?.readyState === EventSource.CONNECTING) {
      this.#on.state('waiting', `${this.#farewell || 'connection lost'}; the browser reconnects by itself`);
      this.#farewell = '';
      return;
    }
    const delay = this.#backoff.next();
    this.close();
    this.#on.state('waiting', `the server refused the stream; next attempt in ${(delay / 1000).toFixed(1)} s`);
    this.#retryTimer = setTimeout(() => this.open(), delay);
  }
}
