// Boot: the words first, then the parts of the page; views, keys, theme and copying.
import { ungroup } from "./digits.js";
import { roving } from "./elements.js";
import { feed, look, looking, onLook, VIEWS } from "./page.js";
import { flash } from "./paint.js";
import { settings, tokens } from "./store.js";
import { wireSwitches } from "./switches.js";
import { language, preferred, speak } from "./words.js";

const root = document.documentElement;
const one = (selector) => document.querySelector(selector);

await speak(preferred());
const PARTS = [
  () => import("./k-health.js"),
  () => import("./k-watchlist.js"),
  () => import("./k-chart.js"),
  () => import("./k-tape.js"),
  () => import("./k-book.js"),
  () => import("./k-signals.js"),
];
for (const load of PARTS) {
  await load();
  await new Promise((done) => setTimeout(done)); // each in a task of its own: hands come between
}
const chart = one("k-chart");

// ---- views

function show(view) {
  root.dataset.view = view;
  for (const tab of document.querySelectorAll(".nav [data-go]")) {
    const is = tab.dataset.go === view || (view === "watch" && tab.dataset.go === "market");
    tab.setAttribute("aria-selected", String(is));
    tab.tabIndex = is ? 0 : -1;
  }
  for (const button of document.querySelectorAll(".foot [data-go]")) {
    if (button.dataset.go === view) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  if (view === "admin") openAdmin();
  one("main").scrollTop = 0;
  const { activeElement } = document;
  if (activeElement !== document.body && !activeElement.checkVisibility()) one("main").focus(); // what led here is hidden
}

async function openAdmin() {
  const place = one("#view-admin");
  if (place.firstElementChild) return;
  await import("./k-admin.js");
  if (!place.firstElementChild) place.append(document.createElement("k-admin"));
}

async function openSettings(section) {
  const { openDialog } = await import("./k-settings.js");
  openDialog(section);
}

onLook("view", show);
show(VIEWS.includes(looking.view) ? looking.view : "market");
for (const button of document.querySelectorAll("[data-go]"))
  button.addEventListener("click", () => look({ view: button.dataset.go }));
roving(one(".nav"), "[data-go]", (tab) => look({ view: tab.dataset.go }));

const side = one("#side");
function tab(name) {
  side.dataset.tab = name;
  for (const button of side.querySelectorAll("[role=tab]")) {
    button.setAttribute("aria-selected", String(button.dataset.tab === name));
    button.tabIndex = button.dataset.tab === name ? 0 : -1;
  }
}
for (const button of side.querySelectorAll("[role=tab]"))
  button.addEventListener("click", () => tab(button.dataset.tab));
roving(side.querySelector("[role=tablist]"), "button", (button) => tab(button.dataset.tab));

// ---- language, theme, flash

wireSwitches();
settings.onChange("colors", (colors) => {
  root.dataset.colors = colors ?? "green";
});
settings.onChange("flash", (is) => {
  flash.enabled = is !== false;
});
flash.enabled = settings.get("flash") !== false;

for (const id of ["#gear", "#foot-settings"]) one(id).addEventListener("click", () => openSettings());

// ---- keys: single ones can be turned off (WCAG 2.1.4), and are off in fields

const KEYS = {
  "/": () => {
    look({ view: matchMedia("(max-width: 719px)").matches ? "watch" : "market" });
    one("#search").focus();
  },
  "[": () => chart.step(-1),
  "]": () => chart.step(1),
  End: () => chart.toLive(),
  g: () => chart.nextGap(),
  "+": () => chart.zoom(0.2),
  "=": () => chart.zoom(0.2),
  "-": () => chart.zoom(-0.25),
  m: () => look({ view: "market" }),
  s: () => look({ view: "signals" }),
  a: () => look({ view: "admin" }),
  w: () => one("k-watchlist").widen(),
  p: () => one("k-tape").pause(!one("k-tape").isHeld),
  ",": () => openSettings(),
  "?": () => openSettings("keys"),
};

// The same keys on a Russian keyboard.
const RUSSIAN = { ".": "/", х: "[", ъ: "]", п: "g", ь: "m", ы: "s", ф: "a", ц: "w", з: "p", б: "," };

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return closeAll();
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || settings.get("keys") === false) return;
  if (event.target.closest("input, textarea, select, dialog")) return;
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = KEYS[name] ?? (language === "ru" ? KEYS[RUSSIAN[name]] : undefined);
  if (!act) return;
  event.preventDefault();
  act();
});

function closeAll() {
  one("k-health").open(false);
  one("#toast").hidden = true;
}

// ---- thin spaces group digits for the eye; what is copied is the number

document.addEventListener("copy", (event) => {
  const text = String(getSelection());
  if (!text.includes("\u202f") || !event.clipboardData) return;
  event.clipboardData.setData("text/plain", ungroup(text));
  event.preventDefault();
});

const token = tokens.get("signals");
if (token) feed.setToken(token);
