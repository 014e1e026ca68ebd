// The watchlist: a grid of which only the rows in view exist, searched, sorted, remembered.
import { compare, direction, percent, price, volume } from "./digits.js";
import { draw, icon, make } from "./elements.js";
import { isFresh, toast } from "./k-health.js";
import { feed, look, looking, onLook, stream, symbolOf } from "./page.js";
import { every, flash, schedule, setAttribute, setText } from "./paint.js";
import { settings } from "./store.js";
import { about, find, onSymbol, queue } from "./symbols.js";
import { age, onWords, t } from "./words.js";

const BEYOND = 8; // rows above and below the view
const FIRST = 20; // symbols of somebody who was never here
const SEARCH_AFTER_MS = 150;
const SORT_EVERY_MS = 2_000;
const LINE_EVERY_MS = 1_000; // it is of a day: nobody sees a tenth of a second in it
const STILL = 12; // rows that stand for those that are not known yet
const POINTS = 48; // of a sparkline: 24 h of half hours
const LINE = { width: 48, height: 20 };
const KEYS = {
  symbol: null,
  price: "price",
  change: "price_change_percent",
  high: "high",
  low: "low",
  volume: "quote_volume",
};
const TRADING = "TRADING";

/** The path of a sparkline through values, oldest first. */
export function linePath(values) {
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const step = LINE.width / Math.max(1, values.length - 1);
  return values
    .map((value, at) => {
      const y = LINE.height - 1 - ((value - low) / span) * (LINE.height - 2);
      return `${at ? "L" : "M"}${(at * step).toFixed(1)} ${y.toFixed(1)}`;
    })
    .join("");
}

class Watchlist extends HTMLElement {
  connectedCallback() {
    this.tickers = new Map();
    this.health = new Map();
    this.refused = new Map();
    this.lines = new Map();
    this.closes = new Map(); // symbol → last price of its history: all there is of one that has not traded since
    this.linesAsked = new Set();
    this.rows = new Map(); // symbol → row element, of those in view
    this.list = [];
    this.sort = settings.get("sort") ?? { key: "volume", falling: true };
    this.query = "";
    this.offered = null; // symbols of the exchange that match the query
    this.shown = [];
    this.focused = null;
    this.grid = this.querySelector("[role=grid]");
    this.body = this.querySelector(".rows");
    this.input = this.querySelector("input");
    this.nothing = this.querySelector(".empty");
    this.found = this.querySelector(".found");
    this.lease = feed.lease((changes) => this.take(changes), []);
    this.listen();
    this.begin();
  }

  listen() {
    this.grid.addEventListener("scroll", () => schedule(this.paint), { passive: true });
    new ResizeObserver(() => schedule(this.paint)).observe(this.grid);
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const symbol = event.target.closest("[data-symbol]")?.dataset.symbol;
      if (!symbol) return;
      if (!event.target.closest("button")) this.open(symbol);
      else if (this.list.includes(symbol)) this.remove(symbol);
      else this.add(symbol);
    });
    this.body.addEventListener("focusin", (event) => {
      this.focused = event.target.closest("[data-symbol]")?.dataset.symbol ?? this.focused;
    });
    for (const button of this.grid.querySelectorAll("[data-sort]")) {
      button.addEventListener("click", () => this.sortBy(button.dataset.sort));
    }
    this.input.addEventListener("input", () => this.search(this.input.value));
    this.input.addEventListener("keydown", (event) => this.inputKey(event));
    this.querySelector("[data-wide]").addEventListener("click", () => this.widen());
    onLook("symbol", () => schedule(this.paint));
    onSymbol(() => schedule(this.paint));
    onWords(() => {
      this.saidAt = performance.now();
      this.select();
    });
    every(SORT_EVERY_MS, () => this.order());
    feed.onState(() => schedule(this.paint));
  }

  async begin() {
    const kept = settings.get("watchlist");
    if (kept) return this.watch(kept);
    this.body.append(...Array.from({ length: STILL }, stillRow));
    try {
      const [{ streams }, busiest] = await Promise.all([feed.get("api/ws/streams"), find("", FIRST)]);
      const pinned = streams.filter(({ type, pinned }) => type === "ticker" && pinned).map(({ symbol }) => symbol);
      this.watch(
        [...new Set([...pinned, ...busiest.map(({ symbol }) => symbol)])].slice(0, Math.max(FIRST, pinned.length)),
      );
    } catch {
      this.watch([looking.symbol]); // the banner says what is wrong, and the list begins with what is looked at
    }
  }

  watch(symbols) {
    for (const still of this.body.querySelectorAll(".still")) still.remove();
    this.list = symbols;
    this.lease.set(symbols.map((symbol) => stream(symbol, "ticker")));
    this.order(true);
  }

  keep(symbols) {
    settings.set("watchlist", symbols);
    this.watch(symbols);
  }

  take(changes) {
    for (const { stream: name, event, data } of changes) {
      const symbol = symbolOf(name);
      if (event === "") this.tick(symbol, data);
      else if (event === "reset") this.health.delete(symbol);
      else if (event === "health") this.health.set(symbol, data);
      else if (event === "refused") this.refused.set(symbol, data.reason);
    }
    schedule(this.paint);
  }

  tick(symbol, data) {
    const before = this.tickers.get(symbol);
    this.tickers.set(symbol, data);
    this.refused.delete(symbol);
    const line = this.lines.get(symbol);
    if (line) line[line.length - 1] = Number(data.price);
    const row = this.rows.get(symbol);
    if (!row) return;
    const way = before ? compare(data.price, before.price) : 0;
    if (way) flash(row.cells.px, way);
  }

  // ---- what is shown, in which order

  order(isForced = false) {
    if (!isForced && (this.grid.matches(":hover") || this.grid.contains(document.activeElement))) return;
    const field = KEYS[this.sort.key];
    const sign = this.sort.falling ? -1 : 1;
    const value = (symbol) =>
      this.tickers.get(symbol)?.[field] ?? (field === "price" ? this.closes.get(symbol) : undefined);
    this.list = [...this.list].sort((a, b) => {
      if (!field) return sign * (a < b ? -1 : a > b ? 1 : 0);
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return sign * compare(x, y);
    });
    this.select();
  }

  select() {
    const query = this.query.toUpperCase();
    const own = query ? this.list.filter((symbol) => symbol.includes(query)) : this.list;
    const more = query && this.offered ? this.offered.filter((symbol) => !this.list.includes(symbol)) : [];
    this.shown = [...own, ...more];
    const isNone = !this.shown.length && (!query || this.offered !== null);
    this.nothing.hidden = !isNone;
    if (isNone)
      setText(
        this.nothing,
        query
          ? t(feed.state.simulated ? "searchNoneSim" : "searchNone", { q: this.input.value.trim() })
          : t("watchEmpty"),
      );
    this.found.hidden = !query || isNone;
    if (query)
      setText(
        this.found,
        this.offered ? t("found", { n: own.length, more: more.length }) : t("searching", { n: own.length }),
      );
    setAttribute(this.grid, "aria-rowcount", String(this.shown.length + 1));
    schedule(this.paint);
  }

  sortBy(key) {
    this.sort = { key, falling: this.sort.key === key ? !this.sort.falling : key !== "symbol" };
    settings.set("sort", this.sort);
    this.order(true);
  }

  search(text) {
    this.query = text.replace(/[\s/_-]+/g, ""); // BTC/USDT, btc_usdt and btc-usdt are BTCUSDT
    this.offered = null;
    clearTimeout(this.asking);
    if (this.query) this.asking = setTimeout(() => this.ask(this.query), SEARCH_AFTER_MS);
    this.grid.scrollTop = 0;
    this.select();
  }

  async ask(query) {
    let offered = [];
    try {
      offered = (await find(query)).map(({ symbol }) => symbol);
    } catch {
      /* the list itself is searched all the same */
    }
    if (query !== this.query) return;
    this.offered = offered;
    this.select();
  }

  // ---- keys and acts

  inputKey(event) {
    if (event.key === "ArrowDown" && this.shown.length) {
      event.preventDefault();
      this.focusRow(0);
    } else if (event.key === "Enter" && this.shown.length) {
      this.open(this.shown[0]);
    } else if (event.key === "Escape" && this.input.value) {
      event.stopPropagation();
      this.input.value = "";
      this.search("");
    }
  }

  key(event) {
    const symbol = event.target.closest("[data-symbol]")?.dataset.symbol;
    if (!symbol || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.shown.indexOf(symbol);
    const page = Math.max(1, Math.floor(this.grid.clientHeight / this.rowHeight) - 1);
    const last = this.shown.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last }[
      event.key
    ];
    const isOnButton = event.target.matches("button");
    if (to !== undefined) this.focusRow(Math.min(last, Math.max(0, to)));
    else if (event.key === "ArrowRight") this.rows.get(symbol).cells.star.focus();
    else if (event.key === "ArrowLeft") this.rows.get(symbol).focus();
    else if (event.key === "Enter" && !isOnButton) this.open(symbol);
    else if (event.key === "Delete") this.remove(symbol);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  focusRow(at) {
    const top = at * this.rowHeight;
    const { scrollTop, clientHeight } = this.grid;
    const room = clientHeight - this.body.offsetTop - this.rowHeight;
    if (top < scrollTop) this.grid.scrollTop = top;
    else if (top > scrollTop + room) this.grid.scrollTop = top - room;
    this.focused = this.shown[at];
    this.paint();
    this.rows.get(this.focused)?.focus({ preventScroll: true });
  }

  open(symbol) {
    if (!this.list.includes(symbol)) this.keep([...this.list, symbol]);
    if (this.query) {
      this.input.value = "";
      this.search("");
    }
    look({ symbol, view: "market" });
  }

  add(symbol) {
    this.keep([...this.list, symbol]);
    toast(t("added", { symbol }));
  }

  remove(symbol) {
    const before = this.list;
    const at = this.shown.indexOf(symbol);
    if (!before.includes(symbol)) return;
    const hadFocus = this.body.contains(document.activeElement);
    this.keep(before.filter((other) => other !== symbol));
    if (hadFocus && this.shown.length) this.focusRow(Math.min(at, this.shown.length - 1));
    else if (hadFocus) this.input.focus();
    toast(t("removed", { symbol }), {
      label: t("undo"),
      act: () => {
        this.keep(before);
        this.focusRow(Math.max(0, this.shown.indexOf(symbol)));
      },
    });
  }

  widen() {
    const isWide = document.documentElement.toggleAttribute("data-wide");
    settings.set("wide", isWide);
  }

  // ---- painting

  get rowHeight() {
    return matchMedia("(max-width: 719px)").matches ? 44 : 36;
  }

  paint = () => {
    const height = this.rowHeight;
    const { scrollTop, clientHeight } = this.grid;
    const first = Math.max(0, Math.floor(scrollTop / height) - BEYOND);
    const wanted = this.shown.slice(first, Math.ceil((scrollTop + clientHeight) / height) + BEYOND);
    const inView = new Set(wanted);
    const spare = [];
    for (const [symbol, row] of this.rows) {
      if (inView.has(symbol)) continue;
      this.rows.delete(symbol);
      spare.push(row);
    }
    this.body.style.height = `${this.shown.length * height}px`;
    const tabStop = inView.has(this.focused) ? this.focused : inView.has(looking.symbol) ? looking.symbol : wanted[0];
    wanted.forEach((symbol, offset) => {
      let row = this.rows.get(symbol);
      if (!row) {
        row = spare.pop() ?? this.body.appendChild(newRow());
        this.rows.set(symbol, row);
        row.dataset.symbol = symbol;
        this.wantLine(symbol);
      }
      const place = `0px ${(first + offset) * height}px`;
      if (row.style.translate !== place) row.style.translate = place;
      setAttribute(row, "aria-rowindex", String(first + offset + 2));
      setAttribute(row, "aria-selected", String(symbol === looking.symbol));
      for (const stop of [row, row.cells.star]) setAttribute(stop, "tabindex", symbol === tabStop ? "0" : "-1");
      this.fill(row, symbol);
    });
    for (const row of spare) row.remove();
    for (const head of this.grid.querySelectorAll("[role=columnheader]")) {
      const isSorted = head.firstElementChild?.dataset.sort === this.sort.key;
      if (head.querySelector("button"))
        setAttribute(head, "aria-sort", isSorted ? (this.sort.falling ? "descending" : "ascending") : "none");
    }
  };

  fill(row, symbol) {
    const ticker = this.tickers.get(symbol);
    const known = about(symbol);
    const { cells } = row;
    setText(cells.base, known.base);
    setText(cells.quote, known.quote && `/${known.quote}`);
    const doubt = this.doubt(symbol, known);
    const isListed = this.list.includes(symbol);
    const amount = volume(ticker?.quote_volume ?? known.volume_24h);
    setText(cells.small, doubt ? `▲ ${doubt.short}` : this.query && isListed ? t("listed") : amount);
    const act = t(isListed ? "listRemove" : "listAdd", { symbol });
    for (const name of ["aria-label", "title"]) setAttribute(cells.star, name, act);
    setAttribute(cells.star, "class", isListed ? "star on" : "star");
    setAttribute(row, "title", doubt ? doubt.whole : null);
    row.classList.toggle("stale", Boolean(doubt));
    setText(cells.px, price(ticker?.price ?? this.closes.get(symbol), known.tick_size));
    setText(cells.pc, ticker ? percent(ticker.price_change_percent) : "–");
    const way = ticker && isFresh(stream(symbol, "ticker")) ? direction(ticker.price_change_percent) : 0;
    setAttribute(cells.pc, "class", `pc${way > 0 ? " up" : way < 0 ? " down" : ""}`);
    setText(cells.high, price(ticker?.high, known.tick_size));
    setText(cells.low, price(ticker?.low, known.tick_size));
    setText(cells.vol, volume(ticker?.quote_volume));
    setAttribute(cells.vol, "title", ticker ? price(ticker.quote_volume) : null);
    this.fillLine(cells.spark, symbol);
  }

  doubt(symbol, known) {
    const refusal = this.refused.get(symbol);
    if (known.status && known.status !== TRADING) return { short: t("haltedShort"), whole: t("halted", { symbol }) };
    if (refusal) return { short: t("refusedShort"), whole: t("refused", { symbol, reason: refusal }) };
    const health = this.health.get(symbol);
    if (health?.health !== "stale") return null;
    const ticker = this.tickers.get(symbol);
    const whole = ticker
      ? t("stale", { symbol, age: age(Date.now() - Number(ticker.timestamp)) })
      : t("doubtful", { symbol, reason: health.reason });
    return { short: t("staleShort"), whole };
  }

  // ---- sparklines

  wantLine(symbol) {
    if (this.linesAsked.has(symbol)) return;
    this.linesAsked.add(symbol);
    queue(async () => {
      if (!this.rows.has(symbol)) {
        // scrolled away before its turn came
        this.linesAsked.delete(symbol);
        return;
      }
      const { candles } = await feed.get(
        `api/ws/klines?symbol=${encodeURIComponent(symbol)}&interval=30m&limit=${POINTS}`,
      );
      this.lines.set(
        symbol,
        candles.map(({ close }) => Number(close)),
      );
      if (candles.length) this.closes.set(symbol, candles.at(-1).close);
      schedule(this.paint);
    });
  }

  fillLine(spark, symbol) {
    const line = this.lines.get(symbol);
    spark.toggleAttribute("hidden", !line || line.length < 2);
    if (!line || line.length < 2) return;
    const now = performance.now();
    if (spark.line === line && now - spark.drawnAt < LINE_EVERY_MS && !(spark.drawnAt < this.saidAt)) return;
    Object.assign(spark, { line, drawnAt: now });
    setAttribute(spark.firstChild, "d", linePath(line));
    setAttribute(spark, "aria-label", t(line.at(-1) < line[0] ? "falling" : "rising"));
  }
}

function stillRow(_, at) {
  const row = make(
    "div",
    { class: "w-row row still", "aria-hidden": "true" },
    ...Array.from({ length: 5 }, () => make("span")),
  );
  row.style.translate = `0px ${at * 36}px`;
  return row;
}

function newRow() {
  const cell = (name, ...children) => make("span", { role: "gridcell", class: name }, ...children);
  const base = make("b");
  const quote = make("span", { class: "q" });
  const small = make("small");
  const spark = draw(
    "svg",
    { class: "spark", viewBox: `0 0 ${LINE.width} ${LINE.height}`, role: "img", hidden: "" },
    draw("path"),
  );
  const star = make("button", { type: "button", class: "star" }, icon("star"));
  const [px, pc] = [cell("px"), cell("pc")];
  const [high, low, vol] = [cell("wide"), cell("wide"), cell("wide vol")];
  const row = make(
    "div",
    { class: "w-row row", role: "row" },
    cell("mine", star),
    cell("sym", base, quote, small),
    cell("", spark),
    px,
    pc,
    high,
    low,
    vol,
  );
  row.cells = { star, base, quote, small, spark, px, pc, high, low, vol };
  return row;
}

customElements.define("k-watchlist", Watchlist);
