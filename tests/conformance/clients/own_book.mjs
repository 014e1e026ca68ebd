// An order book by the exchange's rules ("How to manage a local order book correctly", 2026-10), for clients without.

export class OwnBook {
  // Texts as they came. A gap makes it ask for a snapshot again; `changed` is called after each diff.
  constructor(snapshot, changed) {
    Object.assign(this, { snapshot, changed, id: 0, waiting: [], asking: false, bids: new Map(), asks: new Map() });
  }

  take(told) {
    if (this.id && !this.asking) this.follow(told);
    else this.waiting.push(told);
    if (!this.id && !this.asking) this.ask();
  }

  async ask() {
    this.asking = true;
    try {
      const found = await this.snapshot();
      [this.bids, this.asks] = [new Map(found.bids), new Map(found.asks)];
      this.id = Number(found.lastUpdateId);
      for (const told of this.waiting.splice(0)) this.follow(told);
    } catch (error) {
      console.log(String(error));
    } finally {
      this.asking = false;
    }
  }

  follow(told) {
    if (told.u <= this.id) return;
    if (told.U > this.id + 1) {
      this.id = 0; // something was missed: the next diff leads to a snapshot
      return;
    }
    for (const [side, rows] of [[this.bids, told.b], [this.asks, told.a]]) {
      for (const [price, quantity] of rows) {
        if (Number(quantity)) side.set(price, quantity);
        else side.delete(price);
      }
    }
    this.id = Number(told.u);
    this.changed();
  }

  levels() {
    const [bids, asks] = [this.bids, this.asks].map((side) => [...side].sort((one, other) => one[0] - other[0]));
    return [bids.reverse(), asks];
  }
}
