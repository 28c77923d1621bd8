// Classifies a drawing while it is drawn, or many image files at once.

import { correct, newKey, predict } from "./api.js";
import { Bars, confusion } from "./charts.js";
import { h, percent, picture, say, showError } from "./dom.js";
import { ACCEPTED, chosen, dropTarget, sorted } from "./files.js";
import { Pad } from "./pad.js";

export class Ask {
  #asking = null;
  #again = null;

  /** `queries` are classified at once; `corrected` is called with the new episode after a drawing was added. */
  constructor(episode, queries, corrected) {
    this.episode = episode;
    this.corrected = corrected;
    this.queries = [];
    this.pad = new Pad({ label: "Query pad", changed: (up) => this.#drawn(up) });
    this.bars = new Bars(episode.classes);
    this.verdict = h("p", { class: "verdict" });
    this.error = h("div");
    this.teach = this.#teaching();
    this.manyTold = h("div");
    this.manyError = h("div");
    this.many = h("div");
    this.element = this.#layout();
    dropTarget(this.element, (files) => this.#take(files));
    this.#show(null);
    const known = new Set(episode.classes);
    if (queries.length) this.#askMany(queries.map((query) => ({ ...query, truth: known.has(query.truth) ? query.truth : null })));
  }

  close() {
    this.#asking?.abort();
  }

  key(event) {
    const typing = event.target.matches("input, textarea, select");
    if (!typing && event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) this.pad.undo();
  }

  #layout() {
    const files = h("input", { type: "file", multiple: true, id: "query-files", class: "unseen", accept: ACCEPTED, onchange: async () => {
      const found = chosen(files);
      files.value = "";
      this.#take(await sorted(found));
    } });
    return h("section", { class: "card", "aria-labelledby": "ask" },
      h("h2", { id: "ask" }, "Ask"),
      h("div", { class: "two" },
        h("div", { class: "draw" }, this.pad.canvas, h("div", { class: "row" },
          h("button", { type: "button", onclick: () => this.pad.clear() }, "Clear"),
          h("button", { type: "button", onclick: () => this.pad.undo() }, "Undo stroke"),
          h("label", { class: "button", for: "query-files" }, "Images…"), files)),
        h("div", { class: "answer" }, this.verdict, this.bars.element, this.error, this.teach)),
      this.manyTold, this.manyError, this.many);
  }

  /** The controls that add the drawing to its class and create a new episode. */
  #teaching() {
    const menu = h("select", { "aria-label": "What the drawing is", onchange: () => (add.disabled = !menu.value) },
      h("option", { value: "" }, "It is…"), this.episode.classes.map((name) => h("option", { value: name }, name)));
    const add = h("button", { type: "button", disabled: true, onclick: async () => {
      add.disabled = true;
      const form = new FormData();
      form.append("images", await this.pad.file(), "drawing.png");
      form.append("labels", menu.value);
      try {
        this.corrected(await correct(this.episode.id, form, newKey()), this.queries);
      } catch (error) {
        add.disabled = false;
        showError(this.error, error);
      }
    } }, "Add it and adapt again");
    return h("div", { class: "row teach", hidden: true }, h("span", { class: "quiet" }, "Teach it this one:"), menu, add);
  }

  // ------------------------------------------------------------------ one drawing

  /** While drawing, there is one request at a time; lifting the pen replaces it, so that no older response is shown. */
  #drawn(up) {
    if (this.pad.empty) {
      this.#asking?.abort();
      this.#asking = this.#again = null;
      return this.#show(null);
    }
    if (!up && this.#asking) return void (this.#again = true);
    this.#askDrawing(up);
  }

  async #askDrawing(up) {
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    this.#again = null;
    try {
      const file = await this.pad.file();
      const [prediction] = await predict(this.episode.id, [file], asking.signal);
      if (this.#asking !== asking) return;
      this.#show(prediction);
      showError(this.error, null);
      if (up) say(prediction.known === false ? noneOfThese(prediction) : `${prediction.label}, ${percent(prediction.probability)}`);
    } catch (error) {
      if (error.name !== "AbortError" && this.#asking === asking) showError(this.error, error);
    } finally {
      if (this.#asking === asking) {
        this.#asking = null;
        if (this.#again) this.#askDrawing(false);
      }
    }
  }

  #show(prediction) {
    this.bars.show(prediction);
    this.teach.hidden = !prediction;
    this.verdict.classList.toggle("quiet", !prediction);
    this.verdict.classList.toggle("unknown", prediction?.known === false);
    if (!prediction) this.verdict.textContent = "Draw one of the symbols again.";
    else this.verdict.textContent = prediction.known === false ? noneOfThese(prediction) : prediction.label;
  }

  // ------------------------------------------------------------------ many files

  #take({ archive, loose, labelled, told }) {
    if (archive) return showError(this.manyError, new Error(`${archive.name}: choose or drop the images themselves, or a folder of them`));
    const notes = told(true);
    this.manyTold.replaceChildren(notes.length ? h("ul", { class: "notice" }, notes.map((words) => h("li", {}, words))) : "");
    const known = new Set(this.episode.classes);
    this.#askMany([
      ...loose.map((file) => ({ file, truth: null, drawn: false })),
      ...labelled.map(({ label, file }) => ({ file, truth: known.has(label) ? label : null, drawn: false })),
    ]);
  }

  async #askMany(queries) {
    if (!queries.length) return;
    showError(this.manyError, null);
    try {
      const predictions = await predict(this.episode.id, queries.map(({ file }) => file));
      const answered = queries.map((query, at) => ({ ...query, ...predictions[at] }));
      this.queries = [...answered, ...this.queries];
      this.#showMany();
      say(`${answered.length} images classified`);
    } catch (error) {
      showError(this.manyError, error);
    }
  }

  #showMany() {
    const known = this.queries.filter((query) => query.truth !== null);
    this.many.replaceChildren(
      h("div", { class: "row between" }, h("h3", {}, `${this.queries.length} images`),
        h("button", { type: "button", onclick: () => this.#forget() }, "Clear the images")),
      h("ul", { class: "grid" }, this.queries.map(result)),
      ...(known.length ? [confusion(this.episode.classes, known)] : []));
  }

  #forget() {
    this.queries = [];
    this.many.replaceChildren();
    this.pad.canvas.focus();
  }
}

const noneOfThese = ({ label }) => `None of these? It looks most like ${label}.`;

function result({ file, drawn, truth, label, probability, known }) {
  const verdict = truth === null ? null : truth === label ? "right" : "wrong";
  const mark = { right: "✓ ", wrong: "✗ " }[verdict] ?? "";
  return h("li", { class: verdict }, picture(file, file.name, { drawn }),
    h("strong", {}, mark + label), h("span", { class: "quiet" }, known === false ? "none of these?" : percent(probability)),
    verdict === "wrong" ? h("span", { class: "quiet" }, `is ${truth}`) : null);
}
