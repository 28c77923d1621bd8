// Curves, bars and tables.

import { h, percent, svg } from "./dom.js";

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

/** Bars for a prediction, in the fixed order of the classes, so that they do not move while the user draws. */
export class Bars {
  constructor(classes) {
    this.rows = new Map(classes.map((name) => [name, row(name)]));
    // Bars that are scrolled can be reached by keyboard, too.
    const many = this.rows.size > 10;
    this.element = h("ol", { class: many ? "bars many" : "bars", tabindex: many ? "0" : null, "aria-label": "Probabilities" }, [...this.rows.values()].map(({ element }) => element));
  }

  show(prediction) {
    for (const [name, { element, fill, share }] of this.rows) {
      const probability = prediction?.probabilities[name] ?? 0;
      fill.style.inlineSize = `${100 * probability}%`;
      share.textContent = prediction ? percent(probability) : "–";
      element.classList.toggle("best", prediction?.label === name);
    }
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
  const count = (truth, label) => known.filter((each) => each.truth === truth && each.label === label).length;
  const right = known.filter((each) => each.truth === each.label).length;
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Confusion table" },
    h("table", { class: "confusion" },
      h("caption", {}, `${right} of ${known.length} correct. Rows: true class; columns: predicted class.`),
      h("thead", {}, h("tr", {}, h("td"), classes.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, classes.map((truth) => h("tr", {}, h("th", { scope: "row" }, truth), classes.map((label) => {
        const times = count(truth, label);
        return h("td", { class: times ? (truth === label ? "right" : "wrong") : "none" }, String(times));
      }))))));
}
