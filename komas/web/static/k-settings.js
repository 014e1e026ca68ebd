// The settings: language, theme, colours, candles, flash, times, keys, licences. Loaded when first opened.
import { make } from "./elements.js";
import { settings } from "./store.js";
import { dress, language, onWords } from "./words.js";

const FIELDS = [
  [
    "language",
    "language",
    [
      ["en", null, "English"],
      ["ru", null, "Русский"],
    ],
    () => language,
  ],
  [
    "theme",
    "themeLabel",
    [
      ["system", "themeSystem"],
      ["light", "themeLight"],
      ["dark", "themeDark"],
    ],
  ],
  [
    "colors",
    "colors",
    [
      ["green", "colorsGreen"],
      ["red", "colorsRed"],
      ["blue", "colorsBlue"],
    ],
  ],
  [
    "hollow",
    "candleStyle",
    [
      ["false", "candlesFilled"],
      ["true", "candlesHollow"],
    ],
  ],
  [
    "flash",
    "flash",
    [
      ["true", "on"],
      ["false", "offWord"],
    ],
  ],
  [
    "times",
    "times",
    [
      ["local", "timesLocal"],
      ["utc", "timesUtc"],
    ],
  ],
  [
    "keys",
    "keys",
    [
      ["true", "on"],
      ["false", "offWord"],
    ],
  ],
];
const FIRST = { theme: "system", colors: "green", hollow: false, flash: true, times: "local", keys: true };
const KEYS = [
  ["/", "kSearch"],
  ["[ ]", "kIntervals"],
  ["End", "kLive"],
  ["G", "kGap"],
  ["+ −", "kZoom"],
  ["M S A", "kViews"],
  ["W", "kWide"],
  ["P", "kPause"],
  [",", "kSettings"],
  ["?", "kAll"],
  ["Esc", "kEsc"],
  ["↑ ↓ Enter Del", "kRows"],
];

let dialog = null;

const said = (tag, id, attributes = {}) => make(tag, { ...attributes, "data-t": id });

function field([key, id, options, current]) {
  const value = String(current?.() ?? settings.get(key) ?? FIRST[key]);
  const select = make(
    "select",
    { class: "field", name: key },
    ...options.map(([name, word, own]) =>
      word ? said("option", word, { value: name }) : make("option", { value: name, lang: name }, own),
    ),
  );
  select.value = value;
  select.addEventListener("change", () => {
    const chosen = { true: true, false: false }[select.value] ?? select.value;
    settings.set(key, chosen);
  });
  return make("label", { class: "labelled" }, said("span", id), select);
}

function build() {
  const close = said("button", "close", { class: "btn small", type: "button", onclick: () => dialog.close() });
  const keys = make(
    "dl",
    { class: "kv keys" },
    ...KEYS.flatMap(([names, id]) => [
      make("dt", {}, ...names.split(" ").map((name) => make("kbd", {}, name))),
      said("dd", id),
    ]),
  );
  dialog = make(
    "dialog",
    { id: "settings", "aria-labelledby": "settings-title" },
    make(
      "div",
      { class: "head" },
      said("h2", "settings", { id: "settings-title" }),
      make("span", { class: "end" }, close),
    ),
    make("form", { class: "pad set", method: "dialog" }, ...FIELDS.map(field)),
    make("div", { class: "pad", id: "settings-keys" }, said("h2", "keysTitle"), keys),
    make("div", { class: "pad q" }, said("h2", "licences"), said("p", "licenceChart"), said("p", "licenceOwn")),
    make("div", { class: "pad" }, said("a", "apiDocsTitle", { href: "docs" })),
  );
  document.body.append(dialog);
  onWords(() => dress(dialog));
}

/** Open the settings, or their list of keys. */
export function openDialog(section) {
  if (!dialog) build();
  dress(dialog);
  for (const select of dialog.querySelectorAll("select")) {
    const value = select.name === "language" ? language : (settings.get(select.name) ?? FIRST[select.name]);
    select.value = String(value);
  }
  dialog.showModal();
  if (section === "keys") dialog.querySelector("#settings-keys").scrollIntoView();
  else dialog.querySelector("select").focus();
}
