// One channel over WebSocket, in the JSON form of the centrifuge protocol, written out by hand.
//
// This is all that a client needs: greet and subscribe in one message, answer heartbeats, notice silence,
// come back with backoff, and say where it stopped (offset and epoch) so that the server can send what was
// missed. Real pages may as well use centrifuge-js, which speaks the same protocol.
//
// It knows nothing of the page: what happens is told to `on`, an object of functions:
//   state(name, why), client(id), heartbeat(), began(position), recovered(), lost(position),
//   publication({offset, data}, isRecovered), person('join' | 'leave', client)

import { Backoff } from './backoff.js';

const CONNECT = 1; // numbers of the two commands that open every connection
const SUBSCRIBE = 2;
const SILENCE_MARGIN = 10_000; // how late a heartbeat may be before the link counts as dead

export class WebSocketConnection {
  #url;
  #channel;
  #on;
  #socket = null;
  #position = null;
  #backoff = new Backoff(500, 20_000);
  #retryTimer = 0;
  #silenceTimer = 0;
  #pingInterval = 25_000;
  #answersPings = false;

  constructor(url, channel, on) {
    this.#url = url;
    this.#channel = channel;
    this.#on = on;
  }

  open() {
    this.#on.state('connecting');
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    // A socket that was given up may still speak; only the current one is listened to.
    const ifCurrent = (handle) => (event) => this.#socket === socket && handle(event);
    socket.onopen = ifCurrent(() => this.#greet());
    socket.onmessage = ifCurrent((event) => {
      this.#heard();
      for (const line of event.data.trim().split('\n')) this.#handle(JSON.parse(line));
    });
    socket.onclose = ifCurrent((event) => this.#closed(event.code, event.reason));
    this.#heard();
  }

  close() {
    clearTimeout(this.#retryTimer);
    this.#giveUpSocket();
  }

  // Connect and subscribe travel together: one round trip until the first publication.
  #greet() {
    const subscribe = { channel: this.#channel, positioned: true, recoverable: true, join_leave: true };
    if (this.#position) Object.assign(subscribe, { recover: true, ...this.#position });
    this.#send({ id: CONNECT, connect: { name: 'longwire-demo' } }, { id: SUBSCRIBE, subscribe });
  }

  #send(...commands) {
    this.#socket?.send(commands.map((command) => JSON.stringify(command)).join('\n'));
  }

  #handle(message) {
    if (message.error) this.#refused(message.error);
    else if (message.id === CONNECT) this.#connected(message.connect);
    else if (message.id === SUBSCRIBE) this.#subscribed(message.subscribe);
    else if (message.push) this.#pushed(message.push);
    else if (message.id === undefined) this.#pinged(); // an empty object is a heartbeat
  }

  #connected(result) {
    this.#backoff.reset();
    this.#pingInterval = (result.ping ?? 0) * 1000;
    this.#answersPings = result.pong === true;
    this.#heard();
    this.#on.client(result.client);
  }

  #subscribed(result) {
    const position = { offset: result.offset ?? 0, epoch: result.epoch ?? '' };
    this.#on.state('live');
    if (!result.was_recovering) this.#on.began(position);
    else if (!result.recovered) this.#on.lost(position);
    // After a recovery the position is the one that was asked from: the publications lead on from there.
    this.#position = position;
    for (const publication of result.publications ?? []) this.#published(publication, true);
    if (result.recovered) this.#on.recovered();
  }

  #pushed({ channel, pub, join, leave, unsubscribe }) {
    if (channel !== this.#channel) return;
    if (pub) this.#published(pub, false);
    if (join) this.#on.person('join', join.info.client);
    if (leave) this.#on.person('leave', leave.info.client);
    if (unsubscribe) this.#unsubscribed(unsubscribe);
  }

  #published(publication, isRecovered) {
    if (publication.offset) this.#position = { ...this.#position, offset: publication.offset };
    this.#on.publication(publication, isRecovered);
  }

  #pinged() {
    this.#on.heartbeat();
    if (this.#answersPings) this.#send({});
  }

  // From 2500 on the subscription may be had again; connecting anew is the simplest way to ask for it.
  #unsubscribed({ code, reason }) {
    if (code >= 2500) this.#comeBack(`unsubscribed: ${reason}`);
    else this.#stop(`unsubscribed: ${reason} (${code})`);
  }

  #refused({ code, message, temporary }) {
    if (temporary || code < 100 || code === 109) this.#comeBack(message);
    else this.#stop(`refused: ${message} (${code})`);
  }

  // The code says whether it makes sense to come back.
  #closed(code, reason) {
    const isFinal = code === 1009 || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
    const why = reason ? `${reason} (${code})` : `connection lost (${code})`;
    if (isFinal) this.#stop(why);
    else this.#comeBack(why);
  }

  // Anything that arrives proves that the link lives, not only a heartbeat.
  #heard() {
    clearTimeout(this.#silenceTimer);
    if (this.#pingInterval === 0) return;
    this.#silenceTimer = setTimeout(() => this.#comeBack('nothing heard, not even a heartbeat'), this.#pingInterval + SILENCE_MARGIN);
  }

  #comeBack(why) {
    this.#giveUpSocket();
    const delay = this.#backoff.next();
    this.#on.state('waiting', `${why}; next attempt in ${(delay / 1000).toFixed(1)} s`);
    this.#retryTimer = setTimeout(() => this.open(), delay);
  }

  #stop(why) {
    this.#giveUpSocket();
    this.#on.state('stopped', why);
  }

  #giveUpSocket() {
    clearTimeout(this.#silenceTimer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}
