// Classifies a drawing while it is drawn, the camera's picture, or many image files at once.

import { correct, newKey, predict } from "./api.js";
import { Bars, confusion } from "./charts.js";
import { h, percent, picture, say, showError } from "./dom.js";
import { ACCEPTED, chosen, dropTarget, pasted, sorted } from "./files.js";
import { Live } from "./live.js";
import { Pad } from "./pad.js";
import { Source } from "./source.js";

const INVITATIONS = { pad: "Draw one of the symbols again.", camera: "Show it to the camera.", none: "Choose, paste or drop a photo." };
// The camera's answers are announced when they change, so often at most.
const ANNOUNCED_MS = 2000;

export class Ask {
  #announced = { words: null, at: -Infinity };

  /** `queries` are classified at once; `photos`: whether the task is photos; `corrected` is called with the new episode after
   * an image was added. */
  constructor(episode, { queries, photos }, corrected) {
    this.episode = episode;
    this.corrected = corrected;
    this.queries = [];
    this.live = new Live({
      ask: async (signal) => (await predict(episode.id, [await this.#image()], signal))[0],
      answered: (prediction, up) => this.#answered(prediction, up),
      failed: (error) => showError(this.error, error),
    });
    this.pad = new Pad({ label: "Query pad", changed: (up) => this.#drawn(up) });
    this.source = new Source({
      pad: this.pad, label: "Camera", changed: () => this.#showSource(), shooting: null,
      drawing: h("div", { class: "row" },
        h("button", { type: "button", onclick: () => this.pad.clear() }, "Clear"),
        h("button", { type: "button", onclick: () => this.pad.undo() }, "Undo stroke")),
    });
    this.bars = new Bars(episode.classes);
    this.verdict = h("p", { class: "verdict" });
    this.error = h("div");
    this.teach = this.#teaching();
    this.progress = h("div", { class: "quiet" });
    this.manyTold = h("div");
    this.manyError = h("div");
    this.many = h("div");
    this.element = this.#layout();
    dropTarget(this.element, (files) => this.#read(files));
    this.source.photos = photos;
    this.#show(null);
    const known = new Set(episode.classes);
    if (queries.length) this.#askMany(queries.map((query) => ({ ...query, truth: known.has(query.truth) ? query.truth : null })));
  }

  close() {
    this.live.stop();
    this.source.close();
  }

  key(event) {
    const typing = event.target.matches("input, textarea, select");
    if (!typing && event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) this.pad.undo();
  }

  paste(event) {
    const files = pasted(event);
    if (!files.length) return;
    event.preventDefault();
    this.#read(files);
  }

  #layout() {
    const files = h("input", { type: "file", multiple: true, id: "query-files", class: "unseen", accept: ACCEPTED, onchange: () => {
      const found = chosen(files);
      files.value = "";
      this.#read(found);
    } });
    return h("section", { class: "card", "aria-labelledby": "ask" },
      h("h2", { id: "ask" }, "Ask"),
      h("div", { class: "two" },
        h("div", { class: "draw" }, this.source.element, h("div", { class: "row" }, h("label", { class: "button", for: "query-files" }, "Images…"), files)),
        h("div", { class: "answer" }, this.verdict, this.bars.element, this.error, this.teach)),
      this.progress, this.manyTold, this.manyError, this.many);
  }

  /** The controls that add the image to its class and create a new episode. */
  #teaching() {
    const menu = h("select", { "aria-label": "What it is", onchange: () => (add.disabled = !menu.value) },
      h("option", { value: "" }, "It is…"), this.episode.classes.map((name) => h("option", { value: name }, name)));
    const add = h("button", { type: "button", disabled: true, onclick: async () => {
      add.disabled = true;
      const form = new FormData();
      try {
        const image = await this.#image();
        form.append("images", image, image.name || "drawing.png");
        form.append("labels", menu.value);
        this.corrected(await correct(this.episode.id, form, newKey()), this.queries);
      } catch (error) {
        add.disabled = false;
        showError(this.error, error);
      }
    } }, "Add it and adapt again");
    return h("div", { class: "row teach", hidden: true }, h("span", { class: "quiet" }, "Teach it this one:"), menu, add);
  }

  // ------------------------------------------------------------------ one image

  /** What is on the pad or before the camera. */
  #image() {
    return this.source.mode === "camera" ? this.source.viewfinder.shot("photo.jpg") : this.pad.file();
  }

  /** Lifting the pen asks at once. */
  #drawn(up) {
    if (this.pad.empty) {
      this.live.stop();
      this.#show(null);
    } else if (up) this.live.now();
    else this.live.soon();
  }

  #showSource() {
    this.live.stop();
    this.#show(null);
    showError(this.error, null);
    if (this.source.mode === "camera") this.#watch();
    else if (this.source.mode === "pad" && !this.pad.empty) this.live.now();
  }

  /** Asks about the camera's picture as long as there is one. */
  #watch() {
    if (this.source.mode === "camera" && this.source.viewfinder.live) this.live.soon();
  }

  #answered(prediction, up) {
    this.#show(prediction);
    showError(this.error, null);
    const words = prediction.known === false ? noneOfThese(prediction) : prediction.label;
    if (up) say(prediction.known === false ? words : `${words}, ${percent(prediction.probability)}`);
    if (this.source.mode !== "camera") return;
    this.#announce(words);
    this.#watch();
  }

  #announce(words) {
    const { words: before, at } = this.#announced;
    const now = performance.now();
    if (words === before || now - at < ANNOUNCED_MS) return;
    this.#announced = { words, at: now };
    say(words);
  }

  #show(prediction) {
    this.bars.show(prediction);
    this.teach.hidden = !prediction;
    this.verdict.classList.toggle("quiet", !prediction);
    this.verdict.classList.toggle("unknown", prediction?.known === false);
    if (!prediction) this.verdict.textContent = INVITATIONS[this.source.mode];
    else this.verdict.textContent = prediction.known === false ? noneOfThese(prediction) : prediction.label;
  }

  // ------------------------------------------------------------------ many files

  async #read(files) {
    this.#take(await sorted(files, (done, count) => (this.progress.textContent = done < count ? `Read ${done} of ${count} images.` : "")));
  }

  #take({ archive, loose, labelled, told }) {
    if (archive) return showError(this.manyError, new Error(`${archive.name}: choose or drop the images themselves, or a folder of them`));
    const notes = told(true);
    this.manyTold.replaceChildren(notes.length ? h("ul", { class: "notice" }, notes.map((words) => h("li", {}, words))) : "");
    const known = new Set(this.episode.classes);
    if ([...loose, ...labelled].some(({ photo }) => photo)) this.source.photos = true;
    this.#askMany([
      ...loose.map((image) => ({ ...image, truth: null })),
      ...labelled.map(({ label, ...image }) => ({ ...image, truth: known.has(label) ? label : null })),
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
    this.source.focus();
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
