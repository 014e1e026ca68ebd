// Signals of a VIP: the latest beside the chart, all of them in their view, and what the connection went through.
import { compare, plain, price } from "./digits.js";
import { make } from "./elements.js";
import { tokenProblem } from "./k-health.js";
import { feed, look, looking, onLook } from "./page.js";
import { every, flash, schedule, setAttribute, setText } from "./paint.js";
import { settings, tokens } from "./store.js";
import { age, ago, clock, moment, onWords, seconds, t, zone } from "./words.js";

const IN_DOCK = 12;
const BEYOND = 8;
const SEEN_AFTER_MS = 3_000;
const SPEAK_EVERY_MS = 1_000;
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const NUMBER = /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/;
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d/;
const FIELDS = { coin_name: "coin", position: "position", spread: "spreadPct", price: "price" };
const narrow = matchMedia("(max-width: 959px)"); // one column: details are below the list
const NO_LONGER_MS = 10_000; // a flash is of what has just come
const begun = Date.now();

const unseen = new Set();
let types = [];

/** A field's name in the reader's language; a producer may have fields of its own. */
function nameOf(field) {
  if (FIELDS[field]) return t(FIELDS[field]);
  const words = field.replaceAll("_", " ");
  return field.endsWith("_price") ? t("priceOf", { name: words.slice(0, -6) }) : words;
}

/** A field's value as it is read: a moment on the reader's clock, a number without an exponent. */
function readable(value) {
  const shown = text(value);
  if (typeof value !== "string") return shown;
  if (ISO.test(value) && Date.parse(value)) return stamp(Date.parse(value));
  return NUMBER.test(value) ? plain(value) : shown;
}

/** 29 Nov 2026, 14:31:49 GMT+3 */
const stamp = (ms) => `${moment(ms, true)} ${zone(ms)}`;

/** What a token says of itself; nothing is trusted because of it. */
function claims(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return {};
  }
}

const newest = () => [...feed.signals.signals.values()].sort((a, b) => compare(b.id, a.id));
const cameAt = (signal) => Date.parse(signal.data.created_at) || signal.at;
const text = (value) =>
  value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);

/** The price that a signal's row shows: the first field that is one. */
export function mainPrice(data) {
  const name = Object.keys(data).find((key) => key === "price" || key.endsWith("_price"));
  return name ? price(data[name]) : "–";
}

/** The sentence on the connection of signals. */
export function sentence({ state, word, code, retryAt }) {
  if (word && state !== "live") {
    const said = t(word, { code: String(code) });
    return retryAt ? `${said} ${t("tryingIn", { s: seconds(retryAt) })}` : said;
  }
  return t({ off: "tokenAsk", connecting: "connecting", live: "live", lost: "connecting", closed: "off" }[state]);
}

const KINDS = { live: "live", closed: "dead", lost: "connecting", connecting: "connecting", off: "connecting" };

function newRow(columns) {
  const cells = Object.fromEntries(
    columns.map((name) => [
      name,
      make("td", {
        class:
          { spread: "n spread", price: "n price", change: "n q change", no: "q no", age: "q age", type: "q type" }[
            name
          ] ?? name,
      }),
    ]),
  );
  const [was, spread, coin, position] = [make("span", { class: "was" }), make("b"), make("b"), make("span")];
  cells.spread.append(was, spread);
  cells.coin.append(coin);
  cells.position.append(position);
  const row = make("tr", {}, ...Object.values(cells));
  row.parts = { ...cells, was, value: spread, name: coin, tag: position };
  return row;
}

function fillRow(row, signal, now) {
  const { parts } = row;
  const { data, before } = signal;
  row.dataset.id = signal.id;
  setAttribute(row, "class", unseen.has(signal.id) ? "pick new" : "pick");
  setText(parts.age, age(now - cameAt(signal)));
  setText(parts.name, text(data.coin_name));
  const side = String(data.position ?? "").toUpperCase();
  const way = { LONG: "up", SHORT: "down" }[side];
  setText(parts.tag, `${{ up: "▲ ", down: "▼ " }[way] ?? ""}${text(data.position)}`);
  setAttribute(parts.tag, "class", way ? `tag ${way}` : "tag");
  setText(parts.type, signal.type);
  const isChanged = before && "spread" in before;
  setText(parts.was, isChanged ? text(before.spread) : "");
  parts.was.hidden = !isChanged;
  setText(parts.value, text(data.spread));
  setText(parts.price, mainPrice(data));
  if (parts.no) setText(parts.no, signal.id);
  if (parts.change) {
    const since = signal.changedAt && now - signal.changedAt;
    setText(parts.change, !signal.changedAt ? "" : since < 1_000 ? t("changedNow") : t("changed", { age: age(since) }));
  }
}

/** Flash the spread of rows that have just changed. */
function flashChanged(rows, changed, now) {
  for (const row of rows) {
    const signal = changed.find(({ id }) => id === row.dataset.id);
    if (!signal?.changedAt || now - signal.changedAt > NO_LONGER_MS || !signal.before || !("spread" in signal.before))
      continue;
    if (signal.data.spread === null || signal.before.spread === null) continue;
    flash(row.parts.value, compare(signal.data.spread, signal.before.spread) || 1);
  }
}

/** The form that takes a token. */
function tokenForm(id) {
  const field = make("input", {
    class: "field",
    type: "password",
    id,
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": `${id}-wrong`,
    required: true,
  });
  const wrong = make(
    "p",
    { class: "wrong", id: `${id}-wrong`, role: "alert", hidden: true, "data-t": "tokenShape" },
    t("tokenShape"),
  );
  const form = make(
    "form",
    { class: "pad", novalidate: true },
    make("label", { class: "labelled" }, make("span", { "data-t": "tokenLabel" }, t("tokenLabel")), field),
    wrong,
    make("div", { class: "acts" }, make("button", { class: "btn primary", "data-t": "tokenGo" }, t("tokenGo"))),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const token = field.value.trim().replace(/^Bearer\s+/i, "");
    wrong.hidden = TOKEN.test(token);
    setAttribute(field, "aria-invalid", wrong.hidden ? null : "true");
    if (!wrong.hidden) return field.focus();
    field.value = "";
    tokens.set("signals", token);
    feed.setToken(token);
  });
  return form;
}

class Dock extends HTMLElement {
  connectedCallback() {
    this.body = this.querySelector("tbody");
    this.table = this.querySelector("table");
    this.note = this.querySelector(".empty");
    this.sub = this.querySelector("[data-is=sub]");
    this.body.addEventListener("click", (event) => {
      const id = event.target.closest("tr")?.dataset.id;
      if (id) showSignal(id);
    });
    this.note.lastElementChild.addEventListener("click", () => {
      look({ view: "signals" }); // before the focus: what is hidden takes none
      document.getElementById("token").focus();
    });
    feed.onSignals((_, changed = []) => this.paint(changed));
    onWords(() => this.paint());
    every(1_000, () => this.paint());
  }

  paint(changed = []) {
    const { state, expiresAt } = feed.signals;
    const now = Date.now();
    const shown = newest().slice(0, IN_DOCK);
    while (this.body.children.length > shown.length) this.body.lastChild.remove();
    while (this.body.children.length < shown.length)
      this.body.append(newRow(["age", "coin", "position", "type", "spread", "price"]));
    for (const [at, signal] of shown.entries()) fillRow(this.body.children[at], signal, now);
    flashChanged(this.body.children, changed, now);
    this.table.hidden = !shown.length;
    this.note.hidden = shown.length > 0;
    if (!shown.length) {
      setText(this.note.firstElementChild, state === "live" ? t("sigEmpty") : sentence(feed.signals));
      this.note.lastElementChild.hidden = state === "live" || state === "connecting";
    }
    setText(
      this.sub,
      state === "live" && expiresAt
        ? `${t("kTokenEnds")} ${t("in", { age: age(expiresAt - now) })}`
        : shown.length
          ? sentence(feed.signals)
          : "",
    );
  }
}

class Signals extends HTMLElement {
  connectedCallback() {
    this.place = this.querySelector(".scroll");
    this.table = this.querySelector("table");
    this.body = this.querySelector("tbody");
    this.note = this.querySelector(".empty");
    this.typeField = this.querySelector("select");
    this.coinField = this.querySelector("input");
    this.sound = this.querySelector("[role=switch]");
    this.spoken = this.querySelector("[role=status]");
    this.above = make("tr", { "aria-hidden": "true" }, make("td", { colspan: "8" }));
    this.below = make("tr", { "aria-hidden": "true" }, make("td", { colspan: "8" }));
    this.rows = [];
    this.list = [];
    this.spokenAt = 0;
    this.place.addEventListener("scroll", () => schedule(this.paint), { passive: true });
    new ResizeObserver(() => schedule(this.paint)).observe(this.place);
    this.typeField.addEventListener("change", () => this.select());
    this.coinField.addEventListener("input", () => this.select());
    this.sound.addEventListener("click", () => this.hear());
    this.body.addEventListener("click", (event) => this.pick(event.target.closest("tr")?.dataset.id));
    this.body.addEventListener("keydown", (event) => this.key(event));
    feed.onSignals((state, changed = []) => this.take(state, changed));
    onLook("view", (view) => {
      if (view === "signals") this.see();
    });
    pickers.add(() => schedule(this.paint));
    onWords(() => {
      this.nameTypes(true);
      this.select();
      this.warn();
      countNew();
    });
    every(1_000, () => {
      this.see();
      schedule(this.paint);
    });
    this.see();
  }

  take(_, changed) {
    const fresh = changed.filter((signal) => !signal.changedAt && cameAt(signal) > begun);
    for (const { id } of fresh) unseen.add(id);
    this.nameTypes();
    this.select();
    if (fresh.length) this.announce(fresh.at(-1));
    if (looking.view === "signals") this.see();
    flashChanged(this.rows, changed, Date.now());
    this.warn();
  }

  /** Say what is wrong with the token, where the page says the worst. */
  warn() {
    const { state, word, expiring, expiresAt, code } = feed.signals;
    if (state === "closed" && word && word !== "c1000") tokenProblem({ what: word, values: { code: String(code) } });
    else if (expiring)
      tokenProblem({ what: "tokenSoon", so: "tokenSoonSo", values: { age: age(expiresAt - Date.now()) } });
    else tokenProblem(null);
  }

  announce({ data }) {
    const now = Date.now();
    if (settings.get("sound")) beep();
    if (now - this.spokenAt < SPEAK_EVERY_MS) return;
    this.spokenAt = now;
    setText(
      this.spoken,
      t("newSignal", { coin: text(data.coin_name), position: text(data.position), spread: text(data.spread) }),
    );
  }

  /** Rows that have been in view for a moment are new no more, whatever else comes meanwhile. */
  see() {
    countNew();
    if (this.seeing || !unseen.size || looking.view !== "signals" || document.hidden) return;
    const seen = [...unseen];
    this.seeing = setTimeout(() => {
      this.seeing = null;
      if (looking.view !== "signals" || document.hidden) return;
      for (const id of seen) unseen.delete(id);
      countNew();
      schedule(this.paint);
    }, SEEN_AFTER_MS);
  }

  nameTypes(isForced = false) {
    const now = [...new Set([...feed.signals.signals.values()].map(({ type }) => type))].sort();
    if (!isForced && now.join() === types.join()) return;
    types = now;
    const { value } = this.typeField;
    this.typeField.replaceChildren(
      make("option", { value: "" }, t("allTypes")),
      ...types.map((type) => make("option", { value: type }, type)),
    );
    this.typeField.value = types.includes(value) ? value : "";
  }

  select() {
    const [type, coin] = [this.typeField.value, this.coinField.value.trim().toUpperCase()];
    this.list = newest().filter(
      (signal) =>
        (!type || signal.type === type) && (!coin || text(signal.data.coin_name).toUpperCase().includes(coin)),
    );
    schedule(this.paint);
  }

  hear() {
    const isOn = !settings.get("sound");
    settings.set("sound", isOn);
    if (isOn) beep();
    schedule(this.paint);
  }

  pick(id) {
    if (!id) return;
    this.focused = id;
    showSignal(id);
  }

  key(event) {
    const at = this.list.findIndex(({ id }) => id === event.target.dataset.id);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.list.length - 1 }[event.key];
    if (event.key === "Enter") return this.pick(event.target.dataset.id);
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = this.list[Math.min(this.list.length - 1, Math.max(0, to))];
    const height = this.rowHeight;
    const top = this.list.indexOf(next) * height;
    const { scrollTop, clientHeight } = this.place;
    if (top < scrollTop) this.place.scrollTop = top;
    else if (top > scrollTop + clientHeight - height * 2) this.place.scrollTop = top - clientHeight + height * 2;
    this.focused = next.id;
    this.paint();
    this.rows.find((row) => row.dataset.id === next.id)?.focus({ preventScroll: true });
  }

  get rowHeight() {
    return matchMedia("(max-width: 719px)").matches ? 44 : 32;
  }

  paint = () => {
    const now = Date.now();
    const height = this.rowHeight;
    const first = Math.max(0, Math.floor(this.place.scrollTop / height) - BEYOND);
    const wanted = this.list.slice(
      first,
      Math.ceil((this.place.scrollTop + this.place.clientHeight) / height) + BEYOND,
    );
    while (this.rows.length > wanted.length) this.rows.pop().remove();
    while (this.rows.length < wanted.length)
      this.rows.push(newRow(["no", "age", "coin", "position", "type", "spread", "price", "change"]));
    const stop = wanted.some(({ id }) => id === this.focused) ? this.focused : wanted[0]?.id;
    wanted.forEach((signal, at) => {
      const row = this.rows[at];
      fillRow(row, signal, now);
      setAttribute(row, "tabindex", signal.id === stop ? "0" : "-1");
      setAttribute(row, "aria-current", signal.id === picked ? "true" : null);
    });
    this.spaces(first * height, (this.list.length - first - wanted.length) * height);
    const isNone = !this.list.length;
    this.table.hidden = isNone;
    this.note.hidden = !isNone;
    const { state, signals } = feed.signals;
    if (isNone)
      setText(this.note, signals.size ? t("sigFiltered") : state === "live" ? t("sigEmpty") : sentence(feed.signals));
    const isOn = Boolean(settings.get("sound"));
    setAttribute(this.sound, "aria-checked", String(isOn));
    setText(this.sound.lastElementChild, t(isOn ? "soundOn" : "soundOff"));
  };

  spaces(above, below) {
    for (const [space, high] of [
      [this.above, above],
      [this.below, below],
    ]) {
      space.hidden = high <= 0;
      space.firstChild.style.height = `${Math.max(0, high)}px`;
    }
    const wanted = [this.above, ...this.rows, this.below];
    if (wanted.some((row, at) => this.body.children[at] !== row)) this.body.replaceChildren(...wanted);
  }
}

let picked = null;
const pickers = new Set();

/** Show all of one signal, which is read by it. */
function showSignal(id) {
  picked = id;
  unseen.delete(id);
  countNew();
  look({ view: "signals" });
  for (const listener of pickers) listener(true);
}

class Access extends HTMLElement {
  connectedCallback() {
    [this.own, this.story, this.one] = this.children;
    for (const part of [this.own, this.one]) part.querySelector("h2").tabIndex = -1;
    this.one
      .querySelector(".head")
      .append(
        make(
          "span",
          { class: "end" },
          make(
            "button",
            { class: "btn small", type: "button", "data-t": "close", onclick: () => this.leaveOne() },
            t("close"),
          ),
        ),
      );
    this.form = tokenForm("token");
    this.known = make("div", { class: "pad" });
    this.facts = make("dl", { class: "kv" });
    this.again = make(
      "button",
      { class: "btn primary", type: "button", "data-t": "tokenAgain", hidden: true, onclick: () => this.retry() },
      t("tokenAgain"),
    );
    this.known.append(
      this.facts,
      make(
        "div",
        { class: "acts" },
        this.again,
        make(
          "button",
          { class: "btn", type: "button", "data-t": "tokenOther", onclick: () => this.ask() },
          t("tokenOther"),
        ),
        make(
          "button",
          { class: "btn danger", type: "button", "data-t": "tokenForget", onclick: () => this.forget() },
          t("tokenForget"),
        ),
      ),
    );
    this.own.append(this.form, this.known);
    this.isAsking = false;
    this.form.addEventListener("submit", () => {
      if (!this.form.querySelector(".wrong").hidden) return;
      this.isAsking = false;
      this.paint();
      this.focusHead();
    });
    pickers.add((isAsked = false) => {
      this.paint();
      if (!isAsked || !narrow.matches) return;
      this.one.scrollIntoView({ block: "nearest" }); // it is below the list there
      this.one.querySelector("h2").focus({ preventScroll: true });
    });
    feed.onSignals(() => this.paint());
    onWords(() => this.paint());
    every(1_000, () => this.paint());
  }

  /** What had the focus is hidden now: the keyboard goes on from the panel's name. */
  focusHead() {
    this.own.querySelector("h2").focus({ preventScroll: true });
  }

  retry() {
    feed.retry();
    this.paint();
    this.focusHead();
  }

  /** Back to the row that was chosen. */
  leaveOne() {
    const row = document.querySelector(`k-signals tr[data-id="${CSS.escape(picked)}"]`);
    picked = null;
    for (const listener of pickers) listener();
    if (row) row.focus();
    else document.querySelector("k-signals .scroll").focus();
  }

  ask() {
    this.isAsking = true;
    this.paint();
    this.form.querySelector("input").focus();
  }

  forget() {
    tokens.set("signals", null);
    feed.setToken(null);
    this.isAsking = false;
    this.paint();
    this.form.querySelector("input").focus();
  }

  paint() {
    const { state, userId, expiresAt } = feed.signals;
    const token = tokens.get("signals");
    this.form.hidden = Boolean(token) && !this.isAsking && state !== "closed";
    this.known.hidden = !token;
    this.again.hidden = state !== "closed";
    const [mark, word] = this.own.querySelector(".end").children;
    setAttribute(mark, "class", `mark ${KINDS[state]}`);
    setText(word, token ? (state === "live" ? t("live") : t(state === "closed" ? "off" : "connecting")) : t("off"));
    if (token) this.paintFacts(claims(token), userId, expiresAt);
    this.paintStory();
    this.paintOne();
  }

  paintFacts({ sub, vip_until: until, exp }, userId, expiresAt) {
    const ends = expiresAt ?? (exp ? exp * 1_000 : null);
    const left = ends && ends - Date.now();
    const rows = [
      ["kUser", userId ?? text(sub)],
      ["kVip", until ? moment(until * 1_000) : null],
      ["kTokenEnds", ends ? (left > 0 ? t("in", { age: age(left) }) : ago(ends)) : "–"],
      ["kTokenKept", t("tokenKept")],
    ];
    pairs(
      this.facts,
      rows.filter(([, value]) => value !== null),
    );
  }

  paintStory() {
    const { events } = feed.signals;
    const list = this.story.querySelector("ul");
    this.story.hidden = !events.length;
    const lines = events
      .slice()
      .reverse()
      .map((event) => [clock(event.at), t(event.word, { code: String(event.code) }), event.reason]);
    const key = JSON.stringify(lines);
    if (key === this.storyShown) return;
    this.storyShown = key;
    list.replaceChildren(
      ...lines.map(([time, words, reason]) =>
        make("li", { title: reason || null }, make("time", {}, time), make("span", {}, words)),
      ),
    );
  }

  paintOne() {
    const signal = feed.signals.signals.get(picked);
    this.one.hidden = !signal;
    if (!signal) return;
    const { data, before } = signal;
    const [head, body] = this.one.children;
    setText(head.firstElementChild, `${text(data.coin_name)} · ${t("signalNo", { id: signal.id })}`);
    const own = Object.entries(data).filter(([name]) => !["id", "created_at", "updated_at"].includes(name));
    const changedAt = signal.changedAt ?? (data.updated_at === data.created_at ? null : Date.parse(data.updated_at));
    const rows = [
      [t("type"), signal.type],
      ...own.map(([name, value]) => [
        nameOf(name),
        before && name in before ? `${readable(before[name])} → ${readable(value)}` : readable(value),
      ]),
      [t("came"), `${stamp(cameAt(signal))}, ${ago(cameAt(signal))}`],
      ...(changedAt ? [[t("changedAt"), `${stamp(changedAt)}, ${ago(changedAt)}`]] : []),
    ];
    pairs(body.firstElementChild, rows, false);
  }
}

/** Fill a list of names and values, touching only what is different. */
function pairs(list, rows, areIds = true) {
  while (list.children.length > rows.length * 2) list.lastChild.remove();
  while (list.children.length < rows.length * 2) list.append(make(list.children.length % 2 ? "dd" : "dt"));
  rows.forEach(([name, value], at) => {
    setText(list.children[at * 2], areIds ? t(name) : name);
    setText(list.children[at * 2 + 1], value);
  });
}

function countNew() {
  for (const place of document.querySelectorAll("[data-is=new]")) {
    place.hidden = !unseen.size;
    setText(place.firstElementChild, String(unseen.size));
    setText(place.lastElementChild, t("newCount", { n: unseen.size }));
  }
}

let sound = null;

/** A short tone; browsers allow it after the page was touched. */
function beep() {
  sound ??= new AudioContext();
  const tone = sound.createOscillator();
  const level = sound.createGain();
  tone.frequency.value = 880;
  level.gain.setValueAtTime(0.08, sound.currentTime);
  level.gain.exponentialRampToValueAtTime(0.0001, sound.currentTime + 0.25);
  tone.connect(level).connect(sound.destination);
  tone.start();
  tone.stop(sound.currentTime + 0.25);
}

customElements.define("k-dock", Dock);
customElements.define("k-signals", Signals);
customElements.define("k-access", Access);
