// The two switches at the top of each page: language and theme.
import { settings } from "./store.js";
import { language, onWords, preferred, speak, t } from "./words.js";

const root = document.documentElement;
const THEMES = { system: "themeSystem", light: "themeLight", dark: "themeDark" };

function isDark() {
  if (root.dataset.theme) return root.dataset.theme === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Have `#language` and `#theme` work, and follow what other tabs choose. The words must have been loaded. */
export function wireSwitches() {
  const theme = document.querySelector("#theme");
  const name = () =>
    theme.setAttribute("aria-label", t("theme", { name: t(THEMES[settings.get("theme") ?? "system"]) }));
  settings.onChange("theme", (chosen) => {
    if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
    else delete root.dataset.theme;
    name();
  });
  settings.onChange("language", () => speak(preferred()));
  onWords(name);
  name();
  theme.addEventListener("click", () => settings.set("theme", isDark() ? "light" : "dark"));
  document
    .querySelector("#language")
    .addEventListener("click", () => settings.set("language", language === "ru" ? "en" : "ru"));
}
