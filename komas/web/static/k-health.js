// How the connection is: a sentence in the top bar with its details, one banner for the worst problem, toasts.
import { make } from "./elements.js";
import { feed, look, symbolOf } from "./page.js";
import { every, setAttribute, setText } from "./paint.js";
import { age, count, language, moment, onWords, seconds, t } from "./words.js";

const PATIENCE_MS = 2_000; // a shorter break is none that anybody must read of
const TOAST_MS = 6_000;
const LATE_S = 3; // a server that has heard nothing for so long lets nobody in
const BLOCKED = /\b451\b|restricted location|region/i;
const PAUSED = /\b(418|429)\b|too many requests|banned/i;

const HEALTH = {
  live: "hLive",
  quiet: "hQuiet",
  stale: "hStale",
  recovering: "hRecovering",
  pending: "hPending",
};
const DOUBTFUL = new Set(["stale", "recovering"]);
const OLD = new Set(["noNet", "offline", "again", "exchange", "region", "limit"]);

const exchangeDown = (state) =>
  Object.values(state.exchange).find((line) => line.state !== "connected" && line.state !== "connecting");

/** Does data come from the exchange to this page now? */
export const isLive = () => feed.state.state === "live" && navigator.onLine && !exchangeDown(feed.state);

/** Is what is shown of a stream what the exchange has now? */
export const isFresh = (stream) => isLive() && !DOUBTFUL.has(feed.state.unhealthy[stream]?.health);

/** How old the newest data is, in ms. */
const dataAge = () => (feed.state.lastEventAt ? Date.now() - feed.state.lastEventAt : null);

const problems = { token: null };

/** Name or take back a problem of the token: `{ word, so, values }` or null. */
export function tokenProblem(problem) {
  problems.token = problem;
}

/** The worst problem now: `{ id, what, so, values, mild, retryAt }`, or null. */
export function worst(state, now, isOnline) {
  if (!isOnline) return { id: "noNet", what: "noNet", so: "noNetSo" };
  if (state.state === "lost" && !state.answered) {
    const old = state.lastEventAt ? now - state.lastEventAt : now - state.since;
    return { id: "offline", what: "offline", so: "offlineSo", values: { age: age(old) }, retryAt: state.retryAt };
  }
  if (state.state === "lost") return { id: "again", what: "lost", values: {}, retryAt: state.retryAt };
  const down = exchangeDown(state);
  if (down) return exchangeProblem(down, now);
  if (state.state === "busy")
    return { id: "busy", what: "busy", values: { reason: state.reason ?? "" }, mild: true, retryAt: state.retryAt };
  return problems.token && { id: "token", mild: true, ...problems.token };
}

function exchangeProblem(line, now) {
  const reason = line.reason ?? t(line.state);
  if (BLOCKED.test(reason)) return { id: "region", what: "region", so: "regionSo" };
  if (PAUSED.test(reason) && line.retry_in_s) {
    const time = moment(now + Number(line.retry_in_s) * 1_000, true);
    return { id: "limit", what: "limit", so: "limitSo", values: { time } };
  }
  return { id: "exchange", what: "exchange", so: "exchangeSo", values: { reason } };
}

class Health extends HTMLElement {
  connectedCallback() {
    this.button = this.querySelector("button");
    [this.mark, this.word, this.age, this.more] = this.button.children;
    this.spoken = this.querySelector("[role=status]");
    this.pop = document.getElementById("health-pop");
    this.banner = document.getElementById("banner");
    this.shownProblem = null;
    this.problemSince = 0;
    this.version = null;
    this.cluster = null;
    this.button.addEventListener("click", () => this.open(this.pop.hidden));
    document.addEventListener("pointerdown", (event) => {
      if (!this.pop.hidden && !this.pop.contains(event.target) && !this.contains(event.target)) this.open(false);
    });
    this.banner.querySelector("button").addEventListener("click", () => feed.retry());
    for (const name of ["online", "offline"]) addEventListener(name, () => this.render());
    feed.onState((state) => {
      this.render();
      if (state.version && this.version && state.version !== this.version) {
        toast(t("newVersion"), { label: t("reload"), act: () => location.reload() });
      }
      this.version = state.version ?? this.version;
    });
    onWords(() => this.render());
    every(1_000, () => this.render());
  }

  open(isOpen) {
    this.pop.hidden = !isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
    this.render();
    if (isOpen) this.readNodes();
  }

  /** Which servers share the feed; of one that is alone there is nothing to say. */
  async readNodes() {
    const status = await feed.get("api/ws/status").catch(() => null);
    this.cluster = status?.cluster ?? null;
    this.render();
  }

  render() {
    const { state } = feed;
    const problem = worst(state, Date.now(), navigator.onLine);
    this.sentence(state);
    this.alert(problem);
    if (!this.pop.hidden) this.details(state);
    document.getElementById("sim").hidden = !state.simulated;
  }

  sentence(state) {
    const isOnline = navigator.onLine;
    const word = !isOnline || state.state === "lost" ? "lost" : state.state === "busy" ? "connecting" : state.state;
    const kind = { live: "live", lost: "dead" }[word] ?? "connecting";
    const unwell = word === "live" && (state.health.stale > 0 || exchangeDown(state));
    setAttribute(this.mark, "class", `mark ${unwell ? "stale" : kind}`);
    setText(this.word, t(word));
    const old = dataAge();
    setText(this.age, old === null ? "" : t("liveAge", { age: age(old) }));
    const rest = [
      t("streams", { n: state.streams }),
      t("reconnects", { n: state.reconnects }),
      t("gaps", { n: state.gaps }),
    ];
    setText(this.more, `· ${rest.join(" · ")}`);
    setText(this.spoken, t(word)); // a reader hears of another state, not of each second
  }

  alert(problem) {
    const now = Date.now();
    if (problem?.id !== this.shownProblem) this.problemSince = now;
    this.shownProblem = problem?.id ?? null;
    const isShown = problem && now - this.problemSince >= PATIENCE_MS;
    const isOld = problem && OLD.has(problem.id);
    document.documentElement.dataset.state =
      isShown && isOld ? "offline" : feed.state.state === "live" ? "live" : "connecting";
    if (problem && !isShown) setTimeout(() => this.render(), PATIENCE_MS - (now - this.problemSince) + 10);
    if (!isShown) {
      if (this.banner.contains(document.activeElement)) document.getElementById("main").focus(); // its button goes
      this.banner.hidden = true;
      return;
    }
    const [mark, text, action] = this.banner.children;
    this.banner.classList.toggle("mild", Boolean(problem.mild));
    setAttribute(mark, "class", `mark ${problem.mild ? "stale" : "dead"}`);
    setText(text.children[0], t(problem.what, problem.values));
    setText(text.children[1], problem.so ? t(problem.so, problem.values) : "");
    setText(action.children[0], problem.retryAt ? t("tryingIn", { s: seconds(problem.retryAt) }) : "");
    action.hidden = !problem.retryAt;
    this.banner.hidden = false;
  }

  details(state) {
    const exchange = Object.entries(state.exchange).map(([market, line]) =>
      `${market} ${t(line.state)} ${line.reason ?? ""}`.trim(),
    );
    const isKnown = navigator.onLine && state.state !== "lost";
    const known = (text) => (isKnown ? text : t("lastKnown", { text }));
    const rows = [
      ["kServer", t("connectedFor", { state: this.word.textContent, age: age(Date.now() - state.since) })],
      ["kExchange", known(exchange.join("; ") || t("connected"))],
      ["kNewest", dataAge() === null ? t("never") : t("ago", { age: age(dataAge()) })],
      ["kStreams", known(t("healthOf", state.health))],
      ["kReconnects", count(state.reconnects)],
      ["kGaps", count(state.gaps)],
      ["kLeftOut", count(state.lagged)],
      ["kShared", t("otherTabs", { n: Math.max(0, state.tabs - 1) })],
      ["kVersion", state.version ?? "–"],
      ...(this.cluster ? [["kNodes", known(this.cluster.nodes.map((node) => this.node(node)).join("; "))]] : []),
    ];
    const unhealthy = Object.entries(state.unhealthy)
      .slice(0, 8)
      .map(([name, { health, reason }]) => [name, `${t(HEALTH[health])}${reason ? `: ${reason}` : ""}`]);
    const ofServer = new Set([t("kExchange"), t("kStreams"), t("kNodes"), ...unhealthy.map(([name]) => name)]);
    const list = this.pop.querySelector("dl");
    list.replaceChildren(
      ...[...rows.map(([id, text]) => [t(id), text]), ...unhealthy].flatMap(([name, text]) => [
        make("dt", {}, name),
        make("dd", { class: isKnown || !ofServer.has(name) ? null : "old" }, text),
      ]),
    );
    this.listGaps(state.ownGaps);
  }

  node({ node, leader, lag_seconds: lag }) {
    const said = [
      node === this.cluster.node && t("thisNode"),
      leader && t("leads"),
      Number(lag) >= LATE_S && t("nodeBehind", { age: age(Number(lag) * 1_000) }),
    ].filter(Boolean);
    return said.length ? `${node} (${said.join(", ")})` : node;
  }

  /** Written anew only when it is another list: one of its buttons may have the focus. */
  listGaps(gaps) {
    const isAs = `${language} ${JSON.stringify(gaps)}`; // each state brings a copy
    if (isAs === this.gapsShown) return;
    this.gapsShown = isAs;
    const place = this.pop.querySelector("[data-is=gaps]");
    place.hidden = !gaps.length;
    const row = (gap) =>
      make(
        "li",
        {},
        make("span", {}, make("b", {}, gapName(gap)), ` ${gapText(gap)}`),
        make("button", { type: "button", class: "btn small", onclick: () => goToGap(gap) }, t("show")),
      );
    place.querySelector("ul").replaceChildren(...gaps.toReversed().map(row));
  }
}

/** Open the list of the gaps that were declared. */
export function showGaps() {
  document.querySelector("k-health").open(true);
  document.querySelector("#health-pop [data-is=gaps] button")?.focus();
}

const intervalOf = ({ stream }) => /@kline_(\w+)$/.exec(stream)?.[1];

function gapName(gap) {
  const interval = intervalOf(gap);
  return `${symbolOf(gap.stream)}, ${interval ? t("gapCandles", { interval }) : t("gapTrades")}`;
}

function gapText(gap) {
  const { from, to, at } = gap;
  const reason = gap.reason || t("gapBare");
  if (intervalOf(gap) && from !== null) {
    const range = to === null || to === from ? moment(from) : `${moment(from)} – ${moment(to)}`;
    return `${range}. ${t("gapOpen", { reason })}`;
  }
  if (intervalOf(gap) || from === null || to === null) return `${moment(at, true)}. ${t("gapOpen", { reason })}`;
  return `${moment(at, true)}. ${t("gap", { n: t("trades", { n: to - from + 1 }), reason })}`;
}

/** Show a gap where it is: in its chart, or among the trades. */
function goToGap(gap) {
  const interval = intervalOf(gap);
  document.querySelector("k-health").open(false);
  look({ view: "market", symbol: symbolOf(gap.stream), ...(interval && { interval }) });
  const place = document.querySelector(interval ? "k-chart" : "k-tape");
  if (!interval) document.getElementById("tab-tape").click();
  place.querySelector(interval ? ".plot" : ".scroll").focus();
  place.findGap(gap);
}

let leaving = 0;

/** Say something for six seconds, longer while it is pointed at or focused; `action` is `{ label, act }`. */
export function toast(text, action = null) {
  const place = document.getElementById("toast");
  const before = place.contains(document.activeElement) ? null : document.activeElement;
  const hide = () => {
    clearTimeout(leaving);
    if (place.matches(":hover, :focus-within")) leaving = setTimeout(hide, 1_000);
    else place.hidden = true;
  };
  const button =
    action &&
    make(
      "button",
      {
        class: "btn small",
        type: "button",
        onclick: () => {
          before?.focus({ preventScroll: true }); // the button goes
          place.hidden = true;
          action.act();
        },
      },
      action.label,
    );
  place.hidden = false;
  place.replaceChildren(make("span", {}, text), ...(button ? [button] : []));
  clearTimeout(leaving);
  leaving = setTimeout(hide, TOAST_MS);
}

/** Ask before something that cannot be undone; true is yes. */
export function confirmed(question, so, yes) {
  const { promise, resolve } = Promise.withResolvers();
  const dialog = make("dialog", { "aria-label": question });
  const answer = (is) => () => {
    dialog.close();
    resolve(is);
  };
  dialog.append(
    make("div", { class: "head" }, make("h2", {}, question)),
    make(
      "div",
      { class: "pad" },
      so ? make("p", {}, so) : null,
      make(
        "div",
        { class: "acts" },
        make("button", { class: "btn danger", type: "button", onclick: answer(true) }, yes),
        make("button", { class: "btn", type: "button", onclick: answer(false), autofocus: true }, t("cancel")),
      ),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    resolve(false);
  });
  document.body.append(dialog);
  dialog.showModal();
  return promise;
}

customElements.define("k-health", Health);
