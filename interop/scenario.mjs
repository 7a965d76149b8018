// The core scenario: messages keep being published while the link of a subscriber is cut again and again.
//
// Used for every client, in Node and in browsers. It publishes through the HTTP API, past the proxy, and
// never waits for a subscriber within a round: the cut falls between two publications while others are on
// their way. Each client's test says how it cuts and how it knows that the client is back.

import assert from 'node:assert/strict';

export const TOTAL = 2000;
export const CUTS = 20;

/**
 * Publishes `total` messages `{n: 1}`, `{n: 2}`, ... in `cuts` rounds with one cut in each.
 * `cut(round)` breaks the link; `isBack(round)` must settle once the client is subscribed again.
 */
export async function publishThroughCuts({ longwire, channel, cut, isBack, total = TOTAL, cuts = CUTS }) {
  const perRound = total / cuts;
  for (let round = 0; round < cuts; round += 1) {
    // Another place in every round, by a step that shares no factor with its range.
    const cutAt = Math.floor(perRound / 10) + ((round * 37) % Math.floor(perRound * 0.6));
    for (let i = 0; i < perRound; i += 1) {
      if (i === cutAt) await cut(round);
      await longwire.call('publish', { channel, data: { n: round * perRound + i + 1 } });
    }
    await isBack(round);
  }
}

/** Every message exactly once and in order; says what is wrong if not. */
export function assertExactlyOnce(received, total = TOTAL) {
  const numbers = received.map((message) => message.n);
  const wrong = numbers.findIndex((n, i) => n !== i + 1);
  const seen = new Set(numbers);
  const missing = Array.from({ length: total }, (_, i) => i + 1).filter((n) => !seen.has(n));
  assert.ok(
    wrong === -1 && numbers.length === total,
    `received ${numbers.length} of ${total}; missing ${missing.length} [${missing.slice(0, 10)}], ` +
      `duplicated ${numbers.length - seen.size}, first wrong at index ${wrong}: [${numbers.slice(Math.max(0, wrong - 2), wrong + 5)}]`,
  );
}

/** Offsets rise by one from one publication to the next. */
export function assertContiguous(offsets) {
  const wrong = offsets.findIndex((offset, i) => i > 0 && offset !== offsets[i - 1] + 1);
  assert.equal(wrong, -1, `offset ${offsets[wrong]} follows ${offsets[wrong - 1]}`);
}
