// Writing to the page: once a frame, only what differs, and flashes that never become a flicker.

const FLASH_MS = 600;
const AGAIN_MS = 1000; // for one element
const MOST = 12; // flashes at once

/** @type {Set<() => void>} */ const waiting = new Set();
/** When each element flashed last. @type {WeakMap<Element, number>} */ const flashed = new WeakMap();
/** @type {Set<Element>} */ const flashing = new Set();

/** Run a function in the next frame; the same function once. @param {() => void} paint */
export function schedule(paint) {
  if (waiting.size === 0) requestAnimationFrame(paintAll);
  waiting.add(paint);
}

function paintAll() {
  const paints = [...waiting];
  waiting.clear();
  for (const paint of paints) paint();
}

/** @param {Node} node a text, or an element with nothing but a text in it @param {string} text */
export function setText(node, text) {
  const child = node instanceof Element && node.childNodes.length === 1 ? node.firstChild : node;
  if (child instanceof Text) {
    if (child.data !== text) child.data = text;
  } else if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} element @param {string} name @param {string | null} value null removes it */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

/** A rise or a fall: at most once a second here, and nowhere when many change at once. @param {Element} element @param {number} direction */
export function flash(element, direction) {
  const now = performance.now();
  if (!flash.enabled || direction === 0 || flashing.size >= MOST) return;
  if (now - (flashed.get(element) ?? -AGAIN_MS) < AGAIN_MS) return;
  flashed.set(element, now);
  flashing.add(element);
  setAttribute(element, "data-flash", direction > 0 ? "up" : "down");
  setTimeout(() => {
    flashing.delete(element);
    setAttribute(element, "data-flash", null);
  }, FLASH_MS);
}

flash.enabled = true;

/** Call again and again while the page is looked at, and at once when it is again. @param {number} ms @param {() => void} callback */
export function every(ms, callback) {
  const tick = () => document.visibilityState === "visible" && callback();
  const timer = setInterval(tick, ms);
  document.addEventListener("visibilitychange", tick);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", tick);
  };
}
