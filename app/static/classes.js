// The classes of a task, which the user can name, fill, order and correct.

import { h, picture, showError } from "./dom.js";
import { dropTarget } from "./files.js";
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
  before !== after && before?.classes.length === after.classes.length &&
  before.classes.every(({ id, images }, at) => id === after.classes[at].id && images === after.classes[at].images);

/** `change` is called with each new task, `select` with the id of a class and whether it is to be filled, `take` with dropped
 * files and the id of a class. */
export class Classes {
  #pictures = new WeakMap();
  #picked = null;
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
    this.element.replaceChildren(...task.classes.map((each, at) => this.#class(each, at, each.id === selected)),
      h("button", { type: "button", id: "add-class", class: "add", onclick: () => this.#add() }, "+ Add a class"));
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
      const picked = imageLabel(name, images.indexOf(this.#picked));
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
    for (const { id, name } of this.task?.classes ?? []) {
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

  #add() {
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
    const wrong = h("div");
    const element = h("div", { class: selected ? "class selected" : "class", role: "group", "aria-label": name, "data-class": id, onclick: (event) => (event.target.closest("button, select") ? null : this.select(id)) },
      h("div", { class: "row between" }, input, h("div", { class: "row tight" },
        h("button", { type: "button", class: "chip", id: `${id}-here`, "aria-pressed": String(selected), "aria-label": this.#fillLabel(name), onclick: () => this.select(id, true) }, FILL[this.#by][Number(selected)]),
        TOOLS.map(({ what, sign, words }) => h("button", { type: "button", class: "icon", id: `${id}-${what}`, title: words, "aria-label": `${words}: ${name}`, ...acts[what] }, sign)))),
      h("div", { class: "thumbs" }, images.length ? images.map((image, number) => this.#thumb(each, image, number)) : h("p", { class: "quiet" }, selected ? "Draw it, or drop or paste images here." : "No images yet.")),
      this.#tools(each), wrong);
    if (images.includes(this.refused?.image)) showError(wrong, this.refused.error);
    dropTarget(element, (files) => this.take(files, id));
    this.#takeDragged(element, id);
    return element;
  }

  // ------------------------------------------------------------------ one image

  #thumb({ id, name }, image, number) {
    const label = imageLabel(name, number);
    const picked = this.#picked === image;
    return h("button", {
      type: "button", class: `thumb${image === this.refused?.image ? " refused" : ""}`, id: `${id}-image-${number}`,
      "aria-label": label, "aria-expanded": String(picked), title: "Move or remove", draggable: "true",
      onclick: () => this.#pick(picked ? null : image),
      onkeydown: (event) => {
        if (event.key === "Delete" || event.key === "Backspace") this.#remove(id, number);
      },
      ondragstart: (event) => {
        this.#dragged = { id, number };
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

  #pick(image) {
    this.#picked = image;
    this.change(this.task);
  }

  /** The controls for the selected image, if it belongs to this class. */
  #tools({ id, name, images }) {
    const number = images.indexOf(this.#picked);
    if (number < 0) return null;
    const others = this.task.classes.filter((each) => each.id !== id);
    const menu = h("select", { id: `${id}-move`, "aria-label": `Move ${imageLabel(name, number)} to`, onchange: () => this.#move(id, number, menu.value) },
      h("option", { value: "" }, "Move to…"), others.map((each) => h("option", { value: each.id }, each.name)), h("option", { value: NEW }, "A new class"));
    return h("div", { class: "row tools" }, menu,
      h("button", { type: "button", id: `${id}-remove`, "aria-label": `Remove ${imageLabel(name, number)}`, onclick: () => this.#remove(id, number) }, "Remove"));
  }

  #remove(id, number) {
    this.#picked = null;
    this.change(tasks.removeImage(this.task, id, number));
  }

  #move(from, number, to) {
    if (!to) return;
    this.#picked = null;
    const task = to === NEW ? tasks.addClass(this.task) : this.task;
    this.change(tasks.moveImage(task, from, number, to === NEW ? task.classes.at(-1).id : to));
  }

  #takeDragged(element, id) {
    const over = (event) => {
      if (!this.#dragged || this.#dragged.id === id) return;
      event.preventDefault();
      element.classList.add("over");
    };
    element.addEventListener("dragenter", over);
    element.addEventListener("dragover", over);
    element.addEventListener("drop", () => {
      if (this.#dragged) this.#move(this.#dragged.id, this.#dragged.number, id);
    });
  }
}
