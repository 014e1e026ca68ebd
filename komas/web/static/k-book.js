// The order book of what is looked at: hidden whenever it may be wrong.
import { add, ceil, compare, floor, multiply, price, ratio, subtract } from "./digits.js";
import { make } from "./elements.js";
import { isLive } from "./k-health.js";
import { onLast } from "./k-tape.js";
import { feed, looking, onLook, stream } from "./page.js";
import { schedule, setAttribute, setText } from "./paint.js";
import { settings } from "./store.js";
import { about, onSymbol } from "./symbols.js";
import { onWords, t } from "./words.js";

const GROUPS = [1, 10, 100, 1_000];
const TRUE = new Set(["live", "quiet"]);
const MOST = 100;
const REMEMBERED = 200; // symbols with a grouping of their own
const ROOM = { phone: 12, head: 40, columns: 24, middle: 40, row: 20 };

/** Levels in steps of a price: each price down (bids) or up (asks) to its step, sizes summed exactly. */
export function grouped(levels, step, rounded) {
  const groups = [];
  for (const [at, size] of levels) {
    const to = rounded(at, step);
    const last = groups.at(-1);
    if (last && compare(last[0], to) === 0) last[1] = add(last[1], size);
    else groups.push([to, size]);
  }
  return groups;
}

/** Levels with the sum of all sizes up to each. */
export function summed(levels) {
  let sum = "0";
  return levels.map(([at, size]) => {
    sum = add(sum, size);
    return [at, size, sum];
  });
}

class Book extends HTMLElement {
  connectedCallback() {
    this.levels = ROOM.phone;
    [this.asks, this.bids] = this.querySelectorAll("[role=rowgroup]");
    this.live = this.querySelector(".live");
    this.hiddenNote = this.querySelector(".empty");
    [this.lastPrice, this.spread] = this.querySelector(".mid").children;
    [this.priceName, this.sizeName, this.sumName] = this.querySelector(".cols").children;
    this.groups = this.querySelector("select");
    this.lease = feed.lease((changes) => this.take(changes), []);
    this.groups.append(...GROUPS.map((many) => make("option", { value: many })));
    this.groups.addEventListener("change", () => this.groupBy(Number(this.groups.value)));
    this.look();
    onLook("symbol", () => this.look());
    onSymbol((symbol) => symbol === looking.symbol && schedule(this.paint));
    onWords(() => schedule(this.paint));
    onLast((trade) => {
      this.trade = trade;
      schedule(this.paint);
    });
    feed.onState(() => schedule(this.paint));
    // Asked for at each change it would have the page laid out anew each time.
    new ResizeObserver(() => {
      this.levels = this.room();
      schedule(this.paint);
    }).observe(this);
  }

  look() {
    this.data = this.health = this.refusal = this.trade = null;
    const kept = settings.get("groups", {})[looking.symbol];
    this.group = GROUPS.includes(kept) ? kept : 1;
    this.lease.set([stream(looking.symbol, "depth@100ms")]);
    schedule(this.paint);
  }

  take(changes) {
    const name = stream(looking.symbol, "depth@100ms");
    for (const { stream: of, event, data } of changes) {
      if (of !== name) continue;
      if (event === "reset") this.data = this.health = this.refusal = null;
      else if (event === "") this.data = data;
      else if (event === "health") this.health = data;
      else if (event === "refused") this.refusal = data.reason;
    }
    schedule(this.paint);
  }

  groupBy(many) {
    this.group = many;
    const { [looking.symbol]: _, ...others } = settings.get("groups", {});
    const kept = Object.entries(others).slice(-REMEMBERED);
    settings.set("groups", Object.fromEntries(many === 1 ? kept : [...kept, [looking.symbol, many]]));
    schedule(this.paint);
  }

  /** Why no book is shown, in words; null where it is true. */
  get doubt() {
    if (this.refusal) return this.refusal;
    if (!isLive()) return t("bookHiddenSo");
    if (this.health && !TRUE.has(this.health.health))
      return this.health.health === "recovering" ? t("recovering") : t("bookHiddenSo");
    return this.data ? null : t("recovering");
  }

  /** How many levels a side fit. */
  room() {
    if (matchMedia("(max-width: 719px)").matches) return ROOM.phone;
    const room = this.clientHeight - ROOM.head - ROOM.columns - ROOM.middle;
    return Math.max(3, Math.min(MOST, Math.floor(room / ROOM.row / 2)));
  }

  paint = () => {
    const known = about(looking.symbol);
    const doubt = this.doubt;
    this.hiddenNote.hidden = !doubt;
    this.live.hidden = Boolean(doubt);
    this.groups.hidden = Boolean(doubt) || !known.tick_size;
    setText(this.priceName, t("priceIn", { quote: known.quote }));
    setText(this.sizeName, t("sizeIn", { base: known.base }));
    setText(this.sumName, t("sumIn", { base: known.base }));
    if (doubt) {
      setText(this.hiddenNote.firstElementChild, isLive() && !this.refusal && !this.data ? t("book") : t("bookHidden"));
      setText(this.hiddenNote.lastElementChild, doubt);
      for (const side of [this.asks, this.bids]) side.replaceChildren();
      return;
    }
    this.paintGroups(known);
    const step = known.tick_size && this.group > 1 ? multiply(known.tick_size, this.group) : null;
    const count = this.levels;
    const side = (levels, rounded) => summed((step ? grouped(levels, step, rounded) : levels).slice(0, count));
    const [bids, asks] = [side(this.data.bids, floor), side(this.data.asks, ceil)];
    const most = [bids, asks]
      .map((levels) => levels.at(-1)?.[2] ?? "0")
      .sort(compare)
      .at(-1);
    this.paintSide(this.bids, bids, "up", known.tick_size, most);
    this.paintSide(this.asks, asks, "down", known.tick_size, most);
    this.paintMiddle(known);
  };

  paintGroups({ tick_size: tick }) {
    if (!tick) return;
    for (const option of this.groups.options) setText(option, price(multiply(tick, Number(option.value))));
    if (Number(this.groups.value) !== this.group) this.groups.value = String(this.group);
  }

  paintSide(place, levels, tone, tick, most) {
    while (place.children.length > levels.length) place.lastChild.remove();
    while (place.children.length < levels.length) place.append(newRow(tone));
    const step = about(looking.symbol).step_size;
    levels.forEach(([at, size, sum], index) => {
      const { cells } = place.children[index];
      setText(cells.price, price(at, tick));
      setText(cells.size, price(size, step));
      setText(cells.sum, price(sum, step));
      const scale = `scaleX(${ratio(sum, most).toFixed(3)})`;
      if (cells.bar.style.transform !== scale) cells.bar.style.transform = scale;
    });
  }

  paintMiddle(known) {
    const { bids, asks } = this.data;
    const { trade } = this;
    const isUp = trade && !trade.is_buyer_maker;
    setText(this.lastPrice, trade ? `${isUp ? "▲" : "▼"} ${price(trade.price, known.tick_size)}` : "");
    setAttribute(this.lastPrice, "class", trade ? (isUp ? "up" : "down") : null);
    setText(
      this.spread,
      bids.length && asks.length ? t("spread", { n: price(subtract(asks[0][0], bids[0][0]), known.tick_size) }) : "",
    );
  }
}

function newRow(tone) {
  const cell = (name) => make("span", { role: "cell", class: name });
  const cells = { price: cell(tone), size: cell(null), sum: cell(null), bar: make("i", { "aria-hidden": "true" }) };
  const row = make("div", { class: "b-row row", role: "row" }, cells.price, cells.size, cells.sum, cells.bar);
  row.cells = cells;
  return row;
}

customElements.define("k-book", Book);
