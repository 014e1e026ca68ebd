// Elements from names, attributes and children. Text becomes text: nothing here reads HTML.

/** An element; `on...` attributes are listeners, those that are null or false are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of SVG. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** One of the page's icons. */
export function icon(name) {
  return draw("svg", { class: "i", "aria-hidden": "true" }, draw("use", { href: `#i-${name}` }));
}

/** A field under its name. */
export function labelled(id, field, wrong = null) {
  return make("label", { class: "labelled" }, make("span", { "data-t": id }), field, wrong);
}

/** Arrows move within a group of buttons, of which Tab reaches the chosen one only. */
export function roving(group, selector, choose) {
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = [...group.querySelectorAll(selector)].filter((button) => button.offsetParent);
    const at = buttons.indexOf(document.activeElement);
    const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : step && at + step;
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = buttons[(to + buttons.length) % buttons.length];
    next.focus();
    choose(next);
  });
}

/** Mark one button of a group as chosen. */
export function chosen(buttons, isChosen, attribute = "aria-selected") {
  for (const button of buttons) {
    const is = isChosen(button);
    button.setAttribute(attribute, String(is));
    button.tabIndex = is ? 0 : -1;
  }
}
