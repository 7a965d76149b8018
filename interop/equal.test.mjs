// That the checks which run in pages too can fail.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { equal, holds, rejectedWith } from './equal.mjs';

test('what is the same is equal', () => {
  for (const value of [1, 'a', null, undefined, [1, [2]], { a: { b: [] } }, new Uint8Array([1, 2])]) equal(value, structuredClone(value));
  equal({ a: 1, b: 2 }, { b: 2, a: 1 });
  equal({ a: 1, b: undefined }, { a: 1 });
});

test('what differs is not equal', () => {
  const pairs = [[1, 2], [1, '1'], [null, undefined], [0, false], ['', null], [[1, 2], [2, 1]], [[1], [1, 2]], [[], {}], [{ a: 1 }, {}], [{}, { a: 1 }], [{ a: 1 }, { b: 1 }], [{ a: null }, {}], [new Uint8Array([1]), new Uint8Array([2])], [new Uint8Array([1]), [1]], ['1,2', [1, 2]]];
  for (const [actual, expected] of pairs) assert.throws(() => equal(actual, expected, 'pair'), /^Error: pair: /, JSON.stringify([actual, expected]));
});

test('only true holds', () => {
  holds(true, 'it');
  for (const value of [false, 1, 'true', undefined]) assert.throws(() => holds(value, 'it'), /it: it is/);
});

test('a promise that is fulfilled or rejected otherwise is noticed', async () => {
  await rejectedWith(103, Promise.reject({ code: 103 }));
  await assert.rejects(rejectedWith(103, Promise.resolve({ code: 103 })));
  await assert.rejects(rejectedWith(103, Promise.reject({ code: 104 })));
});
