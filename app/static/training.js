// Training runs: starting, following, cancelling and resuming them.

import * as api from "./api.js";
import { runCurve } from "./charts.js";
import { duration, h, percent, say, showError, time } from "./dom.js";
import { Intention, whileDisabled } from "./sending.js";

const ENDS = ["finished", "failed", "cancelled"];

/** The form that starts a run; `started` is called with it. */
export function starting(started) {
  const wrong = h("div");
  const intention = new Intention();
  const field = (name, label, value, more = {}) => {
    const input = h("input", { id: `train-${name}`, name, value, ...more });
    return h("div", { class: "field" }, h("label", { for: input.id }, label), input);
  };
  const number = { type: "number", min: 1, inputmode: "numeric" };
  const preset = h("select", { id: "train-preset", name: "preset" });
  api.presets().then((names) => preset.append(...names.map((name) => h("option", {}, name))), (error) => showError(wrong, error));
  const form = h("form", { class: "start", oninput: () => showError(wrong, null), onsubmit: async (event) => {
    event.preventDefault();
    showError(wrong, null);
    const given = Object.fromEntries(new FormData(form));
    const options = { dataset: given.dataset.trim(), preset: given.preset };
    for (const name of ["meta_epochs", "ways", "shots"]) if (given[name]) options[name] = Number(given[name]);
    await whileDisabled(event.submitter, async () => {
      try {
        started(await intention.send([JSON.stringify(options)], (key) => api.train(options, key)));
      } catch (error) {
        showError(wrong, error);
      }
    });
  } },
    field("dataset", "Data set", "", { required: true, spellcheck: "false", "aria-describedby": "train-hint" }),
    h("div", { class: "field" }, h("label", { for: "train-preset" }, "Preset"), preset),
    field("meta_epochs", "Meta-epochs", "", { ...number, placeholder: "preset" }),
    field("ways", "Classes", "", { ...number, min: 2, placeholder: "preset" }),
    field("shots", "Images each", "", { ...number, placeholder: "preset" }),
    h("button", { class: "primary" }, "Start training"));
  return h("div", { class: "stack" }, form,
    h("p", { class: "quiet", id: "train-hint" }, "A data set is a folder in the data directory's ", h("code", {}, "datasets/"), ", with one folder of images for each class. Folders named train, val and test are the splits."), wrong);
}

/** A list of runs, newest first; `ended` is called with each that ends while it is shown. */
export class Runs {
  #shown = new Map();
  #acts = 0;

  constructor(ended) {
    this.ended = ended;
    this.none = h("p", { class: "quiet" }, "No run yet.");
    this.element = h("div", { class: "stack" });
  }

  /** Shows the newest runs as they are now. */
  async refresh(limit) {
    const acts = this.#acts;
    const { trainings } = await api.trainings(limit);
    if (acts !== this.#acts) return;  // older than what the user has done meanwhile
    for (const run of trainings.toReversed()) this.#show(run);
    if (!this.#shown.size) this.element.replaceChildren(this.none);
  }

  /** Shows one that was just started. */
  add(run) {
    this.#acts += 1;
    this.#show(run).focus();
  }

  #show(run) {
    this.none.remove();
    const shown = this.#shown.get(run.id) ?? this.#create(run.id);
    const { state: before } = shown.run ?? run;
    shown.run = run;
    draw(shown);
    if (!ENDS.includes(before) && ENDS.includes(run.state)) {
      say(`Training ${run.state}`);
      this.ended(run);
    }
    return shown.place;
  }

  #create(id) {
    const error = h("div");
    const act = (label, request) => h("button", { type: "button", "aria-label": `${label} run ${id}`, onclick: ({ target }) => whileDisabled(target, async () => {
      showError(error, null);
      try {
        const run = await request(id);
        this.#acts += 1;
        this.#show(run).focus();
      } catch (refused) {
        showError(error, refused);
      }
    }) }, label);
    const shown = { error, run: null, title: h("h3"), facts: h("p", { class: "quiet" }), more: h("div", { class: "stack" }), cancel: act("Cancel", api.cancelTraining), resume: act("Resume", api.resumeTraining) };
    shown.place = h("section", { class: "run", "aria-label": `Run ${id}`, tabindex: -1 },
      h("div", { class: "row between" }, shown.title, h("div", { class: "row" }, shown.cancel, shown.resume)), shown.facts, error, shown.more);
    this.#shown.set(id, shown);
    this.element.prepend(shown.place);
    return shown;
  }
}

/** Shows the run in its place. The buttons stay the same ones: the focus, or a click in progress, may be on them. */
function draw({ place, run, title, facts, more, cancel, resume }) {
  const known = JSON.stringify(run);
  if (place.dataset.known === known) return;
  place.dataset.known = known;
  title.replaceChildren(run.dataset, " ", h("span", { class: `state ${run.state}` }, run.cancelling ? "stopping" : run.state));
  facts.textContent = summary(run);
  more.replaceChildren(
    run.warnings.length ? h("ul", { class: "notice" }, run.warnings.map((words) => h("li", {}, words))) : "",
    run.error ? h("p", { class: "error" }, run.error) : "",
    run.losses.length ? runCurve(run) : "");
  for (const [button, shown] of [[cancel, !ENDS.includes(run.state)], [resume, run.state === "failed" || run.state === "cancelled"]]) {
    if (!shown && button === document.activeElement) place.focus();
    button.hidden = !shown;
  }
}

function summary(run) {
  const { meta_epochs: epochs, ways, shots, preset } = run.options;
  const requested = [preset, epochs && `${epochs} meta-epochs`, ways && `${ways}-way`, shots && `${shots}-shot`].filter(Boolean).join(", ");
  const running = run.state === "running";
  const facts = [
    phase(run),
    run.validation_accuracy === null ? null : `validation ${percent(run.validation_accuracy)}`,
    run.seconds === null ? null : `${duration(run.seconds)} of training`,
    running && run.eta_seconds !== null ? `about ${duration(run.eta_seconds)} left` : null,
    run.model_version ? `model ${run.model_version}` : null,
  ].filter(Boolean);
  return [requested, ...facts, `created ${time(run.created_at)}`].join(" · ");
}

/** How far it is, in the epochs of its phase: those of the warm-up are not counted as meta-epochs. */
function phase({ state, epoch, epochs, warm_up_epochs: warmUp }) {
  if (!epochs) return state === "running" ? "reading the data set" : null;
  if (epoch < warmUp) return `warm-up, epoch ${epoch} of ${warmUp}`;
  return `meta-epoch ${epoch - warmUp} of ${epochs - warmUp}`;
}
