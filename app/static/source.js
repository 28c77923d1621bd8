// Where images come from besides files: the drawing pad or the camera; neither where the task is photos, until the user
// asks for one of them.

import { Viewfinder } from "./camera.js";
import { h, showError } from "./dom.js";

/** `drawing` and `shooting`: the controls below the pad and below the camera's picture; `changed` is called after a change
 * between "pad", "camera" and "none", and again when the camera's picture is there. */
export class Source {
  #chosen = null;
  #photos = false;
  #shown = null;

  constructor({ pad, drawing, shooting, label, changed }) {
    Object.assign(this, { pad, changed });
    this.viewfinder = new Viewfinder({ label, ready: changed, lost: (error) => this.#lost(error) });
    this.parts = {
      pad: h("div", { class: "draw" }, pad.canvas, drawing),
      camera: h("div", { class: "draw" }, this.viewfinder.video, shooting),
      none: h("p", { class: "quiet" }, "Choose, paste or drop photos, or take them here."),
    };
    const button = (words, to) => h("button", { type: "button", onclick: () => this.#choose(to) }, words);
    this.toCamera = button("Use the camera", "camera");
    this.stop = button("Stop the camera", null);
    this.toPad = button("Draw instead", "pad");
    this.error = h("div");
    this.element = h("div", { class: "draw" }, Object.values(this.parts), this.error, h("div", { class: "row" }, this.toCamera, this.stop, this.toPad));
    this.#show();
  }

  get mode() {
    return this.#chosen ?? (this.#photos ? "none" : "pad");
  }

  /** Whether the task is photos, for which the pad gives way. */
  set photos(are) {
    this.#photos = are;
    this.#show();
  }

  /** Moves the focus to the pad or to the first control of the camera. */
  focus() {
    const first = { pad: this.pad.canvas, camera: this.parts.camera.querySelector("button") ?? this.stop, none: this.toCamera };
    first[this.mode].focus();
  }

  close() {
    this.viewfinder.close();
  }

  #choose(to) {
    showError(this.error, null);
    this.#chosen = to;
    this.#show();
    this.focus();
    if (to === "camera") this.viewfinder.open();
    else this.viewfinder.close();
  }

  #lost(error) {
    this.#chosen = null;
    this.#show();
    showError(this.error, error);
  }

  #show() {
    const [before, mode] = [this.#shown, this.mode];
    if (before === mode) return;
    this.#shown = mode;
    for (const [name, part] of Object.entries(this.parts)) part.hidden = name !== mode;
    this.toCamera.hidden = mode === "camera";
    this.stop.hidden = mode !== "camera";
    this.toPad.hidden = mode === "pad";
    if (before) this.changed();
  }
}
