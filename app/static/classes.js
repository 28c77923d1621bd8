// The classes of a task, which the user can name, fill, order and correct, and its images without a label.

import { h, key, picture, showError } from "./dom.js";
import { ACCEPTED, chosen, dropTarget } from "./files.js";
import * as tasks from "./task.js";

const NEW = "new";
const TOOLS = [
  { what: "up", sign: "↑", words: "Move up" },
  { what: "down", sign: "↓", words: "Move down" },
  { what: "delete", sign: "×", words: "Delete class" },
];

// What the button that selects a class says, by what the class is filled with, and while it is selected.
const FILL = { pad: ["Draw", "Drawing"], camera: ["Camera", "Camera"], none: ["Select", "Selected"] };

const imageLabel = (name, number) => `${name}, image ${number + 1}`;

const onlyNamesDiffer = (before, after) =>
  before !== after && before?.classes.length === after.classes.length && before.unlabelled === after.unlabelled &&
  before.classes.every(({ id, images }, at) => id === after.classes[at].id && images === after.classes[at].images);

/** `change` is called with each new task, `select` with the id of a class and whether it is to be filled, `take` with dropped
 * files and the id of a class; the images without a label have an id, too. */
export class Classes {
  #pictures = new WeakMap();
  #picked = new Set();
  #several = false;
  #dragged = null;
  #by = "pad";

  constructor({ change, select, take }) {
    Object.assign(this, { change, select, take });
    this.element = h("div", { class: "classes" });
  }

  /** `refused`: {image, error} for the image that the service refused, or null. */
  show(task, selected, refused) {
    const focused = document.activeElement?.id;
    const renamed = refused === this.refused && onlyNamesDiffer(this.task, task);
    this.task = task;
    if (renamed) return this.#relabel();
    this.refused = refused;
    const scrolled = this.element.querySelector(".many")?.scrollTop ?? 0;
    this.element.replaceChildren(...task.classes.map((each, at) => this.#class(each, at, each.id === selected)),
      h("button", { type: "button", id: "add-class", class: "add", "aria-keyshortcuts": "n", onclick: () => this.add() }, "+ Add a class", key("N")),
      this.#unlabelled(tasks.unlabelledOf(task), selected === tasks.UNLABELLED));
    if (scrolled) this.element.querySelector(".many")?.scrollTo(0, scrolled);
    if (focused && document.activeElement?.id !== focused) this.#focusAgain(focused);
  }

  /** Changes labels in place: the click or Tab that ended the typing must still reach its element. */
  #relabel() {
    const label = (id, words) => document.getElementById(id)?.setAttribute("aria-label", words);
    for (const { id, name, images } of this.task.classes) {
      document.getElementById(`${id}-name`).value = name;
      this.element.querySelector(`[data-class="${id}"]`).setAttribute("aria-label", name);
      label(`${id}-here`, this.#fillLabel(name));
      for (const { what, words } of TOOLS) label(`${id}-${what}`, `${words}: ${name}`);
      images.forEach((_, number) => label(`${id}-image-${number}`, imageLabel(name, number)));
      const picked = this.#pickedOf({ name, images });
      label(`${id}-move`, `Move ${picked} to`);
      label(`${id}-remove`, `Remove ${picked}`);
      for (const option of this.element.querySelectorAll(`option[value="${id}"]`)) option.textContent = name;
    }
  }

  /** Marks the selected class in place: a click in progress must still find its button. */
  mark(selected) {
    for (const element of this.element.querySelectorAll("[data-class]")) {
      const here = element.dataset.class === selected;
      element.classList.toggle("selected", here);
      const chip = element.querySelector(".chip");
      chip.setAttribute("aria-pressed", String(here));
      chip.textContent = FILL[this.#by][Number(here)];
    }
  }

  /** Says what the selected class is filled with: "pad", "camera" or "none". */
  fillBy(mode) {
    this.#by = mode;
    for (const { id, name } of this.task ? tasks.groups(this.task) : []) {
      const chip = document.getElementById(`${id}-here`);
      chip?.setAttribute("aria-label", this.#fillLabel(name));
      if (chip) chip.textContent = FILL[mode][Number(chip.ariaPressed === "true")];
    }
  }

  #fillLabel(name) {
    return `${FILL[this.#by][0]} ${name}`;
  }

  /** Restores the focus to the new element with this id or, if there is none, to the nearest remaining one. */
  #focusAgain(id) {
    const [owner, , number] = id.split("-");
    const left = [id, `${owner}-image-${number - 1}`, `${owner}-image-0`, `${owner}-here`, "add-class"].map((each) => document.getElementById(each));
    left.find((element) => element && !element.disabled)?.focus();
  }

  /** Adds a class, whose name can be typed at once. */
  add() {
    const task = tasks.addClass(this.task);
    const { id } = task.classes.at(-1);
    this.select(id);
    this.change(task);
    document.getElementById(`${id}-name`).select();
  }

  #class(each, at, selected) {
    const { id, name, images } = each;
    const last = this.task.classes.length - 1;
    const step = (by) => this.change(tasks.move(this.task, id, by));
    const input = h("input", { id: `${id}-name`, class: "name", value: name, maxlength: 200, "aria-label": "Name of the class", onchange: () => this.change(tasks.rename(this.task, id, input.value)) });
    const acts = {
      up: { disabled: at === 0, onclick: () => step(-1) },
      down: { disabled: at === last, onclick: () => step(1) },
      delete: { onclick: () => this.change(tasks.removeClass(this.task, id)) },
    };
    const element = h("div", { class: selected ? "class selected" : "class", role: "group", "aria-label": name, "data-class": id, onclick: (event) => (event.target.closest("button, select") ? null : this.select(id)) },
      h("div", { class: "row between" }, at < 9 ? key(String(at + 1)) : "", input, h("div", { class: "row tight" },
        this.#chip(each, selected), TOOLS.map(({ what, sign, words }) => h("button", { type: "button", class: "icon", id: `${id}-${what}`, title: words, "aria-label": `${words}: ${name}`, ...acts[what] }, sign)))),
      h("div", { class: "thumbs" }, images.length ? images.map((image, number) => this.#thumb(each, image, number)) : h("p", { class: "quiet" }, selected ? "Draw it, or drop or paste images here." : "No images yet.")),
      this.#tools(each), this.#refusal(images));
    dropTarget(element, (files) => this.take(files, id));
    this.#takeDragged(element, id);
    return element;
  }

  #chip({ id, name }, selected) {
    return h("button", { type: "button", class: "chip", id: `${id}-here`, "aria-pressed": String(selected), "aria-label": this.#fillLabel(name), onclick: () => this.select(id, true) }, FILL[this.#by][Number(selected)]);
  }

  /** What the service said of one of these images. */
  #refusal(images) {
    const place = h("div");
    if (images.includes(this.refused?.image)) showError(place, this.refused.error);
    return place;
  }

  /** The images without a label: however many, dropped all at once; they get one by being moved to a class. */
  #unlabelled(group, selected) {
    const { id, name, images } = group;
    const files = h("input", { type: "file", multiple: true, id: `${id}-files`, class: "unseen", accept: `${ACCEPTED},.zip`, onchange: () => this.take(chosen(files), id) });
    const element = h("div", { class: selected ? "class selected" : "class", role: "group", "aria-label": name, "data-class": id, onclick: (event) => (event.target.closest("button, select, label, input") ? null : this.select(id)) },
      h("div", { class: "row between" }, h("h3", { class: "name" }, images.length ? `${name}: ${images.length.toLocaleString()}` : name), h("div", { class: "row tight" },
        this.#chip(group, selected),
        images.length ? h("button", { type: "button", class: "icon", id: `${id}-remove-all`, title: "Remove all", "aria-label": `Remove all: ${name}`, onclick: () => this.change({ ...this.task, unlabelled: [] }) }, "×") : "")),
      h("p", { class: "quiet" }, "Images without a label: drop what you have, mainly of your classes. It learns from them, too."),
      images.length ? h("div", { class: "thumbs many" }, images.map((image, number) => this.#thumb(group, image, number))) : "",
      h("div", { class: "row tools" }, h("label", { class: "button", for: `${id}-files` }, "Unlabelled images…"), files),
      this.#tools(group), this.#refusal(images));
    dropTarget(element, (dropped) => this.take(dropped, id));
    return element;
  }

  // ------------------------------------------------------------------ one image

  #thumb({ id, name }, image, number) {
    const label = imageLabel(name, number);
    const picked = this.#picked.has(image);
    return h("button", {
      type: "button", class: `thumb${image === this.refused?.image ? " refused" : ""}`, id: `${id}-image-${number}`,
      "aria-label": label, "aria-pressed": String(picked), title: "Move or remove", draggable: "true",
      onclick: (event) => this.#pick(image, this.#several || event.ctrlKey || event.metaKey || event.shiftKey),
      onkeydown: (event) => {
        if (event.key === "Delete" || event.key === "Backspace") this.#remove(picked ? this.#picked : new Set([image]));
      },
      ondragstart: (event) => {
        this.#dragged = { id, images: picked ? this.#picked : new Set([image]) };
        event.dataTransfer.effectAllowed = "move";
        event.dataTransfer.setData("text/plain", label);
      },
      ondragend: () => (this.#dragged = null),
    }, this.#picture(image));
  }

  /** Cached, so that pictures do not flicker after changes. */
  #picture(image) {
    if (!this.#pictures.has(image)) this.#pictures.set(image, picture(image.file, null, image));
    return this.#pictures.get(image);
  }

  /** Picks an image or lets go of it; `more`: the others stay picked. */
  #pick(image, more) {
    const picked = new Set(more ? this.#picked : []);
    if (this.#picked.has(image)) picked.delete(image);
    else picked.add(image);
    this.#picked = picked;
    this.change(this.task);
  }

  /** What is picked, in words, if the last one of it belongs to this class. */
  #pickedOf({ name, images }) {
    const all = this.#allPicked();
    if (!images.includes(all.at(-1))) return null;
    return all.length === 1 ? imageLabel(name, images.indexOf(all[0])) : `${all.length} images`;
  }

  #allPicked() {
    return tasks.groups(this.task).flatMap((each) => each.images.filter((image) => this.#picked.has(image)));
  }

  /** The controls for the images that are picked, in the class of the last one. */
  #tools({ id, name, images }) {
    const picked = this.#pickedOf({ name, images });
    if (!picked) return null;
    const others = this.task.classes.filter((each) => each.id !== id || this.#picked.size > 1);
    const menu = h("select", { id: `${id}-move`, "aria-label": `Move ${picked} to`, onchange: () => this.#move(this.#picked, menu.value) },
      h("option", { value: "" }, "Move to…"), others.map((each) => h("option", { value: each.id }, each.name)), h("option", { value: NEW }, "A new class"));
    const several = h("button", { type: "button", id: `${id}-several`, "aria-pressed": String(this.#several), onclick: () => {
      this.#several = !this.#several;
      several.ariaPressed = String(this.#several);
    } }, "Pick several");
    return h("div", { class: "row tools" }, menu,
      h("button", { type: "button", id: `${id}-remove`, "aria-label": `Remove ${picked}`, onclick: () => this.#remove(this.#picked) }, "Remove"), several);
  }

  #letGo() {
    this.#picked = new Set();
    this.#several = false;
  }

  #remove(images) {
    this.#letGo();
    this.change(tasks.removeImages(this.task, images));
  }

  #move(images, to) {
    if (!to) return;
    this.#letGo();
    const task = to === NEW ? tasks.addClass(this.task) : this.task;
    this.change(tasks.moveImages(task, images, to === NEW ? task.classes.at(-1).id : to));
  }

  #takeDragged(element, id) {
    const over = (event) => {
      if (!this.#dragged || (this.#dragged.id === id && this.#dragged.images.size === 1)) return;
      event.preventDefault();
      element.classList.add("over");
    };
    element.addEventListener("dragenter", over);
    element.addEventListener("dragover", over);
    element.addEventListener("drop", () => {
      if (this.#dragged) this.#move(this.#dragged.images, id);
    });
  }
}
