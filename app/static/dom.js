// Elements, and announcements for screen readers.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes that start with "on" are listeners, true is an empty attribute, null and false are omitted. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Announces a text to screen readers. */
export function say(words) {
  document.getElementById("said").textContent = words;
}

/** Shows the error's message in `place`; null clears it. */
export function showError(place, error) {
  if (!error) return place.replaceChildren();
  place.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
}

/** Replaces what is in `place`. The focus stays on what has the same id, or goes to the place. */
export function redraw(place, ...children) {
  const focused = document.activeElement;
  const inside = place !== focused && place.contains(focused);
  place.replaceChildren(...children);
  if (inside) (document.getElementById(focused.id) ?? place).focus();
}

export const time = (text) => new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
export const duration = (seconds) => (seconds < 100 ? `${Math.ceil(seconds)} s` : seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`);

/** Shows which key does the same as a button; screen readers read it from aria-keyshortcuts. */
export const key = (name) => h("kbd", { "aria-hidden": "true" }, name);

let terms = 0;

/** A word that is explained where it is read: a button, for keyboards and fingers, that shows the words below it. */
export function term(word, explanation) {
  const id = `term-${++terms}`;
  const tip = h("span", { id, class: "tip", popover: true }, explanation);
  const button = h("button", { type: "button", class: "term", popovertarget: id }, word);
  tip.addEventListener("beforetoggle", () => {
    const { left, bottom } = button.getBoundingClientRect();
    Object.assign(tip.style, { insetInlineStart: `${Math.max(8, Math.min(left, innerWidth - 320))}px`, insetBlockStart: `${bottom + 6}px` });
  });
  return [button, tip];
}

/** What to call an episode or a task without a name: its classes, of many the first two. */
export const titleOf = ({ name, classes }) => name || (classes.length > 4
  ? `${classes.length} classes: ${classes.slice(0, 2).join(", ")}, +${classes.length - 2}`
  : classes.join(", "));

/** How many images of a task have no label, after how many have one; nothing if none. */
export const withoutLabel = (count) => (count ? `, ${count.toLocaleString()} without a label` : "");

/** One decimal below 10 % and just below 100 %, so that 100 % means at least 99.95 %. */
export function percent(share) {
  const digits = share >= 0.0995 && (share < 0.9945 || share >= 0.9995) ? 0 : 1;
  return `${(100 * share).toFixed(digits)}\u00a0%`;
}

/** A canvas with this image file. `drawn`: a drawing, shown in the page's colours. Without a label it is decorative. */
export function picture(blob, label, { drawn = false } = {}) {
  const canvas = h("canvas", { width: 96, height: 96, class: drawn ? "ink" : null, role: label && "img", "aria-label": label, "aria-hidden": label ? null : "true" });
  createImageBitmap(blob).then((bitmap) => {
    const scale = 96 / Math.max(bitmap.width, bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, (96 - width) / 2, (96 - height) / 2, width, height);
    bitmap.close();
  }, () => canvas.classList.add("unreadable"));
  return canvas;
}
