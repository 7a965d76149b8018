// One card of the page: a connection, what it counted, and the log of what it received.
//
// The connection (websocket.js, event_stream.js) tells what happens; the ledger judges it; the card shows
// both. Everything that came over the wire is shown as text, never as markup.

import { Ledger } from './ledger.js';

const LOG_LINES = 200; // older lines leave the log, not the counters
const STATES = { connecting: 'connecting', live: 'live', waiting: 'reconnecting', stopped: 'stopped' };

export class Card {
  /** The element to put into the page. */
  element;
  ledger = new Ledger();
  state = 'connecting';
  client = null;
  reconnects = 0;
  recovered = 0;
  #heartbeats = 0;
  #lastHeartbeat = null;
  #lastEvent = null;
  #wasLive = false;
  #liveSince = 0;
  #missingAtLoss = 0;
  #connection;
  #isWebSocket;
  #values = {};
  #log;

  /** `connect(on)` makes the connection; `onCut` and `onRemove` are called with the card. */
  constructor({ number, transport, connect, onCut, onRemove }) {
    const template = document.querySelector('#card').content.firstElementChild;
    this.element = template.cloneNode(true);
    this.#isWebSocket = transport === 'websocket';
    this.element.dataset.transport = transport;
    this.element.querySelector('h2').textContent = `${this.#isWebSocket ? 'WebSocket' : 'SSE'} ${number}`;
    for (const value of this.element.querySelectorAll('[data-value]')) this.#values[value.dataset.value] = value;
    this.#log = this.element.querySelector('.log');
    this.element.querySelector('.cut').addEventListener('click', () => onCut(this));
    this.element.querySelector('.remove').addEventListener('click', () => onRemove(this));
    this.#connection = connect(this.#handlers());
    this.#connection.open();
    this.show();
  }

  close() {
    this.#connection.close();
    this.element.remove();
  }

  /** Adds a line about something that is not a message. */
  remark(text, kind = 'remark') {
    this.#write([text], kind);
  }

  /** Brings the numbers on the card up to date. */
  show() {
    const { offset, messages, missing, duplicated } = this.ledger;
    const numbers = { offset: offset ?? '–', messages, missing, duplicated, reconnects: this.reconnects, recovered: this.recovered };
    for (const [name, number] of Object.entries(numbers)) this.#set(name, String(number));
    this.#set('client', this.client ?? '–');
    if (this.state === 'live') this.#set('why', `live for ${seconds(this.#liveSince)} s`);
    this.#set('heartbeats', this.#isWebSocket ? this.#heartbeatsSeen() : this.#heartbeatsHidden());
    this.#values.missing.classList.toggle('wrong', missing > 0);
    this.#values.duplicated.classList.toggle('wrong', duplicated > 0);
    this.element.querySelector('.cut').disabled = this.state !== 'live';
  }

  #handlers() {
    return {
      state: (name, why) => this.#enter(name, why),
      client: (id) => (this.client = id),
      heard: () => (this.#lastEvent = Date.now()),
      heartbeat: () => {
        this.#heartbeats += 1;
        this.#lastHeartbeat = Date.now();
        this.show();
      },
      began: (position) => this.ledger.begin(position),
      recovered: () => this.#back(),
      lost: (position) => this.#lost(position),
      publication: (publication, isRecovered) => this.#published(publication, isRecovered),
      person: (kind, client) => {
        if (client !== this.client) this.remark(`${kind === 'join' ? 'joined' : 'left'}: ${client?.slice(0, 8)}`);
      },
    };
  }

  #enter(name, why = '') {
    if (name === 'live' && this.#wasLive && this.state !== 'live') this.reconnects += 1;
    if (name === 'waiting' && this.state === 'live') {
      this.#missingAtLoss = this.ledger.missing;
      this.remark(why, 'cut');
    }
    if (name === 'live' && this.state !== 'live') this.#liveSince = Date.now();
    this.#wasLive ||= name === 'live';
    if (name === 'waiting' || name === 'stopped') this.client = null;
    this.state = name;
    this.element.dataset.state = name;
    this.element.querySelector('.state').textContent = STATES[name];
    this.#set('why', why);
    this.show();
  }

  // The server's word is not enough: the offsets must say the same.
  #back() {
    const missing = this.ledger.missing - this.#missingAtLoss;
    if (missing === 0) this.remark('back: everything that was missed is here', 'good');
    else this.remark(`back, and the server says recovered: true, but ${missing} messages are missing`, 'bad');
  }

  #lost(position) {
    const lost = this.ledger.admitLoss(position);
    const number = lost === null ? 'nobody can say how many messages are missing' : `${lost} messages are missing`;
    this.remark(`back, but recovered: false. The server's history does not reach back far enough: ${number}.`, 'bad');
    this.show();
  }

  #published({ offset, data }, isRecovered) {
    const verdict = this.ledger.note(offset);
    this.#lastEvent = Date.now();
    if (isRecovered) this.recovered += 1;
    const text = typeof data?.text === 'string' ? data.text : JSON.stringify(data);
    const parts = [['offset', offset ? `#${offset}` : ''], ['text', text]];
    if (isRecovered) parts.push(['recovered', 'recovered']);
    if (verdict !== 'next') parts.push(['bad', verdict === 'gap' ? 'messages before this one are missing' : 'duplicate']);
    this.#write(parts, isRecovered ? 'message is-recovered' : 'message');
    this.show();
  }

  #write(parts, kind) {
    const line = document.createElement('li');
    line.className = kind;
    for (const part of parts) {
      const [name, text] = typeof part === 'string' ? ['text', part] : part;
      const span = document.createElement('span');
      span.className = name;
      span.textContent = text;
      line.append(span);
    }
    const isAtEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < 40;
    this.#log.append(line);
    if (this.#log.childElementCount > LOG_LINES) this.#log.firstElementChild.remove();
    if (isAtEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #heartbeatsSeen() {
    return this.#lastHeartbeat ? `${this.#heartbeats}, last ${ago(this.#lastHeartbeat)}` : 'none yet';
  }

  #heartbeatsHidden() {
    return `hidden by the browser; last event ${this.#lastEvent ? ago(this.#lastEvent) : '–'}`;
  }

  #set(name, text) {
    if (this.#values[name].textContent !== text) this.#values[name].textContent = text;
  }
}

function seconds(since) {
  return Math.round((Date.now() - since) / 1000);
}

function ago(moment) {
  return seconds(moment) < 1 ? 'just now' : `${seconds(moment)} s ago`;
}
