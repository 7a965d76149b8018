// The demo page's parts that decide something: its numbers must not flatter.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../web/demo/backoff.js';
import { Ledger } from '../web/demo/ledger.js';

test('a gap counts what is missing and a repetition what is duplicated', () => {
  const ledger = new Ledger();
  ledger.begin({ offset: 10, epoch: 'abcdefgh' });
  assert.deepEqual([11, 12, 15, 15, 14, 16].map((offset) => ledger.note(offset)), ['next', 'next', 'gap', 'duplicate', 'duplicate', 'next']);
  assert.deepEqual([ledger.messages, ledger.missing, ledger.duplicated, ledger.offset], [6, 2, 2, 16]);
});

test('an admitted loss counts as missing, once', () => {
  const ledger = new Ledger();
  ledger.begin({ offset: 3, epoch: 'abcdefgh' });
  assert.equal(ledger.admitLoss({ offset: 8, epoch: 'abcdefgh' }), 5);
  assert.equal(ledger.note(9), 'next');
  assert.equal(ledger.missing, 5);
});

test('when the numbering began anew nobody can say what is missing', () => {
  const ledger = new Ledger();
  ledger.begin({ offset: 3, epoch: 'abcdefgh' });
  assert.equal(ledger.admitLoss({ offset: 8, epoch: 'zzzzzzzz' }), null);
  assert.equal(ledger.note(9), 'next');
  assert.equal(ledger.missing, 0);
});

test('a channel without offsets is only counted', () => {
  const ledger = new Ledger();
  ledger.begin(undefined);
  assert.deepEqual([undefined, 0, undefined].map((offset) => ledger.note(offset)), ['next', 'next', 'next']);
  assert.deepEqual([ledger.messages, ledger.missing, ledger.duplicated], [3, 0, 0]);
});

test('the backoff grows within its bounds, spreads, and begins anew after a success', () => {
  const most = (random, count) => {
    const backoff = new Backoff(500, 20_000, () => random);
    return Array.from({ length: count }, () => backoff.next());
  };
  assert.deepEqual(most(0, 8), Array(8).fill(500));
  assert.deepEqual(most(0.999999, 9).map(Math.round), [1000, 1500, 2500, 4500, 8500, 16_500, 20_000, 20_000, 20_000]);
  const backoff = new Backoff(500, 20_000, () => 0.999999);
  for (let i = 0; i < 50; i += 1) assert.ok(backoff.next() <= 20_000);
  backoff.reset();
  assert.equal(Math.round(backoff.next()), 1000);
});
