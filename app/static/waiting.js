// What is shown while an episode is adapted: its place in the queue, its steps, and the time that passes.

import { lossCurve } from "./charts.js";
import { h, say } from "./dom.js";

/** `created_at`: when the episode was created, for a page that was opened later. */
export class Waiting {
  #words = null;

  constructor({ created_at }) {
    // The clocks of the service and of the browser may differ, so that time never runs backwards.
    this.began = Math.min(Date.parse(created_at), Date.now());
    this.words = h("p");
    this.time = h("p", { class: "quiet time", role: "timer" });
    this.bar = h("progress", { "aria-label": "Adaptation" });
    this.curve = h("div");
    this.element = h("section", { class: "card", "aria-label": "Adapting" },
      h("div", { class: "row between" }, h("h2", {}, "Adapting"), this.time), this.words, this.bar, this.curve);
    this.timer = setInterval(() => this.#tick(), 1000);
    this.#tick();
  }

  show({ step, steps, loss, ahead }) {
    const words = step ? `Step ${step} of ${steps}` : place(ahead);
    if (words !== this.#words) say(words);
    this.words.textContent = this.#words = words;
    this.bar.max = Math.max(1, steps);
    if (step) this.bar.value = step;
    this.curve.replaceChildren(loss.length ? lossCurve(loss, steps) : "");
  }

  stop() {
    clearInterval(this.timer);
    this.element.remove();
  }

  #tick() {
    const seconds = Math.round((Date.now() - this.began) / 1000);
    this.time.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
}

function place(ahead) {
  if (ahead === null || ahead === undefined) return "A worker has begun";
  if (!ahead) return "Waiting for a worker"; // not "next": another tenant may have the turn
  const number = ahead === 1 ? "One waiting episode" : `${ahead.toLocaleString()} waiting episodes`;
  return `${number} arrived before it; tenants take turns`;
}
