// Before the first paint, which a module would come too late for: theme, colours, width of the list and view.
(() => {
  const root = document.documentElement;
  const kept = (key) => {
    try {
      return JSON.parse(localStorage.getItem(`komas.${key}`));
    } catch {
      return null;
    }
  };
  const theme = kept("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.dataset.colors = kept("colors") ?? "green";
  if (kept("wide")) root.dataset.wide = "";
  const view = location.hash.slice(1).split("/")[0];
  root.dataset.view = ["watch", "signals", "admin"].includes(view) ? view : "market";
})();
