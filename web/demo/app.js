// The demo page: makes cards, publishes, cuts, and adds up what the cards counted.
//
// It needs a longwire in demo mode at the address that the page came from: `/connection/websocket`, `/sse`,
// `/api/publish` without a key, and `/demo/cut`, which exists in demo mode only.

import { Card } from './card.js';
import { EventStreamConnection } from './event_stream.js';
import { WebSocketConnection } from './websocket.js';

const CHANNEL = 'demo';
// A browser opens at most six HTTP/1.1 connections to one host; publishing and cutting need two of them.
const MOST_EVENT_STREAMS = 4;

const $ = (selector) => document.querySelector(selector);
const cards = new Set();
let numbers = { websocket: 0, sse: 0 };

const connect = {
  websocket: (on) => new WebSocketConnection(`${location.origin.replace(/^http/, 'ws')}/connection/websocket`, CHANNEL, on),
  sse: (on) => new EventStreamConnection(`${location.origin}/sse`, CHANNEL, on),
};

function add(transport) {
  numbers = { ...numbers, [transport]: numbers[transport] + 1 };
  const card = new Card({ number: numbers[transport], transport, connect: connect[transport], onCut: cut, onRemove: remove });
  cards.add(card);
  $('#cards').append(card.element);
  refresh();
}

function remove(card) {
  card.close();
  cards.delete(card);
  refresh();
}

async function cut(card) {
  if (!card.client) return;
  const answer = await post('/demo/cut', { client: card.client });
  if (!answer.ok) notify(`The cut did not succeed: ${answer.problem}`);
}

async function publish(data) {
  const answer = await post('/api/publish', { channel: CHANNEL, data });
  if (!answer.ok) {
    $('#published').textContent = `not published: ${answer.problem}`;
    return;
  }
  const offset = answer.body.result?.offset;
  $('#published').textContent = offset ? `published, offset ${offset}` : 'published';
}

/** Posts JSON. Gives `{ok: true, body}` or `{ok: false, problem}`; never throws. */
async function post(path, value) {
  try {
    const response = await fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(value) });
    if (!response.ok) return { ok: false, problem: `the server answered ${response.status}` };
    const text = await response.text();
    const body = text ? JSON.parse(text) : {};
    return body.error ? { ok: false, problem: body.error.message } : { ok: true, body };
  } catch {
    return { ok: false, problem: 'the server cannot be reached' };
  }
}

let noticeTimer = 0;
function notify(text) {
  clearTimeout(noticeTimer);
  $('#notice').textContent = text;
  $('#notice').hidden = false;
  noticeTimer = setTimeout(() => ($('#notice').hidden = true), 8000);
}

function refresh() {
  const all = [...cards];
  const sum = (number) => all.reduce((total, card) => total + number(card), 0);
  const totals = [
    ['live', `${sum((card) => Number(card.state === 'live'))} of ${all.length}`],
    ['messages', sum((card) => card.ledger.messages)],
    ['recovered', sum((card) => card.recovered)],
    ['missing', sum((card) => card.ledger.missing)],
    ['duplicated', sum((card) => card.ledger.duplicated)],
  ];
  for (const [name, value] of totals) $(`#total-${name}`).textContent = value;
  for (const name of ['missing', 'duplicated']) $(`#total-${name}`).classList.toggle('wrong', $(`#total-${name}`).textContent !== '0');
  const streams = all.filter((card) => card.element.dataset.transport === 'sse').length;
  $('#add-sse').disabled = streams >= MOST_EVENT_STREAMS;
  $('#add-sse').title = streams >= MOST_EVENT_STREAMS ? 'A browser opens only six HTTP/1.1 connections to one host' : '';
  $('#cut-all').disabled = all.every((card) => card.state !== 'live');
  for (const card of all) card.show();
}

function prepareTotals() {
  for (const name of ['live', 'messages', 'recovered', 'missing', 'duplicated']) {
    const box = document.createElement('div');
    const value = document.createElement('b');
    value.id = `total-${name}`;
    box.className = name;
    box.append(value, name);
    $('#totals').append(box);
  }
}

prepareTotals();
$('#curl').textContent = `curl -d '{"channel":"${CHANNEL}","data":{"text":"hello"}}' ${location.origin}/api/publish`;
$('#copy').addEventListener('click', async () => {
  // The clipboard exists only in secure contexts; elsewhere the line is selected for copying by hand.
  try {
    await navigator.clipboard.writeText($('#curl').textContent);
    $('#copy').textContent = 'Copied';
    setTimeout(() => ($('#copy').textContent = 'Copy'), 1500);
  } catch {
    getSelection().selectAllChildren($('#curl'));
  }
});
$('#publish').addEventListener('submit', (event) => {
  event.preventDefault();
  publish({ text: $('#text').value });
});
let streamTimer = 0;
let streamed = 0;
$('#stream').addEventListener('change', (event) => {
  clearInterval(streamTimer);
  if (event.target.checked) streamTimer = setInterval(() => publish({ text: `tick ${(streamed += 1)}` }), 100);
});
$('#add-websocket').addEventListener('click', () => add('websocket'));
$('#add-sse').addEventListener('click', () => add('sse'));
$('#cut-all').addEventListener('click', () => cards.forEach(cut));

add('websocket');
add('sse');
setInterval(refresh, 250);
