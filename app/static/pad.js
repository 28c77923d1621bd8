// A drawing pad for mouse, pen, finger or arrow keys.

import { h } from "./dom.js";

const SIDE = 420;
// Relative to the side, as in the model's training images.
const WIDTH = 0.032;
const KEY_STEP = 0.04;

/** `changed` is called after each change of the drawing, with true once the pen is up; `done` on Enter. */
export class Pad {
  #strokes = [];
  #pen = null;
  #version = 0;
  #cursor = { x: 0.5, y: 0.5, down: false, shown: false };

  constructor({ label, changed = () => {}, done = () => {} }) {
    this.changed = (up) => {
      this.#version += 1;
      changed(up);
    };
    this.done = done;
    this.canvas = h("canvas", {
      class: "pad ink", width: SIDE, height: SIDE, tabindex: 0, role: "application", "aria-label": label,
      "aria-description": "Arrow keys move the pen, space puts it down and lifts it, Enter finishes, Z takes the last stroke back, Delete clears.",
      onpointerdown: (event) => this.#down(event),
      onpointermove: (event) => this.#move(event),
      onpointerup: (event) => this.#up(event),
      onpointercancel: (event) => this.#up(event),
      onkeydown: (event) => this.#key(event),
      onblur: () => this.#show(false),
    });
    this.#paint();
  }

  /** A number that changes with the drawing. */
  get version() {
    return this.#version;
  }

  get empty() {
    return this.#strokes.length === 0;
  }

  clear() {
    this.#strokes = [];
    this.#pen = null;
    // Back to the centre, so that the next drawing begins where this one did.
    Object.assign(this.#cursor, { x: 0.5, y: 0.5, down: false });
    this.#paint();
    this.changed(true);
  }

  undo() {
    this.#strokes.pop();
    this.#pen = null;
    this.#cursor.down = false;
    this.#paint();
    this.changed(true);
  }

  /** The drawing as a PNG file, black on white. */
  file() {
    const canvas = h("canvas", { width: SIDE / 2, height: SIDE / 2 });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE / 2, SIDE / 2);
    this.#draw(pen, SIDE / 2);
    return new Promise((give) => canvas.toBlob(give, "image/png"));
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #down(event) {
    if (this.#pen !== null || event.button > 0) return;
    this.#pen = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.#cursor.shown = this.#cursor.down = false;
    this.#strokes.push([this.#place(event)]);
    this.#paint();
  }

  #move(event) {
    if (event.pointerId !== this.#pen) return;
    // A fast pen can move several times between two frames.
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const each of moves.length ? moves : [event]) this.#strokes.at(-1).push(this.#place(each));
    this.#paint();
    this.changed(false);
  }

  #up(event) {
    if (event.pointerId !== this.#pen) return;
    this.#pen = null;
    this.changed(true);
  }

  #key(event) {
    // Alt with an arrow key navigates the browser's history.
    if (event.altKey) return;
    const cursor = this.#cursor;
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (dx || dy) {
      cursor.x = Math.min(1, Math.max(0, cursor.x + dx * KEY_STEP));
      cursor.y = Math.min(1, Math.max(0, cursor.y + dy * KEY_STEP));
      if (cursor.down) this.#strokes.at(-1).push([cursor.x, cursor.y]);
    } else if (event.key === " ") {
      cursor.down = !cursor.down;
      if (cursor.down) this.#strokes.push([[cursor.x, cursor.y]]);
      else this.changed(true);
    } else if (event.key === "Enter") {
      cursor.down = false;
      this.done();
    } else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key.toLowerCase() === "z") {
      // Without a stroke, Z undoes the last change of the task instead.
      if (this.empty) return;
      this.undo();
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.#show(true);
    if (cursor.down) this.changed(false);
  }

  #show(shown) {
    this.#cursor.shown = shown;
    this.#paint();
  }

  #paint() {
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, SIDE, SIDE);
    this.#draw(pen, SIDE);
    if (!this.#cursor.shown) return;
    pen.beginPath();
    pen.arc(this.#cursor.x * SIDE, this.#cursor.y * SIDE, this.#cursor.down ? 8 : 13, 0, 2 * Math.PI);
    pen.lineWidth = 3;
    pen.strokeStyle = "#0b6b5f";
    pen.stroke();
  }

  #draw(pen, side) {
    pen.strokeStyle = "#111";
    pen.lineWidth = WIDTH * side;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.#strokes) {
      pen.beginPath();
      pen.moveTo(stroke[0][0] * side, stroke[0][1] * side);
      for (const [x, y] of stroke) pen.lineTo(x * side, y * side);
      pen.stroke();
    }
  }
}
