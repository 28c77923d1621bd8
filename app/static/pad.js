// A drawing pad for mouse, pen, finger or arrow keys.

import { h } from "./dom.js";

// Of the file, and of the pad until its size on the screen is known.
const SIDE = 210;
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
    new ResizeObserver(() => this.#fit()).observe(this.canvas);
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
    const canvas = h("canvas", { width: SIDE, height: SIDE });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE, SIDE);
    this.#draw(pen, SIDE);
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

  /** As many pixels as the screen has where the pad is. */
  #fit() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!side || side === this.canvas.width) return;
    this.canvas.width = this.canvas.height = side;
    this.#paint();
  }

  #paint() {
    const pen = this.canvas.getContext("2d");
    const side = this.canvas.width;
    pen.clearRect(0, 0, side, side);
    this.#draw(pen, side);
    if (!this.#cursor.shown) return;
    pen.beginPath();
    pen.arc(this.#cursor.x * side, this.#cursor.y * side, (this.#cursor.down ? 0.019 : 0.031) * side, 0, 2 * Math.PI);
    pen.lineWidth = 0.007 * side;
    pen.strokeStyle = "#0b6b5f";
    pen.stroke();
  }

  /** Strokes are smooth: curves between the midpoints of what the pointer reported. */
  #draw(pen, side) {
    pen.strokeStyle = "#111";
    pen.lineWidth = WIDTH * side;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.#strokes) {
      pen.beginPath();
      const at = stroke.map(([x, y]) => [x * side, y * side]);
      pen.moveTo(...at[0]);
      for (let next = 1; next < at.length; next += 1) {
        const [before, here] = [at[next - 1], at[next]];
        pen.quadraticCurveTo(...before, (before[0] + here[0]) / 2, (before[1] + here[1]) / 2);
      }
      pen.lineTo(...at.at(-1));
      pen.stroke();
    }
  }
}
