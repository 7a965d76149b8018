// Growing delay between attempts, with full jitter.
//
// Every delay is `least` plus chance, so that ten thousand browsers that lost the same server do not come
// back in the same instant. It decides only how long to wait; who waits is the connection.

export class Backoff {
  #least;
  #most;
  #random;
  #attempt = 0;

  /** `least` and `most` in milliseconds; `random` gives numbers in [0, 1). */
  constructor(least, most, random = Math.random) {
    this.#least = least;
    this.#most = most;
    this.#random = random;
  }

  /** The delay before the next attempt, in milliseconds. */
  next() {
    const span = Math.min(this.#most, this.#least * 2 ** Math.min(this.#attempt, 31));
    this.#attempt += 1;
    return Math.min(this.#most, this.#least + this.#random() * span);
  }

  /** To be called when an attempt succeeded. */
  reset() {
    this.#attempt = 0;
  }
}
