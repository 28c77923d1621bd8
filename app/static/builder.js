// Builds a task from classes with drawings, photos and files, and sends it.

import * as api from "./api.js";
import { Classes } from "./classes.js";
import { h, key, say, showError, time, titleOf, withoutLabel } from "./dom.js";
import { examples } from "./examples.js";
import { ACCEPTED, chosen, dropTarget, fromBase64, onlyByTheService, pasted, sorted } from "./files.js";
import { holdButton } from "./holding.js";
import { natural } from "./layout.js";
import { Pad } from "./pad.js";
import { Intention, whileDisabled } from "./sending.js";
import { Source } from "./source.js";
import * as tasks from "./task.js";

/** The page at #/ and, for correcting the episode `parent` whose images have these `labels`, at #/episodes/ID/correct.
 *
 * `history` contains the task and is kept when the page closes; `original`: the task to start over with, if this one is from
 * an earlier visit; `sent` is called with this page, the new episode and the task. */
export class Builder {
  #selected = null;
  #refused = null;
  #reading = 0;
  #posting = false;
  #shots = null;
  #intention = new Intention();

  constructor({ history, original = null, parent = null, labels = [], sent }) {
    Object.assign(this, { history, parent, labels, sent });
    this.pad = new Pad({ label: "Drawing pad", changed: () => this.#showActions(), done: () => this.#addDrawing() });
    this.add = h("button", { type: "button", class: "primary", "aria-keyshortcuts": "Enter", onclick: () => this.#addDrawing() });
    this.clear = h("button", { type: "button", onclick: () => {
      this.pad.clear();
      this.pad.canvas.focus();
    } }, "Clear");
    this.back = h("button", { type: "button", onclick: () => this.pad.undo() }, "Undo stroke");
    this.shoot = holdButton((again) => this.#addShot(again));
    this.source = new Source({
      pad: this.pad, label: "Camera", changed: () => this.#showSource(),
      drawing: h("div", { class: "row" }, this.add, this.back, this.clear), shooting: h("div", { class: "row" }, this.shoot),
    });
    this.undo = h("button", { type: "button", onclick: () => this.#undo() }, "Undo");
    this.name = h("input", { class: "name title", maxlength: 200, placeholder: "Name it, if you like", "aria-label": "Name of the task", onchange: () => this.#change({ ...this.history.now, name: this.name.value.trim() || null }) });
    this.list = h("div");
    this.classes = new Classes({
      change: (task) => this.#change(task),
      select: (id, fill) => this.#select(id, fill),
      take: (files, id) => this.#read(files, id),
    });
    this.told = h("div");
    this.restored = h("div");
    if (original) this.#offerOriginal(original);
    this.error = h("div");
    this.adapt = h("button", { type: "button", class: "primary large", onclick: () => this.#send() }, parent ? "Adapt again" : "Adapt");
    this.hint = h("p", { id: "hint" });
    this.save = h("button", { type: "button", onclick: () => whileDisabled(this.save, () => this.#saveZip()) }, "Save as a zip");
    this.recent = h("div");
    this.element = this.#layout();
    dropTarget(this.element, (files) => this.#read(files));
    this.#showSource();
    this.#render();
    if (!parent) this.#showRecent();
  }

  close() {
    this.source.close();
  }

  /** Handles keys regardless of the focus. */
  key(event) {
    if (event.target.matches("input, textarea, select")) return;
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      event.preventDefault();
      this.#undo();
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey) this.#shortcut(event);
  }

  /** 1 to 9 choose a class, N makes one, Enter adds the drawing unless it presses a button. */
  #shortcut(event) {
    const { archive, classes } = this.history.now;
    const chosen = archive ? null : classes[Number(event.key) - 1];
    if (chosen) {
      this.#select(chosen.id);
      say(`${chosen.name} is selected`);
    } else if (event.key.toLowerCase() === "n" && !archive) this.classes.add();
    else if (event.key === "Enter" && !event.target.closest("a, button, summary")) this.#addDrawing();
    else return;
    event.preventDefault();
  }

  /** Adds the images in the clipboard to the class that has the focus, or to those without a label. */
  paste(event) {
    const files = pasted(event);
    if (!files.length) return;
    event.preventDefault();
    this.#read(files, event.target.closest("[data-class]")?.dataset.class);
  }

  #layout() {
    const files = h("input", { type: "file", multiple: true, id: "files", class: "unseen", accept: `${ACCEPTED},.zip`, onchange: () => this.#choose(files) });
    const folder = h("input", { type: "file", webkitdirectory: true, id: "folder", class: "unseen", onchange: () => this.#choose(folder) });
    return h("div", { class: "page" },
      this.#lead(), this.restored,
      h("div", { class: "two" },
        h("section", { class: "card draw", "aria-labelledby": "draw-title" }, this.heading = h("h2", { id: "draw-title" }), this.source.element),
        h("section", { class: "card", "aria-labelledby": "task-title" },
          h("div", { class: "row between" }, h("h2", { id: "task-title" }, "Your task"), h("div", { class: "row" }, this.undo,
            this.parent ? null : h("button", { type: "button", onclick: () => this.#change(tasks.emptyTask()) }, "Start over"))),
          this.name, this.list,
          h("div", { class: "row sources" },
            h("label", { class: "button", for: "files" }, this.parent ? "Images…" : "Images or a zip…"), files,
            h("label", { class: "button", for: "folder" }, "A folder of classes…"), folder),
          h("p", { class: "quiet" }, this.parent ? "Or drop or paste them. Folders name the classes." : "Or drop or paste them. Folders, in a zip too, name the classes."),
          this.told, h("div", { class: "row" }, this.save, h("p", { class: "quiet" }, "To keep it or share it: it can be opened here again.")))),
      h("div", { class: "dock" }, this.error, h("div", { class: "row between" }, this.hint, this.adapt)),
      this.recent);
  }

  #lead() {
    if (!this.parent) {
      return h("div", { class: "lead" },
        h("h1", {}, "Show it a few. Ask about the next."),
        h("p", {}, "Draw two or more symbols, or bring photos of two or more things. The network adapts its weights and its own architecture to your task in seconds."),
        this.#knowledge(), examples((example) => this.#loadExample(example)));
    }
    return h("div", { class: "lead" },
      h("h1", {}, "Correct and grow"),
      h("p", {}, "Click on an image to move it to another class or to remove it, add what is missing, and adapt again. This creates a new episode; ",
        h("a", { href: `#/episodes/${this.parent.id}` }, titleOf({ name: this.parent.name, classes: natural(this.parent.classes) })), " is kept."));
  }

  #offerOriginal(original) {
    this.restored.replaceChildren(h("div", { class: "notice row between" },
      h("p", {}, this.parent ? "Your changes from before were restored." : "Your task from before was restored."),
      h("button", { type: "button", onclick: () => {
        this.restored.replaceChildren();
        this.#change(original);
      } }, this.parent ? "Drop the changes" : "Start over with none")));
  }

  /** What the service can read, by the models that are active. */
  #knowledge() {
    const place = h("p", {});
    api.models().then(({ models }) => {
      const kinds = models.filter(({ active }) => active).map(({ kind, card }) => {
        const classes = card.data?.train?.classes;
        return classes ? `${kind}, learned from ${classes.toLocaleString()} classes` : kind;
      }).sort();
      if (kinds.length) place.textContent = `It reads ${kinds.join(", and ")}${kinds.length > 1 ? ", and tells by itself which yours are" : ""}.`;
    }, () => place.remove());
    return place;
  }

  #loadExample(example) {
    const photo = example.kind === "photos";
    const [drawn, end] = [!photo, photo ? "jpg" : "png"];
    const labelled = example.support.map(({ label, image }, at) => ({ label, file: fromBase64(image, `${label} ${at + 1}.${end}`), drawn, photo }));
    const queries = example.queries.map(({ label, image }, at) => ({ truth: label, drawn, file: fromBase64(image, `query ${at + 1}.${end}`) }));
    const task = tasks.addLabelled({ ...tasks.emptyTask(), classes: [] }, labelled);
    this.#change({ ...task, name: example.title, queries });
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

  /** Takes a photo; those taken while the button is held are one step of the history. */
  async #addShot(again) {
    const to = this.#selectedClass();
    if (!to || !this.source.viewfinder.live) return;
    if (to.id !== tasks.UNLABELLED && to.images.length >= api.limits.shots) return say(`${to.name} is full: a class may have ${api.limits.shots} images`);
    const file = await this.source.viewfinder.shot(`${to.name} ${to.images.length + 1}.jpg`);
    const task = tasks.addImages(this.history.now, to.id, [{ file, photo: true }]);
    this.#refuse(null);
    if (again) this.history.amend(this.#shots, task);
    else this.history.do(task);
    this.#shots = task;
    this.#render();
    say(`Added to ${to.name}, which now has ${to.images.length + 1}`);
  }

  #choose(input) {
    const files = chosen(input);
    input.value = "";
    this.#read(files);
  }

  /** Reads files, which takes a while for many photos, and adds them to their classes or, loose ones, to this class. All of
   * those that are given to the images without a label have none, whatever folders they are in. */
  async #read(files, classId = null) {
    const to = classId ?? this.#selectedClass()?.id;
    this.#reading += 1;
    try {
      this.#showSending();
      const reading = (done, count) => (this.hint.textContent = `Read ${done} of ${count} images.`);
      const noLabels = classId === tasks.UNLABELLED;
      this.#take(await sorted(files, { reading, noLabels }), to, noLabels);
    } finally {
      this.#reading -= 1;
      this.#showSending();
    }
  }

  #take({ archives: [archive], loose, labelled, unlabelled, told }, to, noLabels) {
    this.#tell([]);
    const found = loose.length + labelled.length + unlabelled.length;
    if (archive && !found && !noLabels && !this.parent && !tasks.imageCount(this.history.now)) {
      return this.#change({ ...this.history.now, archive, queries: [], name: null });
    }
    if (archive) this.#refuse(new Error(onlyByTheService(archive)));
    let task = { ...this.history.now, archive: null };
    if (labelled.length) task = tasks.addLabelled(task, labelled);
    if (loose.length && to) task = tasks.addImages(task, to, loose);
    if (unlabelled.length) task = tasks.addImages(task, tasks.UNLABELLED, unlabelled);
    if (found) this.#change(task);
    this.#tell(told(Boolean(to)));
  }

  /** Shows how the files were read, if there is something to know, and announces it. */
  #tell(notes) {
    this.told.replaceChildren(notes.length ? h("ul", { class: "notice" }, notes.map((words) => h("li", {}, words))) : "");
    if (notes.length) say(notes.join(". "));
  }

  async #saveZip() {
    const task = this.history.now;
    const { packed } = await import("./zip.js");
    const address = URL.createObjectURL(await packed(tasks.paths(task)));
    h("a", { href: address, download: `${task.name ?? "task"}.zip` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }

  async #send() {
    const task = this.history.now;
    const lack = tasks.missing(task) ?? tasks.tooMuch(task, api.limits);
    if (lack) return this.#refuse(new Error(lack));
    const request = this.parent ? tasks.correction(task, this.parent, this.labels) : tasks.form(task);
    if (!request) return this.#refuse(new Error("Nothing has been changed yet."));
    this.#posting = true;
    this.#showSending();
    this.#refuse(null);
    try {
      const episode = await this.#intention.send([task], (key) =>
        (this.parent ? api.correct(this.parent.id, request.body, key) : api.adapt(request.body, key)));
      this.sent(this, episode, task);
    } catch (error) {
      const [, field, number] = /^(images|unlabelled)\[(\d+)\]/.exec(error.problem?.image) ?? [];
      this.#refuse(error, request.sent[field]?.[number]);
    } finally {
      this.#posting = false;
      this.#showSending();
    }
  }

  /** Shows an error at its image, or next to the button if there is none; null clears it. */
  #refuse(error, image = null) {
    const before = this.#refused;
    this.#refused = image && { image, error };
    showError(this.error, image ? null : error);
    if (before || image) this.#render();
    if (image) this.classes.element.querySelector(".refused")?.scrollIntoView({ block: "center" });
  }

  // ------------------------------------------------------------------ rendering

  #selectedClass() {
    const task = this.history.now;
    return task.archive ? null : (tasks.groups(task).find((each) => each.id === this.#selected) ?? task.classes[0] ?? null);
  }

  #render() {
    const task = this.history.now;
    if (this.name !== document.activeElement) this.name.value = task.name ?? "";
    if (task.archive) this.list.replaceChildren(this.#archive(task.archive));
    else {
      if (!this.classes.element.isConnected) this.list.replaceChildren(this.classes.element);
      this.classes.show(task, this.#selectedClass()?.id, this.#refused);
    }
    this.undo.disabled = !this.history.canUndo;
    this.source.photos = tasks.isPhotos(task);
    this.#showSending();
    this.#showActions();
  }

  #showSending() {
    const task = this.history.now;
    const lack = tasks.missing(task) ?? tasks.tooMuch(task, api.limits);
    const [images, without] = [tasks.imageCount(task), task.unlabelled.length];
    const classes = task.classes.filter((each) => each.images.length).length;
    this.hint.replaceChildren(...(task.archive ? ["Ready to send."]
      : [h("strong", {}, `${counted(images - without, "image")}, ${counted(classes, "class", "classes")}${withoutLabel(without)}`), lack ? h("span", { class: "quiet" }, `. ${lack}`) : ""]));
    this.save.disabled = !images;
    this.adapt.disabled = this.#posting || this.#reading > 0;
  }

  #showSource() {
    const { mode } = this.source;
    this.heading.textContent = { pad: "Draw", camera: "Camera", none: "Photos" }[mode];
    this.classes.fillBy(mode);
    this.#showActions();
  }

  #showActions() {
    const to = this.#selectedClass();
    this.add.replaceChildren(to ? `Add to ${to.name}` : "Add", key("Enter"));
    this.add.disabled = this.pad.empty || !to;
    this.back.disabled = this.clear.disabled = this.pad.empty;
    this.shoot.textContent = to && to.id !== tasks.UNLABELLED ? `Hold to take photos of ${to.name}` : "Hold to take photos";
    this.shoot.disabled = !to;
  }

  #archive(archive) {
    return h("div", { class: "class" }, h("div", { class: "row between" },
      h("p", {}, h("strong", {}, archive.name), h("br"), h("span", { class: "quiet" }, `${Math.ceil(archive.size / 1024)} KB; its folders are the classes`)),
      h("button", { type: "button", onclick: () => this.#change({ ...this.history.now, archive: null }) }, "Remove")));
  }

  #select(id, fill = false) {
    this.#selected = id;
    this.classes.mark(id);
    this.#showActions();
    if (fill) this.source.focus();
  }

  async #showRecent() {
    const { episodes } = await api.episodes(5).catch(() => ({ episodes: [] }));
    if (!episodes.length) return;
    this.recent.replaceChildren(h("section", { class: "recent", "aria-labelledby": "recent-title" },
      h("h2", { id: "recent-title" }, "Recent episodes"),
      h("ul", {}, episodes.map(recentEpisode))));
  }
}

function recentEpisode({ id, name, classes, shots, unlabelled, state, created_at: created }) {
  const images = Object.values(shots).reduce((sum, each) => sum + each, 0);
  const picture = h("img", { src: api.thumbnailAddress(id), alt: "", loading: "lazy", height: 40, onerror: () => picture.remove() });
  return h("li", {}, h("a", { href: `#/episodes/${id}` }, picture, titleOf({ name, classes: natural(classes) })),
    h("span", { class: "quiet" }, `${counted(classes.length, "class", "classes")}, ${counted(images, "image")}${withoutLabel(unlabelled)}, ${state}, ${time(created)}`));
}

const counted = (count, one, many = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : many}`;
