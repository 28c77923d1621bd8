// Curves, bars and tables.

import { h, percent, svg } from "./dom.js";

const TOP_BARS = 5;
const [WIDE, HIGH, LEFT, BOTTOM, TOP] = [480, 180, 52, 26, 12];

/** The learned loss of each step so far, out of `steps`. */
export const lossCurve = (losses, steps) => curve(losses, { first: 1, last: steps, name: `Learned loss, step ${losses.length} of ${steps}` });

/** The most recent losses of a training run, by meta-epoch; the epochs of the warm-up come before the first one. */
export function runCurve({ losses, epoch, epochs, warm_up_epochs: warmUp }) {
  return curve(losses, { first: Math.max(1, epoch - losses.length + 1) - warmUp, last: epochs - warmUp, name: "Training loss by meta-epoch" });
}

/** Values at first, first + 1, ...; the axis ends at `last`. Steps before 1 are the warm-up. */
function curve(losses, { first, last, name }) {
  // The axis includes 0, so that a loss that hardly changes appears flat.
  const [low, high] = [Math.min(0, ...losses), Math.max(0, ...losses)];
  const span = high - low || 1;
  const x = (step) => LEFT + ((step - first) / Math.max(1, last - first)) * (WIDE - LEFT - 14);
  const y = (loss) => TOP + (1 - (loss - low) / span) * (HIGH - TOP - BOTTOM);
  const points = losses.map((loss, at) => [x(first + at), y(loss)]);
  const start = Math.max(first, 1);
  const ticks = [...new Set([start, Math.ceil((start + last) / 2), last])].filter((step) => step >= first && last >= first);
  const warmUp = first < 1 && [
    svg("line", { x1: x(0.5), x2: x(0.5), y1: TOP, y2: HIGH - BOTTOM, class: "grid" }),
    svg("text", { x: (LEFT + x(0.5)) / 2, y: HIGH - 6, class: "tick mid" }, "warm-up"),
  ];
  const range = losses.length ? `from ${figure(losses[0])} to ${figure(losses.at(-1))}` : "no values yet";
  return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "curve", role: "img", "aria-label": `${name}: ${range}` },
    [...new Set([low, high])].map((loss) => [
      svg("line", { x1: LEFT, x2: WIDE - 14, y1: y(loss), y2: y(loss), class: "grid" }),
      svg("text", { x: LEFT - 8, y: y(loss) + 4, class: "tick end" }, losses.length ? figure(loss) : ""),
    ]),
    warmUp || null,
    ticks.map((step) => svg("text", { x: x(step), y: HIGH - 6, class: "tick mid" }, String(step))),
    points.length > 1 ? svg("polyline", { points: points.map((point) => point.join(",")).join(" "), class: "line" }) : null,
    points.length <= 30 ? points.map(([cx, cy]) => svg("circle", { cx, cy, r: 4, class: "dot" })) : null,
  );
}

const figure = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** Bars for a prediction. Few are in the fixed order of the classes, so that they do not move while the user draws; of more
 * than five, the five most probable are shown, sorted, and all on demand. */
export class Bars {
  #prediction = null;
  #all = false;

  constructor(classes) {
    this.rows = new Map(classes.map((name) => [name, row(name)]));
    this.list = h("ol", { class: "bars", "aria-label": "Probabilities" });
    this.more = h("button", { type: "button", class: "chip", hidden: classes.length <= TOP_BARS, onclick: () => {
      this.#all = !this.#all;
      this.#order();
    } });
    this.element = h("div", { class: "answer" }, this.list, this.more);
    this.show(null);
  }

  show(prediction) {
    this.#prediction = prediction;
    for (const [name, { element, fill, share }] of this.rows) {
      const probability = prediction?.probabilities[name] ?? 0;
      fill.style.inlineSize = `${100 * probability}%`;
      share.textContent = prediction ? percent(probability) : "–";
      element.classList.toggle("best", prediction?.label === name);
    }
    this.#order();
  }

  #order() {
    const rows = [...this.rows];
    const [few, of] = [rows.length <= TOP_BARS, this.#prediction?.probabilities];
    if (!few && of) rows.sort(([one], [other]) => of[other] - of[one]);
    const shown = (few || this.#all ? rows : rows.slice(0, TOP_BARS)).map(([, { element }]) => element);
    // Moved only if they must: a row that is put in again starts its bar anew.
    if (shown.length !== this.list.children.length || shown.some((element, at) => element !== this.list.children[at])) this.list.replaceChildren(...shown);
    // Bars that are scrolled can be reached by keyboard, too.
    const many = shown.length > 10;
    this.list.classList.toggle("many", many);
    this.list.toggleAttribute("tabindex", many);
    if (many) this.list.tabIndex = 0;
    this.more.textContent = this.#all ? `Show the first ${TOP_BARS}` : `Show all ${rows.length}`;
  }
}

function row(name) {
  const fill = h("span", { class: "fill" });
  const share = h("span", { class: "share" }, "–");
  const element = h("li", {}, h("span", { class: "name" }, name), h("span", { class: "track", "aria-hidden": "true" }, fill), share);
  return { element, fill, share };
}

/** The confusion table of queries whose class is known: [{truth, label}]. */
export function confusion(classes, known) {
  const right = known.filter((each) => each.truth === each.label).length;
  const region = h("div", { class: "scroll sticky", tabindex: 0, role: "region", "aria-label": "Confusion table" });
  const only = h("input", { type: "checkbox", onchange: () => draw() });
  const draw = () => {
    const shown = only.checked ? known.filter((each) => each.truth !== each.label) : known;
    const here = (side) => classes.filter((name) => !only.checked || shown.some((each) => each[side] === name));
    region.replaceChildren(confusionTable(here("truth"), here("label"), shown, known));
  };
  draw();
  return h("div", { class: "stack" },
    h("div", { class: "row between" }, h("p", {}, h("strong", {}, `${right} of ${known.length} correct.`), h("span", { class: "quiet" }, " Rows: true class; columns: predicted class.")),
      right < known.length ? h("label", { class: "tick" }, only, "only mistakes") : ""), region);
}

/** Of the queries `shown`; the last column has the accuracy of each class in all that are `known`. */
function confusionTable(truths, labels, shown, known) {
  const counts = new Map();
  for (const { truth, label } of shown) counts.set(`${truth}\n${label}`, (counts.get(`${truth}\n${label}`) ?? 0) + 1);
  return h("table", { class: "confusion" },
    h("thead", {}, h("tr", {}, h("td"), labels.map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, "correct"))),
    h("tbody", {}, truths.map((truth) => h("tr", {}, h("th", { scope: "row" }, truth), labels.map((label) => {
      const times = counts.get(`${truth}\n${label}`);
      return h("td", { class: times ? (truth === label ? "right" : "wrong") : null }, times ? String(times) : "");
    }), h("td", { class: "whole" }, rightOf(known.filter((each) => each.truth === truth)))))));
}

const rightOf = (queries) => (queries.length ? `${queries.filter(({ truth, label }) => truth === label).length} of ${queries.length}` : "");
