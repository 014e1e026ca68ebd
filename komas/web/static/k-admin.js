// For who runs the server: who is connected, gaps, streams, today's log; publishing, VIPs, exchange connections.
import { make } from "./elements.js";
import { confirmed, toast } from "./k-health.js";
import { feed, looking, onLook } from "./page.js";
import { every, setAttribute, setText } from "./paint.js";
import { tokens } from "./store.js";
import { age, clock, count, day, dress, moment, onWords, t } from "./words.js";

const EVERY_MS = 2_000;
const MOST_LINES = 500;
const MOST_ROWS = 200;
const VIPS = 50; // on a page of the list
const SIGNALS = 20; // on a page of the list
const STORE_EVERY_MS = 10_000; // the store is asked
const OLD_AFTER_MS = 3 * EVERY_MS; // without an answer
const LEVELS = ["DEBUG", "INFO", "WARNING"];
const HEALTH = { live: "hLive", quiet: "hQuiet", stale: "hStale", recovering: "hRecovering", pending: "hPending" };
const TYPES = ["mexc_spot_futures", "mexc_dex", "funding_rate"];

const said = (tag, id, attributes = {}, ...children) => make(tag, { ...attributes, "data-t": id }, ...children);
const button = (id, kind, act) => said("button", id, { class: `btn ${kind}`, type: "button", onclick: act });
const call = (method, path, options = {}) => feed.call(method, path, { token: tokens.get("admin"), ...options });

function panel(name, id, end = [], ...children) {
  const title = said("h2", id);
  return make(
    "section",
    { class: `panel ${name}`, "data-t-label": id },
    make("div", { class: "head" }, title, make("span", { class: "end" }, ...end)),
    ...children,
  );
}

/** A record of the log as the server's own terminal has it: what happened, then its keys; numbers came as text. */
function told({ timestamp, level, logger, event, traceback, ...keys }) {
  const shown = (value) => (/^-?\d+(\.\d+)?$/.test(value) ? value : JSON.stringify(value));
  const rest = Object.entries(keys).map(([key, value]) => ` ${key}=${shown(value)}`);
  return `${event ?? ""}${rest.join("")}${traceback ? `\n${traceback}` : ""}`;
}

/** What was said for a moment's reason, so that it can be said again in another language. */
const sayings = new Map();

/** Have an element say something, in the language of the moment. */
function say(place, words) {
  sayings.set(place, words);
  setText(place, words());
}

/** A table whose rows are written anew only where their text differs. On a phone each row is a card (its roles stay). */
class Table {
  constructor(columns, label, nothing = "none") {
    this.columns = columns;
    this.body = make("tbody", { role: "rowgroup" });
    this.nothing = said("p", nothing, { class: "empty", hidden: true });
    const heads = columns.map(([id, kind]) =>
      make(
        "th",
        { class: kind === "n" ? "n" : null, scope: "col", role: "columnheader" },
        said("span", id, { class: kind === "act" ? "vh" : null }),
      ),
    );
    const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads));
    this.element = make(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "data-t-label": label },
      make("table", { class: "data tall", role: "table" }, head, this.body),
      this.nothing,
    );
  }

  /** `rows` have cells: texts or `[text, class]`; `act(row)` is what the last cell's button does, `row.act` its word. */
  show(rows, act = null) {
    while (this.body.children.length > rows.length) this.body.lastChild.remove();
    while (this.body.children.length < rows.length) this.body.append(this.newRow(act));
    rows.forEach((row, at) => {
      const line = this.body.children[at];
      line.row = row;
      row.cells.forEach((cell, index) => {
        const [text, kind] = Array.isArray(cell) ? cell : [cell, null];
        const place = line.children[index].firstChild;
        setText(place, text);
        setAttribute(place, "class", kind);
        setAttribute(line.children[index], "data-name", t(this.columns[index][0]));
      });
      if (!act) return;
      const does = line.lastChild.firstChild;
      setAttribute(does, "aria-label", row.label);
      setText(does, t(row.act));
    });
    this.nothing.hidden = rows.length > 0;
  }

  newRow(act) {
    const cells = this.columns.map(([, kind]) => make("td", { class: kind, role: "cell" }, make("span")));
    const line = make("tr", { role: "row" }, ...cells);
    if (act)
      line.lastChild.replaceChildren(
        make("button", { class: "btn small quiet", type: "button", onclick: () => act(line.row) }),
      );
    return line;
  }
}

class Admin extends HTMLElement {
  connectedCallback() {
    this.view = this.parentElement;
    this.who = new Table([["user"], ["address"], ["by"], ["since", "n"], ["behind", "n"], ["action", "act"]], "who");
    this.gaps = new Table([["time"], ["stream"], ["outcome"], ["detail"]], "gapsHour", "gapsNone");
    this.streams = new Table([["stream"], ["healthColumn"], ["subscribers", "n"], ["lastEvent", "n"]], "kStreams");
    this.lines = new Table([["number"], ["kStreams"], ["received", "n"], ["since", "n"]], "exchangeLines");
    this.vips = new Table([["user"], ["kVip"], ["action", "act"]], "vipList");
    this.vipsAfter = [""]; // of each page so far
    this.vipsAt = 0;
    this.chosen = null; // the signal that can be changed
    this.isEditing = false;
    this.signals = new Table(
      [["number"], ["age", "n"], ["coin"], ["position"], ["spreadPct", "n"], ["action", "act"]],
      "signalsNewest",
      "signalsNone",
    );
    this.signalsBefore = [null]; // of each page so far
    this.signalsAt = 0;
    this.readAt = 0;
    this.level = "INFO";
    this.isPaused = false;
    this.build();
    onWords(() => this.sayAgain());
    onLook("view", () => this.renew());
    every(EVERY_MS, () => {
      this.paintAge();
      this.renew();
    });
    this.enter(tokens.get("admin"));
  }

  /** All that stands here, in another language. */
  sayAgain() {
    dress(this);
    for (const [place, words] of sayings) setText(place, words());
    if (this.sessions) this.paint();
    this.paintVips();
    this.paintSignals();
    this.renew();
  }

  // ---- building

  build() {
    this.gate = this.buildGate();
    this.parts = [
      this.buildSum(),
      this.buildWho(),
      this.buildGaps(),
      this.buildLog(),
      make("div", { class: "aside" }, this.buildPublish(), this.buildSignals(), this.buildVip(), this.buildLines()),
    ];
    this.append(this.gate, ...this.parts);
    dress(this);
  }

  buildGate() {
    const field = make("input", {
      class: "field",
      type: "password",
      autocomplete: "off",
      spellcheck: "false",
      required: true,
      "aria-describedby": "admin-wrong",
    });
    const wrong = make("p", { class: "wrong", id: "admin-wrong", role: "alert", hidden: true });
    const form = make(
      "form",
      { class: "pad", novalidate: true },
      said("p", "adminWhere", { class: "q" }),
      make("label", { class: "labelled" }, said("span", "adminToken"), field),
      wrong,
      make("div", { class: "acts" }, said("button", "enter", { class: "btn primary" })),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const token = field.value.trim();
      if (token) this.enter(token);
    });
    this.gateField = field;
    this.gateWrong = wrong;
    return panel("gate", "admin403", [], form);
  }

  buildSum() {
    this.sums = {};
    const fact = (id) => {
      const [number, rest] = [make("span"), make("small")];
      this.sums[id] = { number, rest };
      return make("div", {}, said("dt", id), make("dd", {}, number, " ", rest));
    };
    return make(
      "dl",
      { class: "panel sum" },
      ...["kExchange", "kStreams", "readers", "gapsHour", "received", "asOf"].map(fact),
    );
  }

  buildWho() {
    this.find = make("input", {
      class: "field",
      type: "search",
      "data-t-label": "whoFind",
      "data-t-hint": "whoFind",
      autocomplete: "off",
    });
    this.find.addEventListener("input", () => this.paintWho());
    this.whoCount = make("span");
    const place = panel("who", "who", [this.whoCount, button("forget", "small", () => this.leave())], this.who.element);
    place.querySelector("h2").after(make("div", { class: "filters" }, this.find));
    return place;
  }

  buildGaps() {
    const tab = (id, table, isChosen) =>
      said("button", id, {
        type: "button",
        role: "tab",
        "aria-selected": String(isChosen),
        tabindex: isChosen ? null : "-1",
        onclick: () => this.showTable(table),
      });
    this.tabs = [
      tab("gapsHour", this.gaps, true),
      make("button", {
        type: "button",
        role: "tab",
        "aria-selected": "false",
        tabindex: "-1",
        onclick: () => this.showTable(this.streams),
      }),
    ];
    const list = make("div", { class: "seg2h", role: "tablist", "data-t-label": "gapsAndStreams" }, ...this.tabs);
    list.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = this.gaps.element.hidden ? 0 : 1;
      this.showTable([this.gaps, this.streams][other]);
      this.tabs[other].focus();
    });
    this.streams.element.hidden = true;
    this.gapsWhich = said("p", "gapsWhich", { class: "q note", hidden: true });
    return make(
      "section",
      { class: "panel gaps", "data-t-label": "gapsAndStreams" },
      make("div", { class: "head" }, list),
      this.gapsWhich,
      this.gaps.element,
      this.streams.element,
    );
  }

  showTable(table) {
    [this.gaps, this.streams].forEach((one, at) => {
      one.element.hidden = one !== table;
      this.tabs[at].setAttribute("aria-selected", String(one === table));
      this.tabs[at].tabIndex = one === table ? 0 : -1;
    });
    if (this.sessions) this.paint();
  }

  buildLog() {
    const choice = make(
      "span",
      { class: "seg", role: "group", "data-t-label": "level" },
      ...LEVELS.map((level) =>
        make(
          "button",
          {
            type: "button",
            "aria-pressed": String(level === this.level),
            onclick: (event) => {
              this.level = level;
              for (const other of choice.children)
                other.setAttribute("aria-pressed", String(other === event.currentTarget));
              this.readLog();
            },
          },
          level,
        ),
      ),
    );
    this.pause = said("button", "pause", {
      class: "btn small",
      type: "button",
      "aria-pressed": "false",
      onclick: () => this.hold(),
    });
    this.text = make("pre", { tabindex: "0", role: "log", "aria-live": "off", "data-t-label": "log" });
    return panel("log", "log", [choice, this.pause], this.text);
  }

  hold() {
    this.isPaused = !this.isPaused;
    this.pause.setAttribute("aria-pressed", String(this.isPaused));
    this.pause.dataset.t = this.isPaused ? "resume" : "pause";
    setText(this.pause, t(this.pause.dataset.t));
  }

  buildPublish() {
    const types = make("datalist", { id: "signal-types" }, ...TYPES.map((type) => make("option", { value: type })));
    const position = make(
      "select",
      { class: "field", name: "position" },
      make("option", {}, "LONG"),
      make("option", {}, "SHORT"),
    );
    this.fields = {
      signal_type: make("input", {
        class: "field",
        name: "signal_type",
        list: "signal-types",
        value: TYPES[0],
        autocomplete: "off",
        required: true,
      }),
      coin_name: make("input", { class: "field", name: "coin_name", autocomplete: "off", spellcheck: "false" }),
      position,
      spread: make("input", { class: "field", name: "spread", inputmode: "decimal", autocomplete: "off" }),
      data: make(
        "textarea",
        { class: "field", name: "data", rows: "3", spellcheck: "false", autocomplete: "off" },
        "{}",
      ),
    };
    this.wrongs = {};
    const named = (id, key) => {
      this.wrongs[key] = make("span", { class: "wrong", role: "alert", hidden: true });
      return make("label", { class: "labelled" }, said("span", id), this.fields[key], this.wrongs[key]);
    };
    this.publishWrong = make("p", { class: "wrong", role: "alert", hidden: true });
    this.publishButton = said("button", "publishGo", { class: "btn primary" });
    this.updateButton = make("button", {
      class: "btn",
      type: "button",
      hidden: true,
      onclick: () => this.publish(this.chosen.id),
    });
    this.newButton = button("signalNew", "", () => this.startAnew());
    this.newButton.hidden = true;
    this.others = make("p", { class: "q", hidden: true });
    const form = make(
      "form",
      { class: "pad", novalidate: true },
      types,
      make("div", { class: "row2" }, named("type", "signal_type"), named("coin", "coin_name")),
      make("div", { class: "row2" }, named("position", "position"), named("spreadPct", "spread")),
      named("moreFields", "data"),
      this.others,
      this.publishWrong,
      make("div", { class: "acts" }, this.publishButton, this.updateButton, this.newButton),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.publish(this.isEditing ? this.chosen.id : null);
    });
    const place = panel("publish", "publish", [], form);
    this.publishTitle = place.querySelector("h2");
    this.publishTitle.tabIndex = -1;
    return place;
  }

  buildSignals() {
    this.signalsWrong = make("p", { class: "wrong pad", role: "alert", hidden: true });
    this.signalsBack = button("signalsNewer", "small", () => this.turnSignals(-1));
    this.signalsOn = button("signalsOlder", "small", () => this.turnSignals(1));
    this.signalsPages = make("div", { class: "acts pad", hidden: true }, this.signalsBack, this.signalsOn);
    return panel("choose", "signalsNewest", [], this.signals.element, this.signalsWrong, this.signalsPages);
  }

  buildVip() {
    this.vipUser = make("input", { class: "field", name: "user", autocomplete: "off", required: true });
    this.vipDays = make("input", { class: "field", name: "days", inputmode: "numeric", value: "30" });
    this.vipSays = make("span", { role: "status" });
    this.vipWrong = make("p", { class: "wrong", role: "alert", hidden: true });
    const form = make(
      "form",
      { class: "pad", novalidate: true },
      make(
        "div",
        { class: "row2" },
        make("label", { class: "labelled" }, said("span", "user"), this.vipUser),
        make("label", { class: "labelled" }, said("span", "days"), this.vipDays),
      ),
      this.vipWrong,
      make(
        "div",
        { class: "acts" },
        said("button", "grant", { class: "btn" }),
        button("show", "", () => this.vip("GET")),
        button("revoke", "danger", () => this.revoke()),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.vip("POST");
    });
    this.vipsWrong = make("p", { class: "wrong pad", role: "alert", hidden: true });
    this.vipsBack = button("vipsBack", "small", () => this.turnVips(-1));
    this.vipsOn = button("vipsOn", "small", () => this.turnVips(1));
    this.vipsPages = make("div", { class: "acts pad", hidden: true }, this.vipsBack, this.vipsOn);
    return panel("vip", "vip", [this.vipSays], form, this.vips.element, this.vipsWrong, this.vipsPages);
  }

  buildLines() {
    return panel("lines", "exchangeLines", [button("replaceAll", "small", () => this.replace())], this.lines.element);
  }

  // ---- the token

  async enter(token) {
    this.gateWrong.hidden = true;
    if (token) {
      try {
        await feed.call("GET", "api/admin/sessions", { token });
        tokens.set("admin", token);
        this.gateField.value = "";
      } catch (error) {
        if ([401, 403].includes(error.status)) tokens.set("admin", null);
        say(this.gateWrong, () => ([401, 403].includes(error.status) ? t("adminWrong") : error.message));
        this.gateWrong.hidden = false;
      }
    }
    const isOpen = Boolean(tokens.get("admin")) && this.gateWrong.hidden;
    const hadFocus = this.contains(document.activeElement);
    this.view.classList.toggle("locked", !isOpen);
    this.gate.hidden = isOpen;
    for (const part of this.parts) part.hidden = !isOpen;
    if (isOpen) this.renew();
    if (!isOpen && (token || hadFocus)) this.gateField.focus();
    else if (isOpen && hadFocus) this.find.focus(); // what had it is hidden
  }

  leave() {
    tokens.set("admin", null);
    this.enter(null);
  }

  // ---- reading

  async renew() {
    if (looking.view !== "admin" || !tokens.get("admin") || this.isReading || !this.gate.hidden) return;
    this.isReading = true;
    try {
      const [sessions, readers, gaps, streams, status] = await Promise.all([
        call("GET", "api/admin/sessions"),
        call("GET", "api/admin/readers"),
        call("GET", "api/admin/gaps"),
        call("GET", "api/ws/streams"),
        call("GET", "api/ws/status"),
      ]);
      Object.assign(this, { sessions, readers, gapRows: gaps.gaps, streamRows: streams.streams, status });
      this.readAt = Date.now();
      this.paint();
      this.paintAge();
      await this.readVips();
      await this.readSignals();
      if (!this.isPaused) await this.readLog();
    } catch (error) {
      if ([401, 403].includes(error.status)) this.leave();
    } finally {
      this.isReading = false;
    }
  }

  /** The page of the list that is looked at; a store that is away is said there, and hides nothing else. */
  async readVips() {
    if (Date.now() - this.vipsAt > STORE_EVERY_MS) {
      const after = this.vipsAfter.at(-1);
      const more = after ? `&after=${encodeURIComponent(after)}` : "";
      const answer = await call("GET", `api/admin/vips?limit=${VIPS}${more}`).catch((error) => error);
      if ([401, 403].includes(answer.status)) throw answer;
      if (after !== this.vipsAfter.at(-1)) return; // the next page was asked for meanwhile
      this.vipsAt = Date.now();
      setText(this.vipsWrong, answer instanceof Error ? answer.message : "");
      this.vipsWrong.hidden = !(answer instanceof Error);
      if (!(answer instanceof Error)) this.vipPage = answer;
    }
    this.paintVips();
  }

  turnVips(step) {
    if (step > 0) this.vipsAfter.push(this.vipPage.next_after);
    else this.vipsAfter.pop();
    this.lookAtVips();
  }

  lookAtVips() {
    this.vipsAt = 0;
    return this.readVips().catch(() => this.leave());
  }

  /** The same for signals. */
  async readSignals() {
    if (Date.now() - this.signalsAt > STORE_EVERY_MS) {
      const before = this.signalsBefore.at(-1);
      const path = `api/admin/signals?limit=${SIGNALS}${before ? `&before_id=${before}` : ""}`;
      const answer = await call("GET", path).catch((error) => error);
      if ([401, 403].includes(answer.status)) throw answer;
      if (before !== this.signalsBefore.at(-1)) return; // the next page was asked for meanwhile
      this.signalsAt = Date.now();
      setText(this.signalsWrong, answer instanceof Error ? answer.message : "");
      this.signalsWrong.hidden = !(answer instanceof Error);
      if (!(answer instanceof Error)) this.signalPage = answer;
    }
    this.paintSignals();
  }

  turnSignals(step) {
    if (step > 0) this.signalsBefore.push(this.signalPage.next_before_id);
    else this.signalsBefore.pop();
    this.lookAtSignals();
  }

  lookAtSignals() {
    this.signalsAt = 0;
    return this.readSignals().catch(() => this.leave());
  }

  async readLog() {
    const { records } = await call("GET", `api/logs/today?level=${this.level}&limit=${MOST_LINES}`);
    const isAtEnd = this.text.scrollTop + this.text.clientHeight > this.text.scrollHeight - 24;
    const lines = records.map((record) => {
      const level = String(record.level ?? "").toUpperCase();
      const kind = level === "WARNING" ? "w" : level === "ERROR" || level === "CRITICAL" ? "e" : null;
      return [`${clock(Date.parse(record.timestamp))} ${level.padEnd(8)}${told(record)}`, kind];
    });
    const key = JSON.stringify(lines);
    if (key === this.logShown) return;
    this.logShown = key;
    this.text.replaceChildren(...lines.map(([text, kind]) => make("span", { class: kind }, `${text}\n`)));
    if (isAtEnd) this.text.scrollTop = this.text.scrollHeight;
  }

  // ---- painting

  paint() {
    const { sessions, readers, gapRows, streamRows, status } = this;
    const live = streamRows.filter(({ health }) => health === "live").length;
    const own = this.ownGaps(gapRows);
    const filled = gapRows.filter((gap) => gap.filled).length;
    const newest = Date.parse(status.last_message_at);
    this.sum(
      "kExchange",
      status.connections.length,
      newest
        ? t("connectionsNewest", { n: status.connections.length, age: age(Date.now() - newest) })
        : t(status.state),
    );
    this.sum("kStreams", live, t("liveOthers", { n: streamRows.length - live }));
    this.sum(
      "readers",
      Number(readers.count),
      t("readersMore", { n: Number(readers.count), vips: Number(sessions.count) }),
    );
    this.sum("gapsHour", gapRows.length - filled, t("gapsFilled", { n: filled }));
    this.sum("received", Number(status.messages_received), t("frames", { n: Number(status.messages_received) }));
    this.paintWho();
    this.gapsWhich.hidden = !own.length || this.gaps.element.hidden;
    const gaps = [
      ...gapRows.map((gap) => ({
        ...gap,
        at: Date.parse(gap.at) || Number(gap.at),
        told: gap.filled ? t("filled") : [t("declared"), "tag warn"],
      })),
      ...own.map((gap) => ({ ...gap, told: [t("gapOwn"), "tag"] })),
    ];
    this.gaps.show(
      gaps
        .sort((a, b) => b.at - a.at)
        .map(({ at, stream, told, filled, reason }) => ({
          cells: [[clock(at), "q"], stream, told, [reason ?? (filled ? "" : t("gapNoReason")), "q"]],
        })),
    );
    setText(this.tabs[1], t("streamsTab", { n: streamRows.length }));
    this.streams.show(
      streamRows.slice(0, MOST_ROWS).map((row) => ({
        cells: [
          row.stream,
          row.health === "live" || row.health === "quiet" ? t(HEALTH[row.health]) : [t(HEALTH[row.health]), "tag warn"],
          row.subscribers,
          [row.last_event_at ? age(Date.now() - Date.parse(row.last_event_at)) : t("never"), "q"],
        ],
      })),
    );
    this.lines.show(
      status.connections.map((line, at) => ({
        cells: [
          String(at + 1),
          line.streams,
          count(Number(line.messages_received)),
          age(Number(line.uptime_seconds) * 1_000),
        ],
      })),
    );
  }

  /** Gaps that this page alone was told of: it was away, or the server was started anew. */
  ownGaps(rows) {
    const known = new Set(rows.map((gap) => `${gap.stream} ${gap.from} ${gap.to}`));
    return (feed.state.ownGaps ?? []).filter(
      (gap) => Date.now() - gap.at < 3_600_000 && !known.has(`${gap.stream} ${gap.from} ${gap.to}`),
    );
  }

  /** When what is shown was read; it is grey where the server has not answered since. */
  paintAge() {
    if (!this.readAt) return;
    const old = Date.now() - this.readAt;
    this.view.classList.toggle("old", old > OLD_AFTER_MS);
    setText(this.sums.asOf.number, clock(this.readAt));
    setText(this.sums.asOf.rest, old > OLD_AFTER_MS ? t("noAnswerFor", { age: age(old) }) : "");
  }

  sum(id, number, rest) {
    setText(this.sums[id].number, count(number));
    setText(this.sums[id].rest, rest);
  }

  paintWho() {
    if (!this.sessions) return;
    const now = Date.now();
    const sessions = this.sessions.sessions.map((one) => ({
      id: one.id,
      behind: Number(one.behind),
      who: t("userNo", { id: one.user_id }),
      address: one.address,
      by: t("bySignals"),
      since: Date.parse(one.since) || Number(one.since),
    }));
    const readers = this.readers.readers.map((one) => ({
      id: null,
      behind: 0,
      who: t("reader"),
      address: one.address,
      by: t("byMarket", { n: Number(one.subscriptions ?? one.streams) }),
      since: null,
    }));
    const query = this.find.value.trim().toLowerCase();
    const all = [...sessions, ...readers].sort((a, b) => b.behind - a.behind);
    const shown = all
      .filter(({ who, address }) => !query || `${who} ${address}`.toLowerCase().includes(query))
      .slice(0, MOST_ROWS);
    setText(this.whoCount, t("whoShown", { n: shown.length, all: all.length }));
    this.who.show(
      shown.map((one) => ({
        id: one.id,
        name: `${one.who}, ${one.address}`,
        act: "disconnect",
        label: t("disconnectWho", { who: `${one.who}, ${one.address}` }),
        cells: [
          one.who,
          one.address,
          [one.by, "q"],
          one.since ? age(now - one.since) : "–",
          one.behind > 0 ? [t("waiting", { n: one.behind }), "tag warn"] : "0",
        ],
      })),
      (row) => this.disconnect(row),
    );
    for (const line of this.who.body.children) line.lastChild.firstChild.hidden = line.row.id === null;
  }

  paintVips() {
    if (!this.vipPage) return;
    this.vips.show(
      this.vipPage.vips.map((vip) => {
        const until = Number(vip.vip_until) * 1_000;
        return {
          user: vip.user_id,
          isActive: vip.active,
          act: vip.active ? "vipRevoke" : "grant",
          label: t(vip.active ? "vipRevokeWho" : "vipGrantWho", { user: vip.user_id }),
          cells: [
            [vip.user_id, "id"],
            vip.active ? day(until) : [vip.revoked ? t("vipRevoked") : t("vipOver", { time: day(until) }), "tag warn"],
          ],
        };
      }),
      (row) => this.changeVip(row),
    );
    this.vipsBack.disabled = this.vipsAfter.length === 1;
    this.vipsOn.disabled = this.vipPage.vips.length < VIPS;
    this.vipsPages.hidden = this.vipsBack.disabled && this.vipsOn.disabled;
  }

  paintSignals() {
    if (!this.signalPage) return;
    const { signals } = this.signalPage;
    const text = (value) => (value === null || value === undefined ? "–" : String(value));
    this.signals.show(
      signals.map((signal) => ({
        signal,
        act: "change",
        label: t("changeSignal", { id: signal.id }),
        cells: [
          [signal.id, "q"],
          [age(Date.now() - Date.parse(signal.created_at)), "q"],
          text(signal.data.coin_name),
          text(signal.data.position),
          text(signal.data.spread),
        ],
      })),
      ({ signal }) => this.choose(signal),
    );
    this.signalsBack.disabled = this.signalsBefore.length === 1;
    this.signalsOn.disabled = signals.length < SIGNALS;
    this.signalsPages.hidden = this.signalsBack.disabled && this.signalsOn.disabled;
  }

  /** What the form's buttons do now, and what it is called. */
  paintForm() {
    const { chosen, isEditing } = this;
    say(this.publishTitle, () => (isEditing ? t("changeSignal", { id: chosen.id }) : t("publish")));
    delete this.publishTitle.dataset.t; // it says more than one word
    this.publishButton.hidden = isEditing;
    this.newButton.hidden = !isEditing;
    this.updateButton.hidden = !chosen;
    setAttribute(this.updateButton, "class", isEditing ? "btn primary" : "btn");
    if (chosen) say(this.updateButton, () => t("updateGo", { id: chosen.id }));
    this.fields.signal_type.disabled = isEditing;
    const own = ["id", "created_at", "updated_at", "coin_name", "position", "spread"];
    const others = Object.entries(chosen?.data ?? {}).filter(([name]) => !own.includes(name));
    this.others.hidden = !isEditing || !others.length;
    const shown = ([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`;
    say(this.others, () => t("fieldsNow", { fields: others.map(shown).join(", ") }));
  }

  // ---- acts

  /** Have the form change a signal: only what is written anew is sent. */
  choose({ id, signal_type: type, data }) {
    const { fields } = this;
    this.chosen = { id: String(id), data };
    this.isEditing = true;
    this.refuse([]);
    fields.signal_type.value = type;
    fields.coin_name.value = data.coin_name ?? "";
    const position = String(data.position ?? "");
    if (![...fields.position.options].some(({ value }) => value === position))
      fields.position.append(make("option", { value: position }, position || "–"));
    fields.position.value = position;
    fields.spread.value = data.spread ?? "";
    fields.data.value = "{}";
    this.paintForm();
    this.publishTitle.scrollIntoView({ block: "nearest" });
    this.publishTitle.focus();
  }

  startAnew() {
    this.chosen = null;
    this.isEditing = false;
    this.refuse([]);
    for (const name of ["coin_name", "spread"]) this.fields[name].value = "";
    this.fields.position.value = "LONG";
    this.fields.data.value = "{}";
    this.paintForm();
    this.fields.coin_name.focus();
  }

  /** As if the user had been written into the form. */
  changeVip({ user, isActive }) {
    this.vipUser.value = user;
    return isActive ? this.revoke() : this.vip("POST");
  }

  async disconnect({ id, name }) {
    if (!(await confirmed(t("disconnectAsk", { who: name }), t("disconnectSo"), t("disconnect")))) return;
    try {
      await call("DELETE", `api/admin/sessions/${encodeURIComponent(id)}`);
      toast(t("disconnectDone", { who: name }));
    } catch (error) {
      toast(t("failed", { reason: error.message }));
    }
    this.renew();
  }

  /** The signal's fields as JSON text: numbers keep the digits that were written. */
  body(isNew) {
    const { fields } = this;
    const more = fields.data.value.trim() || "{}";
    let read;
    try {
      read = JSON.parse(more);
      if (typeof read !== "object" || read === null || Array.isArray(read)) throw new SyntaxError();
    } catch {
      this.refuse([{ field: "data", message: () => t("fieldsWrong") }]);
      return null;
    }
    if (isNew && !fields.coin_name.value.trim() && !read.coin_name) {
      this.refuse([{ field: "coin_name", message: () => t("coinMissing") }]);
      return null;
    }
    const had = (isNew ? null : this.chosen.data) ?? {};
    const own = [];
    const put = (name, value, json) => {
      if (value && value !== String(had[name] ?? "")) own.push(`"${name}": ${json}`);
    };
    const [coin, position] = [fields.coin_name.value.trim(), fields.position.value];
    const spread = fields.spread.value.trim().replace(",", ".");
    put("coin_name", coin, JSON.stringify(coin));
    put("position", position, JSON.stringify(position));
    put("spread", spread, /^-?\d+(\.\d+)?$/.test(spread) ? spread : JSON.stringify(spread));
    const rest = more.slice(1, -1).trim();
    if (rest) own.push(rest);
    if (own.length) return `{${own.join(", ")}}`;
    say(this.publishWrong, () => t("nothingChanged"));
    this.publishWrong.hidden = false;
    return null;
  }

  async publish(id) {
    this.refuse([]);
    const data = this.body(id === null);
    if (data === null) return;
    const type = JSON.stringify(this.fields.signal_type.value.trim());
    const body = id ? `{"data": ${data}}` : `{"signal_type": ${type}, "data": ${data}}`;
    if (body !== this.sent?.body || id !== this.sent?.id) this.sent = { body, id, key: newKey() };
    try {
      const answer = await call(id ? "PATCH" : "POST", id ? `api/signals/${id}` : "api/signals", {
        body,
        key: this.sent.key,
      });
      this.sent = null;
      this.chosen = { id: String(id ?? answer.id ?? answer.data?.id), data: answer.data ?? {} };
      if (this.isEditing) this.fields.data.value = "{}";
      this.paintForm();
      toast(t(id ? "updated" : "published", { id: this.chosen.id }));
      await this.lookAtSignals();
    } catch (error) {
      if (error.errors?.length) this.refuse(error.errors);
      else {
        const word = error.status === 503 || error.status === 0 ? "storeAway" : id ? "notUpdated" : "notPublished";
        say(this.publishWrong, () => t(word, { reason: error.message }));
        this.publishWrong.hidden = false;
      }
    }
  }

  /** Put each error under its field. */
  refuse(errors) {
    this.publishWrong.hidden = true;
    for (const [key, place] of Object.entries(this.wrongs)) {
      const error = errors.find(({ field }) => field === key || field === `data.${key}`);
      place.hidden = !error;
      say(place, () => (typeof error?.message === "function" ? error.message() : (error?.message ?? "")));
      setAttribute(this.fields[key], "aria-invalid", error ? "true" : null);
    }
    const rest = errors.filter(
      ({ field }) => !(field in this.wrongs) && !(field.replace(/^data\./, "") in this.wrongs),
    );
    this.publishWrong.hidden = !rest.length;
    say(this.publishWrong, () => rest.map(({ field, message }) => `${field}: ${message}`).join("; "));
    Object.keys(this.wrongs)
      .map((key) => this.fields[key])
      .find((field) => field.getAttribute("aria-invalid"))
      ?.focus();
  }

  async vip(method) {
    const user = this.vipUser.value.trim();
    this.vipWrong.hidden = true;
    if (!user) return this.vipUser.focus();
    try {
      const body = method === "POST" ? `{"days": ${JSON.stringify(Number(this.vipDays.value))}}` : undefined;
      const answer = await call(method, `api/vip/${encodeURIComponent(user)}`, { body });
      const until = Number(answer.vip_until) * 1_000 || Date.parse(answer.vip_until);
      say(this.vipSays, () =>
        method === "DELETE"
          ? t("revoked", { user })
          : answer.active === false || !until
            ? t("vipNone", { user })
            : t("vipUntil", { user, time: day(until) }),
      );
      if (method === "POST" && until) toast(t("granted", { user, time: moment(until) }));
      if (method !== "GET") await this.lookAtVips();
    } catch (error) {
      setText(this.vipWrong, error.errors?.map(({ message }) => message).join("; ") || error.message);
      this.vipWrong.hidden = false;
    }
  }

  async revoke() {
    const user = this.vipUser.value.trim();
    if (!user) return this.vipUser.focus();
    const n = this.sessions?.sessions.filter((one) => String(one.user_id) === user).length ?? 0;
    if (await confirmed(t("revokeAsk", { user, n }), null, t("revoke"))) await this.vip("DELETE");
  }

  async replace() {
    if (!(await confirmed(t("replaceAsk"), t("replaceSo"), t("replaceAll")))) return;
    try {
      await call("POST", "api/ws/rotate");
      toast(t("replaced"));
    } catch (error) {
      toast(t("failed", { reason: error.message }));
    }
  }
}

/** An Idempotency-Key; randomUUID is there on https and localhost only. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

customElements.define("k-admin", Admin);
