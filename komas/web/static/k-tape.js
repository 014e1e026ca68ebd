// The tape: each trade with who took, newest on top; and the funding of a perpetual.
import { price } from "./digits.js";
import { make } from "./elements.js";
import { fraction } from "./k-chart.js";
import { isFresh, isLive, toast } from "./k-health.js";
import { feed, looking, onLook, stream } from "./page.js";
import { every, schedule, setAttribute, setText } from "./paint.js";
import { about } from "./symbols.js";
import { age, clock, moment, onWords, t } from "./words.js";

const KEPT = 200;
const SHOWN = 60;
const OLD_MS = 2_000; // an age that is worth a word

const listeners = new Set();

/** Call back with the newest trade of what is looked at. */
export function onLast(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

class Tape extends HTMLElement {
  connectedCallback() {
    this.table = this.querySelector("[role=table]");
    this.rows = this.querySelector("[data-is=rows]");
    this.note = this.querySelector(".empty");
    this.button = this.querySelector(".pause");
    this.word = this.querySelector("[data-is=word]");
    this.oldTag = this.querySelector("[data-is=old]");
    [this.priceName, this.sizeName] = this.querySelector(".cols").children;
    this.lease = feed.lease((changes) => this.take(changes), []);
    this.look();
    this.button.addEventListener("click", () => this.pause(!this.isHeld));
    for (const name of ["pointerenter", "pointerleave", "focusin", "focusout"]) {
      this.table.addEventListener(name, () => requestAnimationFrame(() => this.renewed()));
    }
    onLook("symbol", () => this.look());
    onWords(() => this.repaint());
    feed.onState(() => this.repaint());
    every(1_000, () => this.paintHead());
  }

  begin() {
    this.entries = []; // newest last: trades and notes
    this.waiting = 0; // of them, the newest that are not shown yet
    this.depth = SHOWN;
    this.rows.replaceChildren();
  }

  look() {
    this.begin();
    this.isHeld = false;
    this.refusal = this.health = null;
    this.lease.set([stream(looking.symbol, "trade")]);
    this.paintHead();
  }

  get isPaused() {
    return this.isHeld || this.table.matches(":hover, :focus-within");
  }

  pause(isHeld) {
    this.isHeld = isHeld;
    if (!isHeld) this.depth = SHOWN;
    this.renewed();
  }

  /** Pause at the note of a gap that was declared, or say that it is too long ago. */
  findGap({ from, to }) {
    const isIt = ({ gap }) => gap && String(gap.from) === String(from) && String(gap.to) === String(to);
    const at = this.entries.findLastIndex(isIt);
    if (at < 0) return toast(t("gapGone"));
    this.depth = KEPT;
    this.waiting = 0;
    this.pause(true);
    this.repaint();
    this.rows.children[this.entries.length - 1 - at].scrollIntoView({ block: "center" });
  }

  renewed() {
    schedule(this.paint);
  }

  take(changes) {
    const name = stream(looking.symbol, "trade");
    const mine = changes.filter((change) => change.stream === name);
    const anew = mine.findLastIndex(({ event }) => event === "reset");
    if (anew >= 0) this.begin();
    const news = mine
      .slice(anew + 1)
      .map(entry)
      .filter(Boolean);
    for (const { refusal, health } of news) {
      if (refusal) this.refusal = refusal;
      if (health) this.health = health;
    }
    const entries = news.filter(({ refusal, health }) => !refusal && !health);
    this.entries.push(...entries);
    this.entries.splice(0, Math.max(0, this.entries.length - KEPT));
    this.waiting = Math.min(KEPT, this.waiting + entries.length);
    const last = entries.findLast(({ trade }) => trade);
    if (last) for (const listener of listeners) listener(last.trade);
    schedule(this.paint);
  }

  paint = () => {
    this.paintHead();
    if (this.isPaused || !this.waiting) return;
    this.waiting = 0;
    this.repaint();
  };

  /** Write the newest into the rows from the top: rows that move would be a shift of the layout each time. */
  repaint() {
    const shown = this.entries
      .slice(0, this.entries.length - this.waiting)
      .slice(-this.depth)
      .reverse();
    const known = about(looking.symbol);
    while (this.rows.children.length < shown.length) this.rows.append(newRow());
    while (this.rows.children.length > shown.length) this.rows.lastChild.remove();
    for (const [at, one] of shown.entries()) fillRow(this.rows.children[at], one, known.tick_size, known.step_size);
    this.paintHead();
  }

  /** What the stream's health means for who reads the tape; nothing while all is well. */
  doubt() {
    if (this.health === "recovering") return t("recovering");
    const last = this.entries.findLast(({ trade }) => trade);
    return this.health === "quiet" && last ? t("quiet", { age: age(Date.now() - Number(last.trade.timestamp)) }) : "";
  }

  paintHead() {
    const known = about(looking.symbol);
    setText(this.priceName, t("priceIn", { quote: known.quote }));
    setText(this.sizeName, t("sizeIn", { base: known.base }));
    const isEmpty = !this.entries.length;
    this.note.hidden = !isEmpty;
    if (isEmpty) setText(this.note, this.refusal ?? (isLive() ? t("tapeEmpty") : t("recovering")));
    const isPaused = this.isPaused && this.waiting > 0;
    setText(this.word, isPaused ? t("tapePaused", { n: this.waiting }) : this.doubt());
    setText(this.button, t(this.isHeld ? "resume" : "pause"));
    setAttribute(this.button, "aria-pressed", String(this.isHeld));
    const last = this.entries.findLast(({ trade }) => trade);
    const old = last ? Date.now() - Number(last.trade.timestamp) : 0;
    this.oldTag.hidden = old < OLD_MS || isFresh(stream(looking.symbol, "trade"));
    if (!this.oldTag.hidden) setText(this.oldTag, t("old", { age: age(old) }));
  }
}

function entry({ event, data }) {
  if (event === "") return { trade: data };
  if (event === "gap") return { gap: data };
  if (event === "lagged") return { lagged: data };
  if (event === "health") return { health: data.health };
  return event === "refused" ? { refusal: data.reason } : null;
}

function newRow() {
  const cells = [
    make("span", { role: "cell" }),
    make("span", { role: "cell" }),
    make("span", { role: "cell", class: "q" }),
  ];
  const sign = make("span", { "aria-hidden": "true" });
  const who = make("span", { class: "vh" });
  const text = document.createTextNode("");
  cells[0].append(sign, who, text);
  const row = make("div", { class: "b-row row", role: "row" }, ...cells);
  row.parts = { sign, who, text, price: cells[0], size: cells[1], time: cells[2] };
  return row;
}

function fillRow(row, { trade, gap, lagged }, tick, step) {
  const { parts } = row;
  setAttribute(row, "class", trade ? "b-row row" : "b-row row note");
  for (const cell of [parts.size, parts.time]) cell.hidden = !trade;
  if (!trade) {
    setAttribute(parts.price, "class", null);
    setText(parts.sign, "");
    setText(parts.who, "");
    setText(parts.text, gap ? gapText(gap) : t("lagged", { n: Number(lagged.dropped) }));
    setAttribute(row, "title", parts.text.data);
    return;
  }
  const isBuyer = !trade.is_buyer_maker;
  setAttribute(row, "title", null);
  setAttribute(parts.price, "class", isFresh(stream(looking.symbol, "trade")) ? (isBuyer ? "up" : "down") : null);
  setText(parts.sign, isBuyer ? "▲ " : "▼ ");
  setText(parts.who, `${t(isBuyer ? "buyer" : "seller")} `);
  setText(parts.text, price(trade.price, tick));
  setText(parts.size, price(trade.quantity, step));
  setText(parts.time, clock(Number(trade.timestamp)));
}

function gapText({ from, to, filled, reason }) {
  const why = filled ? t("filled") : reason || t("gapBare");
  if (from === null || to === null) return t("gapOpen", { reason: why });
  return t("gap", { n: t("trades", { n: Number(BigInt(to) - BigInt(from)) + 1 }), reason: why });
}

class Funding extends HTMLElement {
  connectedCallback() {
    this.list = this.querySelector("dl");
    this.note = this.querySelector(".empty");
    this.values = [...this.list.querySelectorAll("dd")];
    this.lease = feed.lease((changes) => this.take(changes), []);
    this.look();
    onLook("symbol", () => this.look());
    onWords(() => schedule(this.paint));
    every(1_000, () => schedule(this.paint));
  }

  look() {
    this.mark = null;
    this.isRefused = false;
    this.lease.set([stream(looking.symbol, "markPrice@1s")]);
    schedule(this.paint);
  }

  take(changes) {
    for (const { stream: name, event, data } of changes) {
      if (name !== stream(looking.symbol, "markPrice@1s")) continue;
      if (event === "") this.mark = data;
      if (event === "refused") this.isRefused = true;
    }
    schedule(this.paint);
  }

  paint = () => {
    const { mark } = this;
    this.list.hidden = !mark;
    this.note.hidden = Boolean(mark);
    setText(this.note, t(this.isRefused ? "spotOnly" : "connecting"));
    if (!mark) return;
    const next = Number(mark.next_funding_time);
    const texts = [
      price(mark.price),
      price(mark.index_price),
      mark.funding_rate === null ? "–" : fraction(mark.funding_rate),
      mark.next_funding_time ? `${moment(next)} (${t("in", { age: age(next - Date.now()) })})` : "–",
    ];
    for (const [at, text] of texts.entries()) setText(this.values[at], text);
  };
}

customElements.define("k-tape", Tape);
customElements.define("k-funding", Funding);
