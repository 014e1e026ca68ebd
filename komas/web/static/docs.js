// The page of the API: every call of /openapi.json with a form to try it, and what /asyncapi.json says of messages.
import {
  curlOf,
  EventReader,
  exampleOf,
  fieldsOf,
  hasSignals,
  isSocket,
  isStream,
  matches,
  parametersOf,
  requestOf,
  resolve,
  tokenOf,
  typeOf,
} from "./docs-api.js";
import { make } from "./elements.js";
import { tokens } from "./store.js";
import { wireSwitches } from "./switches.js";
import { CALLS, TAGS } from "./words/calls-ru.js";
import { dress, language, onWords, preferred, speak, t } from "./words.js";

const ROOT = new URL("./", location.href);
const MOST_EVENTS = 200; // that are shown of a stream
const MOST_CHARS = 200_000; // of a body
const HEADERS = ["content-type", "retry-after", "www-authenticate", "etag"];
const isWide = matchMedia("(min-width: 900px)");
const one = (selector) => document.querySelector(selector);

/** What runs now, and is ended by another call. */
let stop = () => {};
let calls = [];
let api;
let messages;

/** What stands in the article and is no fixed word: said again in another language, so that nothing is made anew. */
const sayings = new Map();

function say(place, words) {
  sayings.set(place, words);
  place.textContent = words();
}

const summaryOf = ({ operationId, summary }) => (language === "ru" && CALLS[operationId]) || summary;
const tagOf = ({ name, description }) => (language === "ru" && TAGS[name]) || description;

async function read(name) {
  const answer = await fetch(new URL(name, ROOT));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.json();
}

// ---- the list

function list() {
  const groups = api.tags.map(({ name }) => {
    const own = calls.filter(({ call }) => call.tags.includes(name));
    const links = own.map(({ path, method, call }) => {
      const { operationId: id, summary } = call;
      const text = [method, path, id, name, summary, CALLS[id]].join(" ");
      const link = make("a", { href: `#${id}` }, verb(path, method), make("span", {}, path));
      return make("li", { "data-text": text }, link);
    });
    return make("section", { "data-tag": name }, make("h2", {}, name), make("ul", {}, ...links));
  });
  one("#list").replaceChildren(...groups);
  const none = make("p", { class: "q", role: "status" });
  one("#list").after(none);
  const find = () => {
    const wanted = one("#find").value;
    for (const row of one("#list").querySelectorAll("li")) row.hidden = !matches(row.dataset.text, wanted);
    for (const group of one("#list").children) group.hidden = !group.querySelector("li:not([hidden])");
    none.textContent = one("#list li:not([hidden])") ? "" : t("apiFindNone");
  };
  one("#find").addEventListener("input", find);
  one("#find").addEventListener("keydown", (event) => {
    const first = one("#list li:not([hidden]) a");
    if (event.key !== "Enter" || event.isComposing || !first) return;
    event.preventDefault();
    if (first.hash === location.hash) one("#call h2").focus();
    else first.click();
  });
  onWords(find);
  nameCalls();
}

/** The list's titles, and the page's, in the reader's language. */
function nameCalls() {
  for (const link of one("#list").querySelectorAll("a"))
    link.title = summaryOf(calls.find(({ call }) => call.operationId === link.hash.slice(1)).call);
  for (const tag of api.tags) one(`#list [data-tag="${tag.name}"] h2`).title = tagOf(tag);
  const shown = calls.find(({ call }) => call.operationId === location.hash.slice(1));
  document.title = shown ? `${summaryOf(shown.call)} – komas` : "komas: API";
}

function verb(path, method) {
  return make("b", { class: `d-verb ${method}` }, isSocket(path) ? "WS" : method.toUpperCase());
}

// ---- one call

function show() {
  stop();
  const id = location.hash.slice(1);
  const found = calls.find(({ call }) => call.operationId === id);
  for (const link of one("#list").querySelectorAll("a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (id === "main") return;
  sayings.clear();
  one("#call").replaceChildren(...(found ? parts(found) : welcome()));
  dress(one("#call"));
  nameCalls();
  if (!found) return;
  if (!isWide.matches) one("#calls").open = false;
  if (document.activeElement?.closest("#calls")) one("#call h2").focus({ preventScroll: true });
  one("#call").scrollIntoView({ block: isWide.matches ? "nearest" : "start" });
}

function welcome() {
  const rows = api.tags.flatMap((tag) => {
    const told = make("dd");
    say(told, () => tagOf(tag));
    return [make("dt", {}, tag.name), told];
  });
  return [
    make(
      "section",
      { class: "panel" },
      make("div", { class: "head" }, make("h2", {}, api.info.summary)),
      make("div", { class: "pad" }, marked(api.info.description), make("dl", { class: "kv" }, ...rows)),
    ),
  ];
}

function parts(found) {
  const { path, method, call } = found;
  const title = make("h2", { tabindex: "-1" });
  say(title, () => summaryOf(call));
  const told = [
    make("p", { class: "d-address" }, verb(path, method), make("code", {}, path)),
    make("p", { class: "q" }, call.operationId, ...tokenWords(found)),
    ...(call.description ? [marked(call.description)] : []),
  ];
  return [
    section(title, ...told),
    tryIt(found),
    ...(isSocket(path) || isStream(call) ? [messagesOf(path)] : []),
    answersOf(call),
  ];
}

function section(title, ...children) {
  return make(
    "section",
    { class: "panel" },
    make("div", { class: "head" }, title),
    make("div", { class: "pad" }, ...children),
  );
}

function heading(id) {
  return make("h3", { "data-t": id });
}

function tokenWords({ path, call }) {
  const name = hasSignals(path) ? "signals" : tokenOf(call);
  if (!name) return [];
  const isOptional = call.security?.some((each) => Object.keys(each).length === 0);
  const words = isOptional ? "apiMayToken" : name === "admin" ? "apiNeedsAdmin" : "apiNeedsToken";
  return [" · ", make("span", { "data-t": words })];
}

/** Words with `code` between backticks. */
function marked(text) {
  const pieces = text.split("`").map((piece, at) => (at % 2 ? make("code", {}, piece) : piece));
  return make("p", { class: "d-text" }, ...pieces);
}

// ---- try it

function tryIt(found) {
  const { path, call } = found;
  const fields = parametersOf(call).map(parameter);
  const schema = call.requestBody?.content["application/json"].schema;
  const body = schema && make("textarea", { class: "field", rows: 6, spellcheck: "false", id: "body" });
  if (body) body.value = JSON.stringify(exampleOf(api, schema), null, 2);
  const curl = make("code");
  const ready = () => {
    const values = Object.fromEntries(fields.map(({ name, input }) => [name, input.value]));
    return requestOf(found, values, body?.value);
  };
  const line = () => {
    curl.textContent = curlOf(found, ready(), ROOT);
  };
  const go = make("button", { class: "btn primary", "data-t": isSocket(path) ? "apiConnect" : "apiSend" });
  const end = make("button", { type: "button", class: "btn", "data-t": "apiStop", hidden: true });
  const state = make("p", { class: "d-state", role: "status" });
  const seen = make("p", { class: "d-state q" }); // no status: it would be read out with each event
  const out = make("div", { class: "d-out" });
  const running = (is) => {
    go.hidden = is;
    end.hidden = !is;
    if (is) end.focus();
    else if (document.activeElement === document.body) go.focus();
  };
  const form = make(
    "form",
    { oninput: line },
    ...fields.map(({ label }) => label),
    ...(body ? [make("label", { class: "labelled" }, make("span", { "data-t": "apiBody" }), body)] : []),
    make("div", { class: "d-do" }, go, end),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    stop();
    out.replaceChildren();
    say(seen, () => "");
    const view = { state, seen, out, running };
    if (isSocket(path)) converse(found, ready(), view);
    else if (isStream(call)) follow(found, ready(), view);
    else ask(found, ready(), view);
  });
  end.addEventListener("click", () => stop());
  line();
  const copy = make("button", { type: "button", class: "btn small", "data-t": "apiCopy" });
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(curl.textContent);
    say(state, () => t("apiCopied"));
  });
  const shell = make("div", { class: "d-curl" }, block(curl, "apiLine"), copy);
  return section(heading("apiTry"), shell, form, state, seen, out);
}

function parameter({ name, in: place, required, description, schema }) {
  const found = resolve(api, schema);
  const choices = found.type === "boolean" ? [true, false] : found.enum;
  const input = choices
    ? make(
        "select",
        { class: "field" },
        ...(required ? [] : [make("option", { value: "" }, "–")]),
        ...choices.map((each) => make("option", { value: String(each) }, String(each))),
      )
    : make("input", { class: "field", required, autocomplete: "off", spellcheck: "false" });
  if (!choices && (required || name === "streams")) input.value = first(schema);
  const bounds = [found.minimum, found.maximum].every((each) => each !== undefined)
    ? `${found.minimum} … ${found.maximum}`
    : "";
  const standard = () => (found.default === undefined ? "" : t("apiDefault", { value: String(found.default) }));
  const kind = choices ? "" : typeOf(api, schema);
  const meaning = plain(description || (choices ? "" : (found.description ?? "")));
  const told = () => [kind, bounds, standard(), meaning].filter(Boolean).join(" · ");
  const title = make("span", {}, make("code", {}, name), place === "query" ? "" : ` (${place})`, required ? " *" : "");
  const help = make("small", { id: `help-${name}` });
  say(help, told);
  if (told()) input.setAttribute("aria-describedby", help.id);
  return { name, input, label: make("label", { class: "labelled d-field" }, title, input, help) };
}

/** What a field holds at first: of a list all examples that its items have. */
function first(schema) {
  const { items } = resolve(api, schema);
  return items ? (resolve(api, items).examples ?? []).join(",") : String(exampleOf(api, schema));
}

function block(child, label) {
  return make("pre", { class: "d-code", tabindex: "0", role: "group", "data-t-label": label }, child);
}

function bearer({ call }) {
  const name = tokenOf(call);
  const token = name && tokens.get(name);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Only this server, without cookies, and no address of it in a referrer. */
function call(found, { path, headers, body }, signal) {
  return fetch(new URL(path, ROOT), {
    method: found.method.toUpperCase(),
    headers: { ...headers, ...bearer(found) },
    body: body ?? undefined,
    signal,
    cache: "no-store",
    credentials: "omit",
    mode: "same-origin",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
}

/** Run something that can be stopped; says what went wrong. */
async function runs({ state, running }, act) {
  const scope = new AbortController();
  let isStopped = false;
  const own = () => {
    isStopped = true;
    scope.abort();
  };
  stop = own;
  running(true);
  say(state, () => t("connecting"));
  try {
    await act(scope.signal);
  } catch (error) {
    say(state, () => (isStopped ? t("apiStopped") : t("apiFailed", { reason: error.message })));
  }
  running(false);
  if (stop === own) stop = () => {};
}

async function ask(found, ready, view) {
  await runs(view, async (signal) => {
    const began = performance.now();
    const answer = await call(found, ready, signal);
    const text = await answer.text();
    const ms = Math.round(performance.now() - began);
    say(view.state, () => t("apiAnswered", { status: String(answer.status), ms, size: text.length }));
    view.out.replaceChildren(...shown(answer, text));
    dress(view.out);
  });
}

function shown(answer, text) {
  const headers = HEADERS.filter((name) => answer.headers.has(name)).map(
    (name) => `${name}: ${answer.headers.get(name)}`,
  );
  const isJson = answer.headers.get("content-type")?.includes("json");
  const cut = text.length > MOST_CHARS ? `${text.slice(0, MOST_CHARS)}…` : text;
  return [
    block(make("code", {}, [`${answer.status} ${answer.statusText}`.trim(), ...headers].join("\n")), "apiHead"),
    block(make("code", {}, isJson && cut === text ? spread(text) : cut), "apiAnswer"),
  ];
}

/** JSON with line breaks and every digit as it came: numbers are never read. */
function spread(text) {
  const tokensOf = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let depth = 0;
  let before = "";
  let written = "";
  for (const each of tokensOf) {
    const closes = each === "}" || each === "]";
    if (closes) depth -= 1;
    const isEmpty = closes && (before === "{" || before === "[");
    if ((closes && !isEmpty) || before === "," || (!closes && (before === "{" || before === "[")))
      written += `\n${"  ".repeat(depth)}`;
    written += each === ":" ? ": " : each;
    if (each === "{" || each === "[") depth += 1;
    before = each;
  }
  return written;
}

/** Rows of what comes, newest first; older ones go. */
function log(view, label) {
  const rows = make("ol", { class: "d-events", tabindex: "0", "data-t-label": label });
  view.out.replaceChildren(rows);
  dress(view.out);
  let seen = 0;
  return (name, text, id = "") => {
    seen += 1;
    const head = make("span", { class: "q" }, name, id && ` · ${id}`);
    rows.prepend(make("li", {}, head, make("code", {}, text)));
    if (rows.children.length > MOST_EVENTS) rows.lastElementChild.remove();
    say(view.seen, () => t("apiSeen", { n: seen }));
  };
}

async function follow(found, ready, view) {
  await runs(view, async (signal) => {
    const answer = await call(found, ready, signal);
    if (!answer.ok) {
      say(view.state, () => t("apiRefused", { status: String(answer.status) }));
      view.out.replaceChildren(...shown(answer, await answer.text()));
      dress(view.out);
      return;
    }
    const put = log(view, "apiEvents");
    const reader = new EventReader();
    const decoder = new TextDecoder();
    say(view.state, () => t("apiOpen"));
    for await (const chunk of chunks(answer.body))
      for (const { name, id, data } of reader.take(decoder.decode(chunk, { stream: true }))) put(name, data, id);
    say(view.state, () => t("apiEnded"));
  });
}

async function* chunks(body) {
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

async function converse({ path }, ready, view) {
  await runs(view, async (signal) => {
    const url = new URL(ready.path, ROOT);
    url.protocol = url.protocol.replace("http", "ws");
    const token = hasSignals(path) && tokens.get("signals");
    const socket = token ? new WebSocket(url, ["komas.signals", `bearer.${token}`]) : new WebSocket(url);
    const put = log(view, "apiMessages");
    view.out.prepend(sayForm(path, socket, put));
    dress(view.out);
    const ended = new Promise((resolve) => socket.addEventListener("close", resolve));
    signal.addEventListener("abort", () => socket.close(1000));
    socket.addEventListener("open", () => {
      say(view.state, () => t("apiOpen"));
    });
    socket.addEventListener("message", ({ data }) => put("◂", data));
    const { code, reason } = await ended;
    view.out.querySelector("form").remove();
    say(view.state, () => t("apiClosed", { code: String(code), reason: reason || "–" }));
  });
}

function sayForm(path, socket, put) {
  const channel = channelOf(path);
  const said = operation(channel.name, "receive").map(({ name }) =>
    exampleOf(messages, channel.messages[name].payload),
  );
  const input = make("input", {
    class: "field",
    "data-t-label": "apiMessage",
    autocomplete: "off",
    spellcheck: "false",
  });
  input.value = JSON.stringify(said[0]);
  const form = make("form", { class: "d-say" }, input, make("button", { class: "btn", "data-t": "apiSay" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(input.value);
    put("▸", input.value);
  });
  return form;
}

// ---- messages and answers

function channelOf(path) {
  const [name, channel] = Object.entries(messages.channels).find(([, { address }]) => address === path);
  return { name, ...channel };
}

function operation(channel, action) {
  const found = messages.operations[`${channel}_${action}`];
  return (found?.messages ?? []).map(({ $ref }) => ({ name: $ref.split("/").at(-1) }));
}

function messagesOf(path) {
  const channel = channelOf(path);
  const lists = ["send", "receive"].flatMap((action) =>
    operation(channel.name, action).map(({ name }) => {
      const { summary, payload, headers } = channel.messages[name];
      const sign = isSocket(path) ? (action === "send" ? "◂ " : "▸ ") : "";
      const event = headers?.properties.event ? `event: ${name}` : name;
      return more(make("span", {}, make("code", {}, sign + event), ` ${plain(summary)}`), messages, payload);
    }),
  );
  const closes = (channel["x-close-codes"] ?? []).map(({ code, reason, comesBack }) => [
    make("dt", {}, String(code)),
    make(
      "dd",
      {},
      reason || "–",
      comesBack ? make("span", { class: "q" }, " · ", make("span", { "data-t": "apiComesBack" })) : null,
    ),
  ]);
  return section(
    heading("apiMessages"),
    ...lists,
    ...(closes.length ? [make("h4", { "data-t": "apiCloses" }), make("dl", { class: "kv" }, ...closes.flat())] : []),
  );
}

function plain(text) {
  return text.replaceAll("`", "");
}

function answersOf(described) {
  const rows = Object.entries(described.responses).map(([status, { description, content }]) => {
    const [type, { schema } = {}] = Object.entries(content ?? {})[0] ?? [];
    const title = make("span", {}, make("code", {}, status), ` ${plain(description)}`);
    const isJson = type?.includes("json");
    return isJson ? more(title, api, schema) : make("p", { class: "d-answer" }, title, type ? ` (${type})` : "");
  });
  return section(heading("apiAnswers"), ...rows);
}

/** A line that opens: an example, and what each field is. */
function more(title, document, schema) {
  const details = make("details", { class: "d-more" }, make("summary", {}, title));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const fields = fieldsOf(document, schema).map(({ name, type, meaning, isOptional }) =>
      make(
        "li",
        {},
        make("code", {}, name + (isOptional ? "?" : "")),
        make("span", { class: "q" }, ` ${type}`),
        meaning && ` – ${plain(meaning)}`,
      ),
    );
    const example = JSON.stringify(exampleOf(document, schema), null, 2);
    details.append(block(make("code", {}, example), "apiExample"));
    if (fields.length) details.append(make("ul", { class: "d-fields" }, ...fields));
    dress(details);
  });
  return details;
}

// ---- boot

await speak(preferred());
wireSwitches();
one("#calls").open = isWide.matches;
isWide.addEventListener("change", () => {
  one("#calls").open = isWide.matches;
});
for (const name of ["admin", "signals"]) {
  const field = one(`#token-${name}`);
  field.value = tokens.get(name) ?? "";
  field.addEventListener("input", () => tokens.set(name, field.value.trim()));
}

try {
  [api, messages] = await Promise.all(["openapi.json", "asyncapi.json"].map(read));
  calls = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, call]) => ({ path, method, call })),
  );
  one("#version").textContent = api.info.version;
  list();
  show();
  addEventListener("hashchange", show);
  onWords(() => {
    for (const [place, words] of sayings) place.textContent = words();
    nameCalls();
  });
} catch (error) {
  one("#call").replaceChildren(make("p", { class: "wrong", role: "alert" }, t("apiAway", { reason: error.message })));
}
