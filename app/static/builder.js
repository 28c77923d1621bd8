// Builds a task from classes with drawings and files, and sends it.

import * as api from "./api.js";
import { Classes } from "./classes.js";
import { h, say, showError } from "./dom.js";
import { ACCEPTED, chosen, dropTarget, fromBase64, sorted } from "./files.js";
import { natural } from "./layout.js";
import { Pad } from "./pad.js";
import * as tasks from "./task.js";

/** The page at #/ and, for correcting the episode `parent` whose images have these `labels`, at #/episodes/ID/correct.
 *
 * `history` contains the task and is kept when the page closes; `sent` is called with this page, the new episode and the task. */
export class Builder {
  #selected = null;
  #refused = null;

  constructor({ history, parent = null, labels = [], sent }) {
    Object.assign(this, { history, parent, labels, sent });
    this.pad = new Pad({ label: "Drawing pad", changed: () => this.#showActions(), done: () => this.#addDrawing() });
    this.add = h("button", { type: "button", class: "primary", onclick: () => this.#addDrawing() });
    this.clear = h("button", { type: "button", onclick: () => {
      this.pad.clear();
      this.pad.canvas.focus();
    } }, "Clear");
    this.back = h("button", { type: "button", onclick: () => this.pad.undo() }, "Undo stroke");
    this.undo = h("button", { type: "button", onclick: () => this.#undo() }, "Undo");
    this.list = h("div");
    this.classes = new Classes({
      change: (task) => this.#change(task),
      select: (id, draw) => this.#select(id, draw),
      take: (files, id) => this.#take(files, id),
    });
    this.told = h("div");
    this.error = h("div");
    this.adapt = h("button", { type: "button", class: "primary large", onclick: () => this.#send() }, parent ? "Adapt again" : "Adapt");
    this.hint = h("p", { class: "quiet", id: "hint" });
    this.recent = h("div");
    this.element = this.#layout();
    dropTarget(this.element, (files) => this.#take(files));
    this.#render();
    if (!parent) this.#showRecent();
  }

  /** Handles keys regardless of the focus. */
  key(event) {
    const typing = event.target.matches("input, textarea, select");
    if (!typing && event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      this.#undo();
    }
  }

  #layout() {
    const files = h("input", { type: "file", multiple: true, id: "files", class: "unseen", accept: `${ACCEPTED},.zip`, onchange: () => this.#choose(files) });
    const folder = h("input", { type: "file", webkitdirectory: true, id: "folder", class: "unseen", onchange: () => this.#choose(folder) });
    return h("div", { class: "page" },
      this.#lead(),
      h("div", { class: "two" },
        h("section", { class: "card draw", "aria-labelledby": "draw-title" },
          h("h2", { id: "draw-title" }, "Draw"), this.pad.canvas,
          h("div", { class: "row" }, this.add, this.back, this.clear)),
        h("section", { class: "card", "aria-labelledby": "task-title" },
          h("div", { class: "row between" }, h("h2", { id: "task-title" }, "Your task"), h("div", { class: "row" }, this.undo,
            this.parent ? null : h("button", { type: "button", onclick: () => this.#change(tasks.emptyTask()) }, "Start over"))),
          this.list,
          h("div", { class: "row sources" },
            h("label", { class: "button", for: "files" }, this.parent ? "Images…" : "Images or a zip…"), files,
            h("label", { class: "button", for: "folder" }, "A folder of classes…"), folder,
            this.parent ? null : this.#exampleMenu()),
          h("p", { class: "quiet" }, this.parent ? "Or drop them anywhere. Folders name the classes." : "Or drop them anywhere. Folders, in a zip too, name the classes."),
          this.told, this.error,
          h("div", { class: "row send" }, this.adapt, this.hint))),
      this.recent);
  }

  #lead() {
    if (!this.parent) {
      return h("div", { class: "lead" },
        h("h1", {}, "Show it a few. Ask about the next."),
        h("p", {}, "Draw two or more symbols, or drop images. The network adapts its weights and its own architecture to your task in seconds."));
    }
    return h("div", { class: "lead" },
      h("h1", {}, "Correct and grow"),
      h("p", {}, "Click on an image to move it to another class or to remove it, add what is missing, and adapt again. This creates a new episode; ",
        h("a", { href: `#/episodes/${this.parent.id}` }, this.parent.name ?? natural(this.parent.classes).join(", ")), " is kept."));
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
    if (task !== this.history.now) this.#refuse(null);
    this.history.do(task);
    this.#render();
  }

  #undo() {
    this.#refuse(null);
    this.history.undo();
    this.#render();
    say("Undone");
  }

  async #addDrawing() {
    if (this.pad.empty) return;
    const to = this.#selectedClass();
    if (!to) return;
    // The pad is cleared before any await, so that strokes drawn meanwhile belong to the next drawing.
    const drawing = this.pad.file();
    this.pad.clear();
    this.pad.canvas.focus();
    const file = await drawing;
    this.#change(tasks.addImages(this.history.now, to.id, [{ file, drawn: true }]));
    say(`Added to ${to.name}, which now has ${to.images.length + 1}`);
  }

  async #choose(input) {
    const files = chosen(input);
    input.value = "";
    this.#take(await sorted(files));
  }

  #take({ archive, loose, labelled, told }, classId = null) {
    this.#tell([]);
    if (archive && this.parent) {
      return this.#refuse(new Error(`${archive.name}: a zip cannot be added to an episode; choose or drop its images or folders`));
    }
    if (archive) return this.#change({ ...this.history.now, archive, queries: [], name: null });
    let task = { ...this.history.now, archive: null };
    if (labelled.length) task = tasks.addLabelled(task, labelled);
    const to = classId ?? this.#selectedClass()?.id;
    if (loose.length && to) task = tasks.addImages(task, to, loose.map((file) => ({ file, drawn: false })));
    if (loose.length || labelled.length) this.#change(task);
    this.#tell(told(Boolean(to)));
  }

  /** Shows how the files were read, if there is something to know, and announces it. */
  #tell(notes) {
    this.told.replaceChildren(notes.length ? h("ul", { class: "notice" }, notes.map((words) => h("li", {}, words))) : "");
    if (notes.length) say(notes.join(". "));
  }

  async #send() {
    const task = this.history.now;
    const lack = tasks.missing(task);
    if (lack) return this.#refuse(new Error(lack));
    const request = this.parent ? tasks.correction(task, this.labels) : tasks.form(task);
    if (!request) return this.#refuse(new Error("Nothing has been changed yet."));
    // Sending the same task again after a lost response returns the same episode; a changed task creates another.
    if (this.sending?.task !== task) this.sending = { task, key: api.newKey() };
    this.adapt.disabled = true;
    this.#refuse(null);
    try {
      const { key } = this.sending;
      const episode = await (this.parent ? api.correct(this.parent.id, request.body, key) : api.adapt(request.body, key));
      this.sending = null;
      this.sent(this, episode, task);
    } catch (error) {
      this.#refuse(error, request.sent[/^images\[(\d+)\]/.exec(error.problem?.image)?.[1]]);
    } finally {
      this.adapt.disabled = false;
    }
  }

  /** Shows an error at its image, or next to the button if there is none; null clears it. */
  #refuse(error, image = null) {
    const before = this.#refused;
    this.#refused = image && { image, error };
    showError(this.error, image ? null : error);
    if (before || image) this.#render();
  }

  // ------------------------------------------------------------------ rendering

  #selectedClass() {
    const { classes, archive } = this.history.now;
    return archive ? null : (classes.find((each) => each.id === this.#selected) ?? classes[0] ?? null);
  }

  #render() {
    const task = this.history.now;
    if (task.archive) this.list.replaceChildren(this.#archive(task.archive));
    else {
      if (!this.classes.element.isConnected) this.list.replaceChildren(this.classes.element);
      this.classes.show(task, this.#selectedClass()?.id, this.#refused);
    }
    this.undo.disabled = !this.history.canUndo;
    const lack = tasks.missing(task);
    this.hint.textContent = lack ?? (task.archive ? "Ready to send." : `${tasks.imageCount(task)} images, ready to send.`);
    this.#showActions();
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

  #select(id, draw = false) {
    this.#selected = id;
    this.classes.mark(id);
    this.#showActions();
    if (draw) this.pad.canvas.focus();
  }

  async #showRecent() {
    const { episodes } = await api.episodes(5).catch(() => ({ episodes: [] }));
    if (!episodes.length) return;
    this.recent.replaceChildren(h("section", { class: "recent", "aria-labelledby": "recent-title" },
      h("h2", { id: "recent-title" }, "Recent episodes"),
      h("ul", {}, episodes.map((each) => h("li", {},
        h("a", { href: `#/episodes/${each.id}` }, each.name ?? natural(each.classes).join(", ")),
        h("span", { class: "quiet" }, ` ${each.state}, ${new Date(each.created_at).toLocaleString()}`))))));
  }
}
