// Making a task: classes with drawings and files, until it is sent to be adapted to.

import * as api from "./api.js";
import { h, picture, say, showError } from "./dom.js";
import { chosen, dropTarget, fromBase64, sorted } from "./files.js";
import { Pad } from "./pad.js";
import * as tasks from "./task.js";

/** The page at #/; `history` holds the task and outlives the page; `sent` is called with the episode and the task. */
export class Builder {
  #selected = null;

  constructor(history, sent) {
    this.history = history;
    this.sent = sent;
    this.pad = new Pad({ label: "Drawing pad", changed: () => this.#showActions(), done: () => this.#addDrawing() });
    this.add = h("button", { type: "button", class: "primary", onclick: () => this.#addDrawing() });
    this.clear = h("button", { type: "button", onclick: () => this.pad.clear() }, "Clear");
    this.back = h("button", { type: "button", onclick: () => this.pad.undo() }, "Undo stroke");
    this.undo = h("button", { type: "button", onclick: () => this.#undo() }, "Undo");
    this.list = h("div", { class: "classes" });
    this.error = h("div");
    this.adapt = h("button", { type: "button", class: "primary large", onclick: () => this.#send() }, "Adapt");
    this.hint = h("p", { class: "quiet", id: "hint" });
    this.recent = h("div");
    this.element = this.#layout();
    dropTarget(this.element, (files) => this.#take(files));
    this.#render();
    this.#showRecent();
  }

  /** Keys that count wherever the focus is. */
  key(event) {
    const typing = event.target.matches("input, textarea, select");
    if (!typing && event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#undo();
    }
  }

  #layout() {
    const files = h("input", { type: "file", multiple: true, id: "files", class: "unseen", accept: "image/*,.zip", onchange: () => this.#choose(files) });
    const folder = h("input", { type: "file", webkitdirectory: true, id: "folder", class: "unseen", onchange: () => this.#choose(folder) });
    return h("div", { class: "page" },
      h("div", { class: "lead" },
        h("h1", {}, "Show it a few. Ask about the next."),
        h("p", {}, "Draw two or more symbols, or drop images. The network adapts its weights and its own architecture to your task in seconds.")),
      h("div", { class: "two" },
        h("section", { class: "card draw", "aria-labelledby": "draw-title" },
          h("h2", { id: "draw-title" }, "Draw"), this.pad.canvas,
          h("div", { class: "row" }, this.add, this.back, this.clear)),
        h("section", { class: "card", "aria-labelledby": "task-title" },
          h("div", { class: "row between" }, h("h2", { id: "task-title" }, "Your task"), h("div", { class: "row" }, this.undo,
            h("button", { type: "button", onclick: () => this.#change(tasks.emptyTask()) }, "Start over"))),
          this.list,
          h("div", { class: "row sources" },
            h("label", { class: "button", for: "files" }, "Images or a zip…"), files,
            h("label", { class: "button", for: "folder" }, "A folder of classes…"), folder,
            this.#exampleMenu()),
          h("p", { class: "quiet" }, "Or drop them anywhere. Folders, in a zip too, name the classes."),
          this.error,
          h("div", { class: "row send" }, this.adapt, this.hint))),
      this.recent);
  }

  #exampleMenu() {
    const menu = h("select", { "aria-label": "Load an example task", onchange: () => this.#loadExample(menu) },
      h("option", { value: "" }, "Load an example…"));
    api.examples().then(({ examples }) => {
      this.examples = examples;
      menu.append(...examples.map(({ title }, at) => h("option", { value: at }, title)));
    }, (error) => showError(this.error, error));
    return menu;
  }

  #loadExample(menu) {
    const example = this.examples[menu.value];
    if (!example) return;
    const labelled = example.support.map(({ label, image }, at) => ({ label, file: fromBase64(image, `${label} ${at + 1}.png`), drawn: true }));
    const queries = example.queries.map(({ label, image }, at) => ({ truth: label, drawn: true, file: fromBase64(image, `query ${at + 1}.png`) }));
    const task = tasks.addLabelled({ ...tasks.emptyTask(), classes: [] }, labelled);
    this.#change({ ...task, name: example.title, queries });
    menu.value = "";
    say(`${example.title}: loaded`);
  }

  // ------------------------------------------------------------------ changes

  #change(task) {
    this.history.do(task);
    showError(this.error, null);
    this.#render();
  }

  #undo() {
    this.history.undo();
    this.#render();
    say("Undone");
  }

  async #addDrawing() {
    if (this.pad.empty) return;
    const to = this.#selectedClass();
    if (!to) return;
    const file = await this.pad.file();
    this.#change(tasks.addImages(this.history.now, to.id, [{ file, drawn: true }]));
    this.pad.clear();
    say(`Added to ${to.name}, which now has ${to.images.length + 1}`);
  }

  #choose(input) {
    this.#take(sorted(chosen(input)));
    input.value = "";
  }

  #take({ archive, loose, labelled }, classId = null) {
    if (archive) return this.#change({ ...this.history.now, archive, queries: [], name: null });
    let task = { ...this.history.now, archive: null };
    if (labelled.length) task = tasks.addLabelled(task, labelled);
    const to = classId ?? this.#selectedClass()?.id;
    if (loose.length && to) task = tasks.addImages(task, to, loose.map((file) => ({ file, drawn: false })));
    if (loose.length || labelled.length) this.#change(task);
  }

  async #send() {
    const task = this.history.now;
    const lack = tasks.missing(task);
    if (lack) return showError(this.error, new Error(lack));
    // The same task sent again after a lost answer is the same episode; a changed one is another.
    if (this.sending?.task !== task) this.sending = { task, key: crypto.randomUUID?.() ?? String(Math.random()) };
    this.adapt.disabled = true;
    showError(this.error, null);
    try {
      const episode = await api.adapt(tasks.form(task), this.sending.key);
      this.sending = null;
      this.sent(episode, task);
    } catch (error) {
      showError(this.error, error);
    } finally {
      this.adapt.disabled = false;
    }
  }

  // ------------------------------------------------------------------ what is seen

  #selectedClass() {
    const { classes, archive } = this.history.now;
    return archive ? null : (classes.find((each) => each.id === this.#selected) ?? classes[0] ?? null);
  }

  #render() {
    const { archive, classes } = this.history.now;
    const focused = document.activeElement?.id;
    this.list.replaceChildren(...(archive ? [this.#archive(archive)] : classes.map((each, at) => this.#class(each, at))));
    if (!archive) {
      this.list.append(h("button", { type: "button", id: "add-class", class: "add", onclick: () => this.#addClass() }, "+ Add a class"));
    }
    if (focused && document.activeElement?.id !== focused) this.#focusAgain(focused);
    this.undo.disabled = !this.history.canUndo;
    const lack = tasks.missing(this.history.now);
    this.hint.textContent = lack ?? (archive ? "Ready to send." : `${tasks.imageCount(this.history.now)} images, ready to send.`);
    this.#showActions();
  }

  /** What had the focus is another element now, or gone; then the nearest that is left gets it. */
  #focusAgain(id) {
    const left = [id, `${id.split("-")[0]}-here`, "add-class"].map((each) => document.getElementById(each));
    left.find((element) => element && !element.disabled)?.focus();
  }

  #showActions() {
    const to = this.#selectedClass();
    this.add.textContent = to ? `Add to ${to.name}` : "Add";
    this.add.disabled = this.pad.empty || !to;
    this.back.disabled = this.clear.disabled = this.pad.empty;
  }

  #archive(archive) {
    return h("div", { class: "class" }, h("div", { class: "row between" },
      h("p", {}, h("strong", {}, archive.name), h("br"), h("span", { class: "quiet" }, `${Math.ceil(archive.size / 1024)} KB; its folders are the classes`)),
      h("button", { type: "button", onclick: () => this.#change({ ...this.history.now, archive: null }) }, "Remove")));
  }

  #addClass() {
    const task = tasks.addClass(this.history.now);
    this.#selected = task.classes.at(-1).id;
    this.#change(task);
    document.getElementById(`${this.#selected}-name`).select();
  }

  #class(each, at) {
    const { id, name, images } = each;
    const last = this.history.now.classes.length - 1;
    const selected = id === this.#selectedClass()?.id;
    const step = (by) => this.#change(tasks.move(this.history.now, id, by));
    const input = h("input", { id: `${id}-name`, class: "name", value: name, maxlength: 200, "aria-label": "Name of the class", onchange: () => this.#change(tasks.rename(this.history.now, id, input.value)) });
    const tool = (what, sign, label, disabled, act) =>
      h("button", { type: "button", class: "icon", id: `${id}-${what}`, title: label, "aria-label": `${label}: ${name}`, disabled, onclick: act }, sign);
    const element = h("div", { class: selected ? "class selected" : "class", role: "group", "aria-label": name, "data-class": id, onclick: (event) => (event.target.closest("button") ? null : this.#select(id)) },
      h("div", { class: "row between" }, input, h("div", { class: "row tight" },
        h("button", { type: "button", class: "chip", id: `${id}-here`, "aria-pressed": String(selected), "aria-label": `Draw ${name}`, onclick: () => this.#draw(id) }, selected ? "Drawing" : "Draw"),
        tool("up", "↑", "Move up", at === 0, () => step(-1)), tool("down", "↓", "Move down", at === last, () => step(1)),
        tool("delete", "×", "Delete class", false, () => this.#change(tasks.removeClass(this.history.now, id))))),
      h("div", { class: "thumbs" }, images.length ? images.map((image, number) => this.#thumb(each, image, number)) : h("p", { class: "quiet" }, selected ? "Draw it on the pad, or drop images here." : "No images yet.")));
    dropTarget(element, (files) => this.#take(files, id));
    return element;
  }

  #thumb({ id, name }, { file, drawn }, number) {
    const label = `${name}, image ${number + 1}`;
    return h("button", { type: "button", class: "thumb", id: `${id}-image-${number}`, "aria-label": `Remove ${label}`, title: "Remove", onclick: () => this.#change(tasks.removeImage(this.history.now, id, number)) }, picture(file, label, { drawn }));
  }

  #draw(id) {
    this.#select(id);
    this.pad.canvas.focus();
  }

  /** Marks in place what changes: a click that is under way must still find its button. */
  #select(id) {
    this.#selected = id;
    for (const element of this.list.querySelectorAll("[data-class]")) {
      const selected = element.dataset.class === id;
      element.classList.toggle("selected", selected);
      const chip = element.querySelector(".chip");
      chip.setAttribute("aria-pressed", String(selected));
      chip.textContent = selected ? "Drawing" : "Draw";
    }
    this.#showActions();
  }

  async #showRecent() {
    const { episodes } = await api.episodes(5).catch(() => ({ episodes: [] }));
    if (!episodes.length) return;
    this.recent.replaceChildren(h("section", { class: "recent", "aria-labelledby": "recent-title" },
      h("h2", { id: "recent-title" }, "Recent episodes"),
      h("ul", {}, episodes.map((each) => h("li", {},
        h("a", { href: `#/episodes/${each.id}` }, each.name ?? each.classes.join(", ")),
        h("span", { class: "quiet" }, ` ${each.state}, ${new Date(each.created_at).toLocaleString()}`))))));
  }
}
