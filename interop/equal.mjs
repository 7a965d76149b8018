// Deep equality that says what differs, alike in Node and in a page, where Node's assert is not.
//
// Strict about types, absent members and the order of arrays; the order of an object's members says nothing.

/** Fails unless both are the same, with `what` and both values. */
export function equal(actual, expected, what = 'value') {
  const [is, should] = [written(actual), written(expected)];
  if (is !== should) throw new Error(`${what}: it is ${is}, not ${should}`);
}

/** Fails unless `condition` is true. */
export function holds(condition, what) {
  if (condition !== true) throw new Error(`${what}: it is ${written(condition)}, not true`);
}

/** Fails unless the promise is rejected with this `code`. */
export async function rejectedWith(code, promise, what = 'the call') {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error) => ({ code: error.code }),
  );
  equal(outcome, { code }, what);
}

function written(value) {
  if (Array.isArray(value)) return `[${value.map(written).join(',')}]`;
  if (ArrayBuffer.isView(value)) return `bytes(${[...new Uint8Array(value.buffer, value.byteOffset, value.byteLength)]})`;
  if (value !== null && typeof value === 'object') {
    const members = Object.keys(value).sort().filter((key) => value[key] !== undefined);
    return `{${members.map((key) => `${JSON.stringify(key)}:${written(value[key])}`).join(',')}}`;
  }
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}
