// The operator's view: training runs, model versions, queues and workers.

import * as api from "./api.js";
import { h, percent, redraw, say, showError, time } from "./dom.js";
import { whileDisabled } from "./sending.js";
import { Runs, starting } from "./training.js";

const EVERY_MS = 2000;
const RUNS = 10;

/** The page at #/operate, for admin tokens. It asks again and again, and keeps no stream open: browsers allow six
 * connections to a service, of all tabs together, and each unfinished run would need one. */
export class Operate {
  #closed = false;

  constructor() {
    this.queues = section("Queues and workers", "queues", "Queues");
    this.models = section("Model versions", "models", "Versions");
    this.training = section("Training", "training");
    this.runs = new Runs((run) => run.model_version && this.#showModels());
    this.training.body.append(starting((run) => this.runs.add(run)), this.runs.element);
    this.element = h("div", { class: "page" },
      h("div", { class: "row between top" }, h("h1", {}, "Operate"), h("a", { class: "button", href: "#/" }, "← The task")),
      this.queues.element, this.models.element, this.training.element);
    this.#showModels();
    this.#watch();
  }

  close() {
    this.#closed = true;
  }

  async #watch() {
    for (;;) {
      if (!document.hidden) await Promise.all([this.#showQueues(), this.#showRuns()]);
      if (this.#closed) return;
      await new Promise((done) => setTimeout(done, EVERY_MS));
      if (this.#closed) return;
    }
  }

  #showQueues() {
    return shown(this.queues, async () => redraw(this.queues.region, queueTable((await api.queues()).queues)));
  }

  #showRuns() {
    return shown(this.training, () => this.runs.refresh(RUNS));
  }

  #showModels() {
    return shown(this.models, async () => redraw(this.models.region, this.#modelTable((await api.models()).models)));
  }

  #modelTable(models) {
    // The list is newest first.
    const older = (model, at) => at > models.findIndex(({ active, kind }) => active && kind === model.kind);
    return h("table", {},
      h("caption", {}, "New episodes use the active version for their kind of images; existing ones keep theirs."),
      h("thead", {}, h("tr", {}, ["Version", "For", "Created", "Trained on", "Accuracy", ""].map((name) => h(name ? "th" : "td", name ? { scope: "col" } : {}, name)))),
      h("tbody", {}, models.map((model, at) => h("tr", { class: model.active ? "active" : null },
        h("td", {}, h("code", {}, model.version)), h("td", {}, model.kind), h("td", { class: "whole" }, time(model.created_at)),
        h("td", {}, trainedOn(model.card)), h("td", { class: "whole" }, accuracies(model.card.metrics)),
        h("td", {}, model.active ? h("strong", {}, "active")
          : h("button", { type: "button", id: `activate-${model.version}`, "aria-label": `${older(model, at) ? "Roll back to" : "Activate"} ${model.version}`, onclick: ({ target }) => whileDisabled(target, () => this.#activate(model.version)) }, older(model, at) ? "Roll back" : "Activate"))))));
  }

  async #activate(version) {
    try {
      await api.activate(version);
      say(`${version} is active`);
      await this.#showModels();
      this.models.region.querySelector("button")?.focus();
    } catch (error) {
      showError(this.models.error, error);
    }
  }
}

/** A part of the page; `table`: the name of the region that scrolls its table. */
function section(name, id, table) {
  const [body, error] = [h("div", { class: "stack" }), h("div")];
  const region = table && h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table });
  if (region) body.append(region);
  const element = h("section", { class: "card", "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, name), error, body);
  return { element, body, error, region };
}

/** Does `work`; its error is shown in the section until it succeeds again. */
async function shown({ error }, work) {
  try {
    await work();
    showError(error, null);
  } catch (refused) {
    showError(error, refused);
  }
}

function queueTable(queues) {
  return h("table", {},
    h("thead", {}, h("tr", {}, ["Queue", "Waiting", "Running", "Workers"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, queues.map((queue) => h("tr", {}, h("th", { scope: "row" }, queue.name), h("td", {}, String(queue.waiting)), h("td", {}, String(queue.running)), h("td", {}, workersOf(queue))))));
}

function workersOf({ workers, starting: count }) {
  const told = workers.map(({ name, device, started_at }) => h("div", {}, h("code", {}, name), ` on ${device} since ${time(started_at)}`));
  if (count) told.push(h("div", { class: "quiet" }, count === 1 ? "one is starting" : `${count} are starting`));
  return told.length ? told : h("span", { class: "wrong" }, "none");
}

function trainedOn({ data, training }) {
  const classes = data?.train?.classes;
  return [training?.preset, classes && `${classes.toLocaleString()} classes`, data?.source ?? data?.name].filter(Boolean).join(", ");
}

/** The accuracies in a card, each with the task that it was measured on. */
function accuracies(metrics) {
  const rows = (metrics?.test ?? []).map(({ command = "", accuracy }) => {
    const [ways, shots] = ["ways", "shots"].map((name) => new RegExp(`--${name} (\\d+)`).exec(command)?.[1]);
    return h("div", {}, `${percent(accuracy)} test${ways ? `, ${ways}-way ${shots}-shot` : ""}`);
  });
  const validation = metrics?.validation_accuracy;
  if (typeof validation === "number") rows.push(h("div", {}, `${percent(validation)} validation`));
  return rows.length ? rows : "–";
}
