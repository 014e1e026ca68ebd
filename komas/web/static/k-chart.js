// One instrument: its price in large, its candles with volume, older ones to the left, the newest live, gaps drawn.
import { after, Candles } from "./candles.js";
import { compare, direction, percent, places, price, volume } from "./digits.js";
import { chosen, make, roving } from "./elements.js";
import { Gaps } from "./gap.js";
import { isFresh, showGaps, toast } from "./k-health.js";
import { feed, INTERVALS, look, looking, onLook, stream } from "./page.js";
import { every, schedule, setAttribute, setText } from "./paint.js";
import { settings } from "./store.js";
import { about, onSymbol } from "./symbols.js";
import { age, clock, day, moment, onWords, parts, seconds, t } from "./words.js";

const PAGE = 500; // candles of one question
const MARGIN = 50; // candles left of the view, below which older ones are asked for
const VOLUME_PX = 72;
const SPOKEN_AFTER_MS = 500;
const LABEL_EVERY_MS = 30_000;
const IN_TABLE = 50;
const NOTE_PX = 96; // the least width of a note beside the candles
const OLD_MS = 2_000; // an age that is worth a word
const RARE = ["3m", "30m", "2h", "6h", "8h", "12h", "3d"];
const COLORS = [
  "--panel",
  "--line",
  "--ink-1",
  "--ink-3",
  "--ctl",
  "--up",
  "--down",
  "--up-g",
  "--down-g",
  "--warn",
  "--warn-line",
  "--inv",
];

const lib = () => globalThis.LightweightCharts;
const point = (ms) => ms / 1_000;

class Chart extends HTMLElement {
  connectedCallback() {
    for (const name of ["base", "quote", "kind", "last", "chg", "high", "low", "vol", "funding"])
      this[name] = this.querySelector(`[data-is=${name}]`);
    for (const name of ["high-name", "low-name", "vol-name", "funding-name"])
      this[name] = this.querySelector(`[data-is=${name}]`);
    this.plot = this.querySelector(".plot");
    this.legend = this.querySelector(".legend");
    this.note = this.querySelector(".plotnote");
    this.oldTag = this.querySelector("[data-is=old]");
    this.countdown = this.querySelector("[data-is=countdown]");
    this.spoken = this.querySelector("[role=status]");
    this.menu = this.querySelector(".menu");
    this.market = feed.lease((changes) => this.takeMarket(changes), []);
    this.lease = feed.lease((changes) => this.take(changes), []);
    this.controls();
    this.build();
    this.look();
    this.follow();
  }

  follow() {
    onLook("symbol", () => this.look());
    onLook("interval", () => this.look());
    onSymbol((symbol) => {
      if (symbol === looking.symbol) {
        this.formats();
        schedule(this.paint);
      }
    });
    onWords(() => {
      this.formats();
      this.legend.replaceChildren();
      this.nameInterval();
      this.fill();
      this.describe();
      schedule(this.paint);
    });
    feed.onState(() => this.dress());
    for (const key of ["theme", "colors", "hollow"])
      settings.onChange(key, () => requestAnimationFrame(() => this.dress(true)));
    settings.onChange("times", () => this.formats());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.dress(true));
    every(1_000, () => {
      this.paintTitle();
      schedule(this.paint);
    });
    every(LABEL_EVERY_MS, () => this.describe());
  }

  // ---- the instrument

  look() {
    const { symbol, interval } = looking;
    this.ticker = this.mark = this.refusal = this.wanted = null;
    this.begin();
    this.market.set([stream(symbol, "ticker"), stream(symbol, "markPrice@1s")]);
    this.lease.set([stream(symbol, `kline_${interval}`)]);
    this.formats();
    this.fill();
    this.chart?.timeScale().resetTimeScale();
    for (const button of this.intervals)
      setAttribute(button, "aria-checked", String(button.dataset.interval === interval));
    chosen(
      [...this.querySelectorAll("[role=radiogroup] [data-interval]")],
      (button) => button.dataset.interval === interval,
      "aria-checked",
    );
    this.nameInterval();
    this.paintTitle();
    schedule(this.paint);
  }

  /** The button of the rare intervals shows the one that is chosen. */
  nameInterval() {
    const more = this.querySelector(".more");
    const isRare = RARE.includes(looking.interval);
    setText(more, isRare ? looking.interval : t("more"));
    setAttribute(more, "class", isRare ? "more on" : "more");
  }

  begin() {
    this.candles = new Candles(looking.interval);
    const name = stream(looking.symbol, `kline_${looking.interval}`);
    for (const gap of feed.state.ownGaps) if (gap.stream === name) this.candles.declare(gap);
    this.failure = null;
    this.isLoading = this.isAtStart = false;
    this.pointed = null;
  }

  takeMarket(changes) {
    for (const { stream: name, event, data } of changes) {
      if (!name.startsWith(`${looking.symbol.toLowerCase()}@`)) continue;
      if (event !== "") continue;
      if (name.includes("@markPrice")) this.mark = data;
      else this.ticker = data;
    }
    schedule(this.paint);
  }

  take(changes) {
    const name = stream(looking.symbol, `kline_${looking.interval}`);
    const mine = changes.filter((change) => change.stream === name);
    const events = mine.filter(({ event }) => event === "");
    for (const { event, data } of mine) {
      if (event === "reset") this.begin();
      if (event === "gap") this.candles.declare(data);
      if (event === "refused") this.refusal = data.reason;
    }
    const done = events.map(({ data }) => [this.candles.add(data), data]);
    const isRedrawn =
      done.some(([how]) => how === "changed") || mine.some(({ event }) => event === "gap") || done.length > 3;
    if (isRedrawn) this.fill();
    else for (const [how, data] of done) if (how === "last") this.update(data);
    if (events.length) this.refusal = null;
    if (isRedrawn) this.older();
    schedule(this.paint);
  }

  // ---- the library's chart

  build() {
    if (!lib()) {
      this.failure = "lightweight-charts";
      return;
    }
    const { createChart, CandlestickSeries, HistogramSeries } = lib();
    // The library's own logo would need an inline style, which the page's policy forbids: the link in the plot names it.
    this.chart = createChart(this.plot, { autoSize: true, layout: { attributionLogo: false } });
    this.bars = this.chart.addSeries(CandlestickSeries, { lastValueVisible: false, priceLineVisible: false }, 0);
    this.line = this.bars.createPriceLine({ price: 0, lineStyle: 1, lineWidth: 1 });
    this.volumes = this.chart.addSeries(
      HistogramSeries,
      { priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false },
      1,
    );
    this.chart.panes()[1]?.setHeight(VOLUME_PX);
    this.gaps = new Gaps();
    this.bars.attachPrimitive(this.gaps);
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(() => this.older());
    this.whenShown(() => {
      this.chart.timeScale().resetTimeScale();
      this.chart.panes()[1]?.setHeight(VOLUME_PX);
    });
    this.chart.subscribeCrosshairMove(({ time }) => {
      this.pointed = time === undefined ? null : time * 1_000;
      schedule(this.paint);
    });
    this.dress(true);
  }

  /** Built in a view that is hidden (on a phone) the chart has no width: what was laid out then is squeezed. */
  whenShown(layOut) {
    if (this.plot.clientWidth) return;
    const observer = new ResizeObserver(() => {
      if (!this.plot.clientWidth) return;
      observer.disconnect();
      requestAnimationFrame(layOut);
    });
    observer.observe(this.plot);
  }

  /** Are both the price and the candles those of now? */
  get isFresh() {
    return isFresh(stream(looking.symbol, "ticker")) && isFresh(stream(looking.symbol, `kline_${looking.interval}`));
  }

  /** Colours from the stylesheet; grey while what is drawn is old. */
  dress(isForced = false) {
    const isGrey = !this.isFresh;
    if (!this.chart || (!isForced && isGrey === this.isGrey)) return;
    this.isGrey = isGrey;
    this.colors = readColors(this);
    const color = (name) => this.colors[name];
    const up = isGrey ? color("--ctl") : color("--up-g");
    const down = isGrey ? color("--ctl") : color("--down-g");
    const line = { color: color("--line") };
    const cross = { color: color("--ink-3"), labelBackgroundColor: color("--ink-1") };
    this.chart.applyOptions({
      layout: {
        background: { color: color("--panel") },
        textColor: color("--ink-3"),
        fontSize: 11,
        fontFamily: getComputedStyle(this).fontFamily,
        panes: { separatorColor: color("--line"), enableResize: false },
      },
      grid: { vertLines: line, horzLines: line },
      crosshair: { mode: 0, vertLine: cross, horzLine: cross },
      rightPriceScale: { borderColor: color("--line"), minimumWidth: 76 },
      timeScale: {
        borderColor: color("--line"),
        timeVisible: true,
        secondsVisible: looking.interval === "1s",
        rightOffset: 4,
      },
    });
    const isHollow = settings.get("hollow");
    this.bars.applyOptions({
      upColor: isHollow ? color("--panel") : up,
      downColor: down,
      borderUpColor: up,
      borderDownColor: down,
      wickUpColor: up,
      wickDownColor: down,
    });
    this.volumeColors = [fade(up), fade(down)];
    this.fill();
  }

  formats() {
    if (!this.chart) return;
    const known = about(looking.symbol);
    const digits = places(known.tick_size) ?? this.mostPlaces();
    this.bars.applyOptions({
      priceFormat: {
        type: "custom",
        minMove: 10 ** -digits,
        formatter: (value) => price(value.toFixed(digits), known.tick_size),
      },
    });
    this.volumes.applyOptions({
      priceFormat: { type: "custom", minMove: 1e-8, formatter: (value) => volume(String(value)) },
    });
    this.chart.applyOptions({
      localization: { locale: document.documentElement.lang, timeFormatter: (time) => this.timeText(time * 1_000) },
      timeScale: {
        tickMarkFormatter: (time, kind) => tickText(time * 1_000, kind),
        secondsVisible: looking.interval === "1s",
      },
    });
  }

  mostPlaces() {
    const last = this.candles?.byTime.get(this.candles.newest)?.close ?? this.ticker?.price ?? "0.00";
    return Math.min(10, (price(last).split(".")[1] ?? "").length);
  }

  timeText(ms) {
    return /[dwM]/.test(looking.interval)
      ? day(ms)
      : `${day(ms, { day: "numeric", month: "short" })}, ${clock(ms, looking.interval === "1s")}`;
  }

  /** Draw everything anew; the view stays where it is. */
  fill() {
    if (!this.chart || !this.candles) return;
    const missing = this.candles.missing();
    const blanks = missing.flatMap(({ times }) => times);
    const times = blanks.length ? [...this.candles.times, ...blanks].sort((a, b) => a - b) : this.candles.times;
    this.bars.setData(times.map((time) => this.bar(time)));
    this.volumes.setData(times.map((time) => this.volumeBar(time)));
    this.lastLine();
    this.shownGaps = missing.map((gap) => ({
      first: point(gap.times[0]),
      last: point(gap.times.at(-1)),
      label: gapText(gap),
      ms: gap.times[0],
    }));
    this.gaps.show(this.shownGaps, {
      line: this.colors["--warn-line"],
      text: this.colors["--warn"],
      back: this.colors["--panel"],
      font: `11px ${getComputedStyle(this).fontFamily}`,
    });
  }

  /** The line of the last price; text stands on its label, so it has the colour of text. */
  lastLine() {
    const last = this.candles.byTime.get(this.candles.newest);
    const name = this.isGrey ? "--ink-3" : last && compare(last.close, last.open) < 0 ? "--down" : "--up";
    const color = this.colors[name];
    this.line.applyOptions({
      price: Number(last?.close ?? 0),
      color,
      axisLabelColor: color,
      axisLabelTextColor: this.colors["--inv"],
      axisLabelVisible: Boolean(last),
      lineVisible: Boolean(last),
    });
  }

  bar(time) {
    const candle = this.candles.byTime.get(time);
    if (!candle) return { time: point(time) };
    return {
      time: point(time),
      open: Number(candle.open),
      high: Number(candle.high),
      low: Number(candle.low),
      close: Number(candle.close),
    };
  }

  volumeBar(time) {
    const candle = this.candles.byTime.get(time);
    if (!candle) return { time: point(time) };
    return {
      time: point(time),
      value: Number(candle.volume),
      color: this.volumeColors[compare(candle.close, candle.open) < 0 ? 1 : 0],
    };
  }

  update({ timestamp }) {
    if (!this.chart) return;
    this.bars.update(this.bar(Number(timestamp)));
    this.lastLine();
    this.volumes.update(this.volumeBar(Number(timestamp)));
  }

  /** Ask for older candles when the view comes near the oldest. */
  async older(isWanted = false) {
    const range = this.chart?.timeScale().getVisibleLogicalRange();
    const { candles } = this;
    if (!range || !candles.times.length || this.isLoading || this.isAtStart || candles.isFull) return;
    if (range.from > MARGIN && !isWanted) return;
    this.isLoading = true;
    this.failure = null;
    try {
      const { symbol, interval } = looking;
      const body = await feed.get(
        `api/ws/klines?symbol=${encodeURIComponent(symbol)}&interval=${interval}&limit=${PAGE}&end=${candles.oldest - 1}`,
      );
      if (candles !== this.candles) return;
      this.isAtStart = candles.prepend(body.candles) === 0;
      if (!this.isAtStart) this.fill();
    } catch (error) {
      if (candles === this.candles) this.failure = error.message;
    } finally {
      if (candles === this.candles) {
        this.isLoading = false;
        schedule(this.paint);
      }
    }
  }

  // ---- controls

  controls() {
    const group = this.querySelector("[role=radiogroup]");
    const button = (interval, attributes) =>
      make(
        "button",
        {
          type: "button",
          role: "radio",
          "data-interval": interval,
          onclick: () => this.choose(interval),
          ...attributes,
        },
        interval,
      );
    group.append(...INTERVALS.map((interval) => button(interval, { class: RARE.includes(interval) ? "rare" : null })));
    this.menu.append(...RARE.map((interval) => button(interval, { role: "menuitemradio" })));
    this.intervals = [...this.menu.children];
    roving(group, "button", (next) => this.choose(next.dataset.interval));
    roving(this.menu, "button", () => {});
    const more = this.querySelector(".more");
    more.addEventListener("click", () => this.toggleMenu(this.menu.hidden));
    this.menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.toggleMenu(false);
      more.focus();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!this.menu.contains(event.target) && event.target !== more) this.toggleMenu(false);
    });
    this.querySelector(".fit").addEventListener("click", () => this.chart?.timeScale().fitContent());
    this.querySelector(".live").addEventListener("click", () => this.toLive());
    this.querySelector(".table").addEventListener("click", () => this.table());
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.note.querySelector("button").addEventListener("click", () => {
      this.failure = null;
      this.plot.focus(); // the button goes
      this.older();
    });
  }

  toggleMenu(isOpen) {
    const more = this.querySelector(".more");
    this.menu.hidden = !isOpen;
    more.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) return;
    this.menu.style.left = `${more.offsetLeft}px`;
    this.menu.style.top = `${more.offsetTop + more.offsetHeight + 2}px`;
    (this.intervals.find((button) => button.dataset.interval === looking.interval) ?? this.intervals[0]).focus();
  }

  choose(interval) {
    if (!this.menu.hidden) {
      this.toggleMenu(false);
      this.querySelector(".more").focus();
    }
    look({ interval });
  }

  /** The interval before or after this one. */
  step(by) {
    const at = INTERVALS.indexOf(looking.interval) + by;
    if (INTERVALS[at]) look({ interval: INTERVALS[at] });
  }

  /** Without an animation: one of the library's ends where the next event of the market finds it. */
  toLive() {
    const scale = this.chart?.timeScale();
    scale?.scrollToPosition(scale.options().rightOffset, false);
  }

  zoom(by) {
    const scale = this.chart?.timeScale();
    const range = scale?.getVisibleLogicalRange();
    if (!range) return;
    const cut = ((range.to - range.from) * by) / 2;
    scale.setVisibleLogicalRange({ from: range.from + cut * 2, to: range.to });
  }

  /** Move the view to the next gap, the oldest after the newest; the list has those of other charts and of trades. */
  nextGap() {
    const gaps = [...(this.shownGaps ?? [])].sort((a, b) => a.ms - b.ms);
    if (!gaps.length) {
      const n = feed.state.ownGaps.length;
      return n ? toast(t("gapElsewhere", { n }), { label: t("show"), act: showGaps }) : toast(t("gapNone"));
    }
    this.toGap(gaps.find(({ ms }) => ms > (this.gapAt ?? Number.NEGATIVE_INFINITY)) ?? gaps[0]);
  }

  toGap({ ms, first, label }) {
    this.gapAt = ms;
    const scale = this.chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    const at = scale.timeToIndex(first, true);
    const half = (range.to - range.from) / 2;
    scale.setVisibleLogicalRange({ from: at - half, to: at + half });
    setText(this.spoken, `${t("gapNext", { time: moment(ms) })}. ${label}`);
  }

  /** Show a gap of what is looked at, as soon as its candles are here: `from` and `to` are open times. */
  findGap({ from, to }) {
    this.wanted = { from, to: to ?? Number.POSITIVE_INFINITY };
    schedule(this.paint);
  }

  seekGap() {
    const { wanted, candles } = this;
    if (!wanted || !candles.times.length || this.isLoading) return;
    const gap = this.shownGaps.find(({ ms }) => ms >= wanted.from && ms <= wanted.to);
    const isOlder = wanted.from < candles.oldest && !this.isAtStart && !candles.isFull && !this.failure;
    if (!gap && isOlder) return this.older(true);
    this.wanted = null;
    if (gap) this.toGap(gap);
    else toast(t("gapOver"));
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.candles.times.length) return;
    event.preventDefault();
    const { times } = this.candles;
    const at = this.pointed === null ? times.length - 1 : times.indexOf(this.pointed) + step;
    const time = times[Math.min(times.length - 1, Math.max(0, at))];
    this.chart.setCrosshairPosition(Number(this.candles.byTime.get(time).close), point(time), this.bars);
    this.pointed = time;
    clearTimeout(this.speaking);
    this.speaking = setTimeout(
      () =>
        setText(
          this.spoken,
          `${moment(time)}. ${this.values(time)
            .map(([name, text]) => `${t(name)} ${text}`)
            .join(", ")}`,
        ),
      SPOKEN_AFTER_MS,
    );
    schedule(this.paint);
  }

  table() {
    const times = this.candles.times.slice(-IN_TABLE).reverse();
    const heads = ["opens", "openPrice", "high", "low", "closePrice", "volume"].map((id, at) =>
      make("th", { class: at ? "n" : null, scope: "col" }, t(id)),
    );
    const rows = times.map((time) =>
      make(
        "tr",
        {},
        make("td", { class: "q" }, moment(time, looking.interval === "1s")),
        ...this.values(time).map(([, text]) => make("td", { class: "n" }, text)),
      ),
    );
    const dialog = make("dialog", { class: "broad", "aria-labelledby": "candle-table" });
    const close = make("button", { class: "btn small", type: "button", onclick: () => dialog.close() }, t("close"));
    const title = t("candleTable", { symbol: looking.symbol, interval: looking.interval, n: times.length });
    dialog.append(
      make("div", { class: "head" }, make("h2", { id: "candle-table" }, title), make("span", { class: "end" }, close)),
      make("table", { class: "data" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows)),
    );
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  // ---- painting

  values(time) {
    const candle = this.candles.byTime.get(time);
    const tick = about(looking.symbol).tick_size;
    return [
      ["o", price(candle.open, tick)],
      ["h", price(candle.high, tick)],
      ["l", price(candle.low, tick)],
      ["c", price(candle.close, tick)],
      ["v", price(candle.volume)],
    ];
  }

  paint = () => {
    const { symbol } = looking;
    const known = about(symbol);
    const { ticker } = this;
    setText(this.base, known.base);
    setText(this.quote, known.quote && `/${known.quote}`);
    setText(this.kind, known.tick_size ? t("spot", { tick: price(known.tick_size) }) : t("spotPlain"));
    // A quiet symbol has no ticker until it trades: its newest candle has the last price.
    setText(this.last, price(ticker?.price ?? this.candles.byTime.get(this.candles.newest)?.close, known.tick_size));
    const way = ticker ? direction(ticker.price_change_percent) : 0;
    const tone = !this.isFresh || !way ? "" : way > 0 ? " up" : " down";
    setAttribute(this.last, "class", `last${tone}`);
    setAttribute(this.chg, "class", `chg${tone}`);
    setText(this.chg, ticker ? `${way > 0 ? "▲ " : way < 0 ? "▼ " : ""}${percent(ticker.price_change_percent)}` : "");
    setText(this.high, price(ticker?.high, known.tick_size));
    setText(this.low, price(ticker?.low, known.tick_size));
    setText(this.vol, volume(ticker?.quote_volume));
    setAttribute(this.vol, "title", ticker ? price(ticker.quote_volume) : null);
    setText(this["vol-name"], t("volumeIn", { quote: known.quote || "…" }));
    this.paintFunding();
    this.paintLegend();
    this.paintNotes(ticker);
    this.seekGap();
  };

  /** Once a second: the whole browser has to hear of it. */
  paintTitle() {
    const { symbol } = looking;
    const digits = this.ticker ? `${price(this.ticker.price, about(symbol).tick_size)} ` : "";
    document.title = `${digits}${symbol} · komas`;
  }

  paintFunding() {
    const rate = this.mark?.funding_rate ?? null;
    this.funding.parentElement.hidden = rate === null;
    if (rate === null) return;
    const left = Number(this.mark.next_funding_time) - Date.now();
    setText(this["funding-name"], this.mark.next_funding_time ? t("fundingIn", { age: age(left) }) : t("funding"));
    setText(this.funding, fraction(rate));
    const way = isFresh(stream(looking.symbol, "markPrice@1s")) ? direction(rate) : 0;
    setAttribute(this.funding, "class", way > 0 ? "up" : way < 0 ? "down" : null);
  }

  paintLegend() {
    const time = this.candles.byTime.has(this.pointed) ? this.pointed : this.candles.newest;
    if (time === undefined) return this.legend.replaceChildren();
    if (!this.legend.firstChild) {
      this.legend.append(
        ...["o", "h", "l", "c", "v"].map((name) =>
          make("span", { class: name === "v" ? "vol" : null }, `${t(name)} `, make("b")),
        ),
      );
    }
    for (const [at, [, text]] of this.values(time).entries()) setText(this.legend.children[at].lastChild, text);
  }

  paintNotes(ticker) {
    const known = about(looking.symbol);
    const isEmpty = !this.candles.times.length;
    const trouble = this.refusal ?? this.failure;
    const room = trouble || isEmpty ? null : this.roomBefore();
    const halted = known.status && known.status !== "TRADING" ? t("halted", { symbol: looking.symbol }) : null;
    const text = trouble
      ? t("chartError", { reason: trouble })
      : isEmpty
        ? (halted ?? t("chartLoading"))
        : room && t("chartStart");
    this.note.hidden = !text;
    setAttribute(this.note, "class", room ? "plotnote start" : "plotnote");
    const width = room ? `${room}px` : "";
    if (this.note.style.width !== width) this.note.style.width = width;
    setText(this.note.firstElementChild, text ?? "");
    this.note.lastElementChild.hidden = !this.failure || isEmpty;
    const old = ticker ? Date.now() - Number(ticker.timestamp) : 0;
    const isOld = !this.isFresh && old > OLD_MS;
    this.oldTag.hidden = !isOld && !halted;
    if (isOld) setText(this.oldTag, t("old", { age: age(old) }));
    else if (halted && ticker) setText(this.oldTag, halted);
    const closes = isEmpty ? null : after(this.candles.newest, looking.interval);
    this.countdown.hidden = !this.isFresh || !closes || closes < Date.now();
    if (!this.countdown.hidden) {
      setText(this.countdown, countdown(closes - Date.now()));
      setAttribute(this.countdown, "title", t("closesIn", { s: seconds(closes) }));
    }
  }

  /** The empty place before the first candle of all, in px, where it is wide enough for a note; else null. */
  roomBefore() {
    const scale = this.isAtStart ? this.chart?.timeScale() : null;
    const [first, next] = [0, 1].map((at) => scale?.logicalToCoordinate(at) ?? Number.NaN);
    const room = Math.floor(first - (next - first) / 2);
    return room >= NOTE_PX ? room : null;
  }

  /** What a screen reader is told of the picture. */
  describe() {
    if (!this.candles.times.length) return;
    const tick = about(looking.symbol).tick_size;
    const range = this.chart?.timeScale().getVisibleRange();
    const { high, low } = this.candles.extremes(
      range ? range.from * 1_000 : 0,
      range ? range.to * 1_000 : Number.POSITIVE_INFINITY,
      compare,
    );
    const last = this.candles.byTime.get(this.candles.newest).close;
    setAttribute(
      this.plot,
      "aria-label",
      t("chartLabel", {
        symbol: looking.symbol,
        interval: looking.interval,
        last: price(last, tick),
        high: price(high, tick),
        low: price(low, tick),
        gaps: t("gaps", { n: this.shownGaps?.length ?? 0 }),
      }),
    );
  }
}

function gapText({ count, reason, isOpen }) {
  const why = reason || t("gapBare");
  return isOpen ? t("gapOpen", { reason: why }) : t("gap", { n: t("candles", { n: count }), reason: why });
}

/** A fraction as percent, its digits moved by two places, four of them at least: "0.00010000" is "+0.0100 %". */
export function fraction(text) {
  const isMinus = text.startsWith("-");
  const [whole, part = ""] = text.replace("-", "").split(".");
  const digits = part.padEnd(2, "0");
  const moved = `${whole}${digits.slice(0, 2)}`.replace(/^0+(?=\d)/, "");
  const rest = digits.slice(2).replace(/0+$/, "").padEnd(4, "0");
  return percent(`${isMinus ? "-" : ""}${moved}.${rest}`);
}

function countdown(ms) {
  const all = Math.floor(ms / 1_000);
  const two = (number) => String(number).padStart(2, "0");
  if (all >= 86_400) return age(ms);
  const [hours, minutes, rest] = [Math.floor(all / 3_600), Math.floor((all % 3_600) / 60), all % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`;
}

/** Marks of the time axis: years, months, days, times. */
function tickText(ms, kind) {
  const [year] = parts(ms);
  if (kind === 0) return String(year);
  if (kind === 1) return day(ms, { month: "short" });
  if (kind === 2) return day(ms, { day: "numeric", month: "short" });
  return clock(ms, kind === 4);
}

/** Colours of the stylesheet as the canvas takes them: tokens with both themes in them must be computed first. */
function readColors(place) {
  const probe = place.appendChild(make("span", { hidden: true }));
  const colors = Object.fromEntries(
    COLORS.map((name) => {
      probe.style.color = `var(${name})`;
      return [name, getComputedStyle(probe).color];
    }),
  );
  probe.remove();
  return colors;
}

const fade = (color) => color.replace(/^rgb\((.+)\)$/, "rgba($1, 0.42)");

customElements.define("k-chart", Chart);
