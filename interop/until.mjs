// Waiting for a condition with a limit: the only way in which these tests wait. Runs in Node and in a page.

/** Waits until `condition` gives something truthy, and gives that. Fails with `what` after `limit` ms. */
export async function until(what, condition, limit = 5000) {
  const deadline = performance.now() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`not within ${limit} ms: ${typeof what === 'function' ? what() : what}`);
    await new Promise((resume) => setTimeout(resume, 10));
  }
}
