// Classifies a drawing while it is drawn, the camera's picture, or many image files at once.

import { correct, predict, Refused } from "./api.js";
import { Bars, confusion } from "./charts.js";
import { h, percent, picture, say, showError } from "./dom.js";
import { ACCEPTED, chosen, dropTarget, onlyByTheService, pasted, sorted } from "./files.js";
import { Live } from "./live.js";
import { Pad } from "./pad.js";
import { Intention, whileDisabled } from "./sending.js";
import { Source } from "./source.js";

const INVITATIONS = { pad: "Draw one of the symbols again.", camera: "Show it to the camera.", none: "Choose, paste or drop a photo." };
// The camera's answers are announced when they change, so often at most.
const ANNOUNCED_MS = 2000;
// After which the camera's picture is asked about again when the service could not be reached.
const UNREACHED_MS = 2000;
// In the menu of what an image is; no class has an empty name.
const [NOTHING, NEW] = ["", "\n"];

export class Ask {
  #announced = { words: null, at: -Infinity };
  #intention = new Intention();

  /** `queries` are classified at once; `photos`: whether the task is photos; `corrected` is called with the new episode after
   * an image was added. */
  constructor(episode, { queries, photos }, corrected) {
    this.episode = episode;
    this.corrected = corrected;
    this.queries = [];
    this.live = new Live({
      ask: async (signal) => (await predict(episode.id, [await this.#image()], { signal, delayed: () => this.#show(null) }))[0],
      answered: (prediction, up) => this.#answered(prediction, up),
      failed: (error) => {
        this.#show(null);
        showError(this.error, error);
        if (!(error instanceof Refused)) setTimeout(() => this.#watch(), UNREACHED_MS);
      },
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
    this.newClass = h("button", { type: "button", onclick: () => {
      this.what.value = NEW;
      this.what.dispatchEvent(new Event("change"));
    } }, "Make it a new class");
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
    const files = h("input", { type: "file", multiple: true, id: "query-files", class: "unseen", accept: `${ACCEPTED},.zip`, onchange: () => {
      const found = chosen(files);
      files.value = "";
      this.#read(found);
    } });
    return h("section", { class: "card", "aria-labelledby": "ask" },
      h("h2", { id: "ask" }, "Ask"),
      h("div", { class: "two" },
        h("div", { class: "draw" }, this.source.element, h("div", { class: "row" }, h("label", { class: "button", for: "query-files" }, "Images…"), files)),
        h("div", { class: "answer" }, this.verdict, this.newClass, this.bars.element, this.error, this.teach)),
      this.progress, this.manyTold, this.manyError, this.many);
  }

  /** The controls that add the image to its class, an old one or a new one, and create a new episode. */
  #teaching() {
    const name = h("input", { maxlength: 200, "aria-label": "Name of the new class", placeholder: "Its name", hidden: true, oninput: () => choose() });
    const menu = (this.what = h("select", { "aria-label": "What it is", onchange: () => {
      choose();
      if (menu.value === NEW) name.focus();
    } },
      h("option", { value: NOTHING }, "It is…"), this.episode.classes.map((each) => h("option", { value: each }, each)), h("option", { value: NEW }, "A new class…")));
    const label = () => (menu.value === NEW ? name.value.trim() : menu.value);
    const add = h("button", { type: "button", disabled: true, onclick: () => whileDisabled(add, async () => {
      const image = await this.#image();
      // The same drawing is the same intention, but another picture of the camera is not.
      await this.#correct([label(), this.source.mode === "camera" ? image : this.pad.version], label(), [image], this.error);
    }) }, "Add it and adapt again");
    const choose = () => {
      name.hidden = menu.value !== NEW;
      add.disabled = !label();
    };
    return h("div", { class: "row teach", hidden: true }, h("span", { class: "quiet" }, "Teach it this one:"), menu, name, add);
  }

  /** Adds images to a class and creates a new episode. `of`: what makes up this intention. */
  async #correct(of, label, files, place) {
    const form = new FormData();
    for (const file of files) {
      form.append("images", file, file.name || "drawing.png");
      form.append("labels", label);
    }
    showError(place, null);
    try {
      this.corrected(await this.#intention.send(of, (key) => correct(this.episode.id, form, key)), this.queries);
    } catch (error) {
      showError(place, error);
    }
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
    this.newClass.hidden = prediction?.known !== false;
    this.bars.list.classList.toggle("unknown", prediction?.known === false);
    this.verdict.classList.toggle("quiet", !prediction);
    this.verdict.classList.toggle("unknown", prediction?.known === false);
    if (!prediction) this.verdict.textContent = INVITATIONS[this.source.mode];
    else this.verdict.textContent = prediction.known === false ? noneOfThese(prediction) : prediction.label;
  }

  // ------------------------------------------------------------------ many files

  async #read(files) {
    const reading = (done, count) => (this.progress.textContent = done < count ? `Read ${done} of ${count} images.` : "");
    this.#take(await sorted(files, { reading }));
  }

  #take({ archives: [archive], loose, labelled, unlabelled, told }) {
    const notes = told(true);
    this.manyTold.replaceChildren(notes.length ? h("ul", { class: "notice" }, notes.map((words) => h("li", {}, words))) : "");
    const known = new Set(this.episode.classes);
    if ([...loose, ...labelled, ...unlabelled].some(({ photo }) => photo)) this.source.photos = true;
    const queries = [
      ...[...loose, ...unlabelled].map((image) => ({ ...image, truth: null })),
      ...labelled.map(({ label, ...image }) => ({ ...image, truth: known.has(label) ? label : null })),
    ];
    showError(this.manyError, archive && new Error(onlyByTheService(archive)));
    this.#askMany(queries);
  }

  /** Asks about images; a bad one is marked and the others are asked about again, and unanswered ones stay. */
  async #askMany(queries) {
    if (!queries.length) return;
    const asked = queries.map(({ file, truth, drawn }) => ({ file, truth, drawn, asking: true }));
    this.queries = [...asked, ...this.queries.filter((query) => !queries.includes(query))];
    this.#showMany();
    for (let open = asked; open.length; open = asked.filter(isUnanswered)) {
      try {
        const predictions = await predict(this.episode.id, open.map(({ file }) => file));
        open.forEach((query, at) => Object.assign(query, predictions[at]));
      } catch (error) {
        const bad = open[/^images\[(\d+)\]/.exec(error.problem?.image)?.[1]];
        if (!bad) {
          showError(this.manyError, error);
          break;
        }
        bad.error = error.message;
      }
    }
    for (const query of asked) query.asking = false;
    this.#showMany();
    say(`${asked.filter(({ label }) => label !== undefined).length} images classified`);
  }

  #showMany() {
    const known = this.queries.filter(({ truth, label }) => truth !== null && label !== undefined);
    const open = this.queries.filter((query) => isUnanswered(query) && !query.asking);
    this.many.replaceChildren(
      h("div", { class: "row between" }, h("h3", {}, `${this.queries.length} images`),
        h("div", { class: "row" },
          open.length ? h("button", { type: "button", onclick: ({ target }) => whileDisabled(target, () => {
            showError(this.manyError, null);
            return this.#askMany(open);
          }) }, `Retry ${open.length} not answered`) : null,
          h("button", { type: "button", onclick: () => this.#forget() }, "Clear the images"))),
      h("ul", { class: "grid" }, this.queries.map(result)),
      this.queries.some(isStrange) ? this.#newClassOfMany() : "",
      ...(known.length ? [confusion(this.episode.classes, known)] : []));
  }

  /** The controls that make the ticked images, which are probably none of the classes, a new class. */
  #newClassOfMany() {
    const name = h("input", { maxlength: 200, "aria-label": "Name of the new class for the ticked images", placeholder: "Its name", required: true });
    const wrong = h("div");
    return h("form", { class: "row teach", onsubmit: (event) => {
      event.preventDefault();
      const boxes = [...this.many.querySelectorAll(".grid input")];
      const files = this.queries.filter(isStrange).filter((_, at) => boxes[at].checked).map(({ file }) => file);
      if (!files.length) return showError(wrong, new Error("Tick the images of the new class."));
      const label = name.value.trim();
      whileDisabled(event.submitter, () => this.#correct([label, ...files], label, files, wrong));
    } }, h("span", { class: "quiet" }, "Make the ticked images a new class:"), name, h("button", {}, "Add them and adapt again"), wrong);
  }

  #forget() {
    this.queries = [];
    this.many.replaceChildren();
    this.source.focus();
  }
}

const noneOfThese = ({ label }) => `None of these? Looks most like ${label}.`;

/** Whether there is no answer yet, and may still be one. */
const isUnanswered = ({ label, error }) => label === undefined && !error;
const isStrange = ({ known }) => known === false;

function result(query) {
  const { file, drawn, truth, label, probability, known, error } = query;
  const shown = picture(file, file.name, { drawn });
  if (label === undefined) return h("li", { class: error ? "wrong" : "strange" }, shown, ...unanswered(query));
  const verdict = truth === null ? null : truth === label ? "right" : "wrong";
  const mark = { right: "✓ ", wrong: "✗ " }[verdict] ?? "";
  const is = verdict === "wrong" ? h("span", { class: "quiet" }, `is ${truth}`) : null;
  if (known !== false) return h("li", { class: verdict }, shown, h("strong", {}, mark + label), h("span", { class: "quiet" }, percent(probability)), is);
  return h("li", { class: verdict ?? "strange" }, shown, h("span", {}, "None of these?"), h("span", { class: "quiet" }, "Looks most like ", h("strong", {}, mark + label)), is,
    h("label", { class: "tick" }, h("input", { type: "checkbox", "aria-label": `${file.name}: of a new class` }), "new class"));
}

function unanswered({ asking, error }) {
  if (error) return [h("strong", {}, "No answer"), h("span", {}, error)];
  return [asking ? h("span", { class: "quiet" }, "Asking…") : h("strong", {}, "Not answered")];
}
