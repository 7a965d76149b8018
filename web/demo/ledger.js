// Counts what one connection saw of one channel: messages, missing, duplicated.
//
// It trusts nobody's word for it: it compares offsets, which the server numbers without holes. A message
// counts as missing from the moment a later one arrives (or the server admits the loss), never before.
// A channel without history has no offsets (0); then only messages are counted.

export class Ledger {
  messages = 0;
  missing = 0;
  duplicated = 0;
  /** Offset of the last publication seen; null until a position is known. */
  offset = null;
  /** Identity of the numbering; null if it was never told. */
  epoch = null;

  /** The subscription begins at a position: what came before is none of our business. */
  begin(position) {
    this.offset = position?.offset ?? null;
    this.epoch = position?.epoch ?? null;
  }

  /**
   * The server says that what was missed cannot be brought back, and goes on from `position`.
   * Gives the number of publications lost, or null if nobody can know it: the numbering began anew.
   */
  admitLoss(position) {
    const sameNumbers = this.offset !== null && position?.offset >= this.offset && this.epoch === (position.epoch ?? null);
    const lost = sameNumbers ? position.offset - this.offset : null;
    this.missing += lost ?? 0;
    this.begin(position);
    return lost;
  }

  /** A publication arrived. Gives `next`, `duplicate` or `gap`. */
  note(offset) {
    this.messages += 1;
    if (!offset) return 'next';
    if (this.offset !== null && offset <= this.offset) {
      this.duplicated += 1;
      return 'duplicate';
    }
    const gap = this.offset === null ? 0 : offset - this.offset - 1;
    this.missing += gap;
    this.offset = offset;
    return gap > 0 ? 'gap' : 'next';
  }
}
