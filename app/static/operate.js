// The operator's view: training runs, model versions, queues and workers.

import * as api from "./api.js";
import { runCurve } from "./charts.js";
import { h, percent, say, showError } from "./dom.js";
import { follow } from "./events.js";
import { Intention, whileDisabled } from "./sending.js";

const QUEUES_MS = 2000;
const RUNS = 10;
const ENDS = ["finished", "failed", "cancelled"];

/** The page at #/operate, for admin tokens. */
export class Operate {
  #runs = new Map();
  #closed = false;

  constructor() {
    this.queues = section("Queues and workers", "queues");
    this.models = section("Model versions", "models");
    this.training = section("Training", "training");
    this.runs = h("div", { class: "stack" });
    this.training.body.append(this.#starting(), this.runs);
    this.element = h("div", { class: "page" },
      h("div", { class: "row between top" }, h("h1", {}, "Operate"), h("a", { class: "button", href: "#/" }, "← The task")),
      this.queues.element, this.models.element, this.training.element);
    this.#watchQueues();
    this.#showModels();
    this.#showRuns();
  }

  close() {
    this.#closed = true;
    for (const { stop } of this.#runs.values()) stop();
  }

  // ------------------------------------------------------------------ queues

  /** Polls every two seconds: there is no stream of this, and the page is seldom open. */
  async #watchQueues() {
    while (!this.#closed) {
      try {
        const { queues } = await api.queues();
        this.queues.body.replaceChildren(h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Queues" }, queueTable(queues)));
        showError(this.queues.error, null);
      } catch (error) {
        showError(this.queues.error, error);
      }
      await new Promise((done) => setTimeout(done, QUEUES_MS));
    }
  }

  // ------------------------------------------------------------------ models

  async #showModels() {
    try {
      const { models } = await api.models();
      this.models.body.replaceChildren(h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Versions" }, this.#modelTable(models)));
    } catch (error) {
      showError(this.models.error, error);
    }
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
          : h("button", { type: "button", "aria-label": `${older(model, at) ? "Roll back to" : "Activate"} ${model.version}`, onclick: ({ target }) => whileDisabled(target, () => this.#activate(model.version)) }, older(model, at) ? "Roll back" : "Activate"))))));
  }

  async #activate(version) {
    showError(this.models.error, null);
    try {
      await api.activate(version);
      say(`${version} is active`);
      await this.#showModels();
      this.models.element.querySelector("button")?.focus();
    } catch (error) {
      showError(this.models.error, error);
    }
  }

  // ------------------------------------------------------------------ training

  #starting() {
    const wrong = h("div");
    const intention = new Intention();
    const field = (name, label, value, more = {}) => {
      const input = h("input", { id: `train-${name}`, name, value, ...more });
      return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
    };
    const number = { type: "number", min: 1, inputmode: "numeric" };
    const preset = h("select", { id: "train-preset", name: "preset" });
    api.presets().then((names) => preset.append(...names.map((name) => h("option", {}, name))), (error) => showError(wrong, error));
    const form = h("form", { class: "start", onsubmit: async (event) => {
      event.preventDefault();
      showError(wrong, null);
      const given = Object.fromEntries(new FormData(form));
      const options = { dataset: given.dataset.trim(), preset: given.preset };
      for (const name of ["meta_epochs", "ways", "shots"]) if (given[name]) options[name] = Number(given[name]);
      await whileDisabled(event.submitter, async () => {
        try {
          this.#follow(await intention.send([JSON.stringify(options)], (key) => api.train(options, key)), true);
        } catch (error) {
          showError(wrong, error);
        }
      });
    } },
      field("dataset", "Data set", "", { required: true, spellcheck: "false", "aria-describedby": "train-hint" }),
      h("div", { class: "field" }, h("label", { for: "train-preset" }, "Preset"),
        preset),
      field("meta_epochs", "Meta-epochs", "", { ...number, placeholder: "preset" }),
      field("ways", "Classes", "", { ...number, min: 2, placeholder: "preset" }),
      field("shots", "Images each", "", { ...number, placeholder: "preset" }),
      h("button", { class: "primary" }, "Start training"));
    return h("div", { class: "stack" }, form,
      h("p", { class: "quiet", id: "train-hint" }, "A data set is a folder in the data directory's ", h("code", {}, "datasets/"), ", with one folder of images for each class. Folders named train, val and test are the splits."), wrong);
  }

  async #showRuns() {
    try {
      const { trainings } = await api.trainings(RUNS);
      for (const run of trainings.toReversed()) this.#follow(run, false);
      if (!trainings.length) this.runs.append(h("p", { class: "quiet none" }, "No run yet."));
    } catch (error) {
      showError(this.training.error, error);
    }
  }

  /** Shows a run above the others, and follows it. */
  #follow(run, focus) {
    if (this.#closed) return;  // closed while the request was sent
    this.#runs.get(run.id)?.stop();
    this.runs.querySelector(".none")?.remove();
    const kept = this.#runs.get(run.id);
    const place = kept?.place ?? h("section", { class: "run", "aria-label": `Run ${run.id}`, tabindex: -1 });
    if (!kept) this.runs.prepend(place);
    const entry = { place, stop: () => {} };
    this.#runs.set(run.id, entry);
    this.#showRun(place, run);
    if (focus) place.focus();
    if (ENDS.includes(run.state)) return;
    entry.stop = follow(api.trainingEvents(run.id), {
      ends: ENDS,
      read: () => api.training(run.id),
      progress: (now) => this.#showRun(place, now),
      finished: (now) => {
        this.#showRun(place, now);
        say(`Training ${now.state}`);
        if (now.model_version) this.#showModels();
      },
      lost: (error) => showError(this.training.error, error),
    });
  }

  #showRun(place, run) {
    const focused = place.contains(document.activeElement) && document.activeElement !== place;
    const act = (label, what) => h("button", { type: "button", "aria-label": `${label} run ${run.id}`, onclick: ({ target }) => whileDisabled(target, async () => {
      try {
        this.#follow(await what(run.id), true);
        showError(this.training.error, null);
      } catch (error) {
        showError(this.training.error, error);
      }
    }) }, label);
    const state = run.cancelling ? "stopping" : run.state;
    place.replaceChildren(
      h("div", { class: "row between" },
        h("h3", {}, run.dataset, " ", h("span", { class: `state ${run.state}` }, state)),
        h("div", { class: "row" },
          run.state === "queued" || run.state === "running" ? act("Cancel", api.cancelTraining) : null,
          run.state === "failed" || run.state === "cancelled" ? act("Resume", api.resumeTraining) : null)),
      h("p", { class: "quiet" }, summary(run)),
      run.warnings.length ? h("ul", { class: "notice" }, run.warnings.map((words) => h("li", {}, words))) : "",
      run.error ? h("p", { class: "error" }, run.error) : "",
      run.losses.length ? runCurve(run) : "");
    if (focused) (place.querySelector("button") ?? place).focus();
  }
}

function section(name, id) {
  const [body, error] = [h("div", { class: "stack" }), h("div")];
  const element = h("section", { class: "card", "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, name), error, body);
  return { element, body, error };
}

function queueTable(queues) {
  const workers = ({ workers: there }) => (there.length ? there.map(({ name, device, started_at }) => h("div", {}, h("code", {}, name), ` on ${device} since ${time(started_at)}`)) : h("span", { class: "wrong" }, "none"));
  return h("table", {},
    h("thead", {}, h("tr", {}, ["Queue", "Waiting", "Running", "Workers"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, queues.map((queue) => h("tr", {}, h("th", { scope: "row" }, queue.name), h("td", {}, String(queue.waiting)), h("td", {}, String(queue.running)), h("td", {}, workers(queue))))));
}

const time = (text) => new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

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

const duration = (seconds) => (seconds < 100 ? `${Math.ceil(seconds)} s` : seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`);

function summary(run) {
  const { meta_epochs: epochs, ways, shots, preset } = run.options;
  const requested = [preset, epochs && `${epochs} meta-epochs`, ways && `${ways}-way`, shots && `${shots}-shot`].filter(Boolean).join(", ");
  const facts = [
    run.epochs ? `epoch ${run.epoch} of ${run.epochs}` : null,
    run.validation_accuracy === null ? null : `validation ${percent(run.validation_accuracy)}`,
    run.state === "running" && run.eta_seconds !== null ? `about ${duration(run.eta_seconds)} left` : null,
    run.model_version ? `model ${run.model_version}` : null,
  ].filter(Boolean);
  return [requested, ...facts, `started ${time(run.created_at)}`].join(" · ");
}
