// The camera: one stream for the whole page, open only while a viewfinder shows it.

import { h } from "./dom.js";
import { encoded } from "./photo.js";

const PROBLEMS = {
  NotAllowedError: "The browser may not use the camera: allow it in the browser's address bar or settings, then try again.",
  NotFoundError: "No camera was found.",
  OverconstrainedError: "No camera was found.",
  NotReadableError: "The camera does not start: another program may use it.",
};
const viewers = new Set();
let opening = null;

async function join(viewer) {
  viewers.add(viewer);
  opening ??= open();
  try {
    return await opening;
  } catch (error) {
    leave(viewer);
    throw error;
  }
}

function leave(viewer) {
  viewers.delete(viewer);
  if (viewers.size) return;
  opening?.then((stream) => stream.getTracks().forEach((track) => track.stop()), () => {});
  opening = null;
}

async function open() {
  if (!navigator.mediaDevices) throw new Error("The camera needs HTTPS: browsers give it to no page that came over plain HTTP from another machine.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    throw new Error(PROBLEMS[error.name] ?? `The camera does not start: ${error.message}`);
  }
}

/** Shows the camera's picture. `ready` is called when it is there, `lost` with an error when the camera does not start or
 * goes away. */
export class Viewfinder {
  #asked = false;

  constructor({ label, ready, lost }) {
    Object.assign(this, { ready, lost });
    this.video = h("video", { class: "view", "aria-label": label, playsinline: true });
    this.video.muted = true;
    // Nobody sees what the camera sees in a hidden tab.
    this.hidden = () => (document.hidden ? this.#leave() : this.#join());
  }

  open() {
    this.#asked = true;
    document.addEventListener("visibilitychange", this.hidden);
    this.#join();
  }

  close() {
    this.#asked = false;
    document.removeEventListener("visibilitychange", this.hidden);
    this.#leave();
  }

  /** Whether there is a picture. */
  get live() {
    return Boolean(this.video.srcObject && this.video.videoWidth);
  }

  /** What it shows now, as a JPEG file. */
  shot(name) {
    return encoded(this.video, this.video.videoWidth, this.video.videoHeight, "image/jpeg", name);
  }

  async #join() {
    try {
      const stream = await join(this);
      if (!viewers.has(this)) return;
      for (const track of stream.getTracks()) track.onended = () => this.#fail(new Error("The camera was disconnected."));
      this.video.srcObject = stream;
      await this.video.play();
      if (this.live) this.ready();
    } catch (error) {
      // Closed while the picture was about to start: no failure.
      if (this.#asked && error.name !== "AbortError") this.#fail(error);
    }
  }

  #fail(error) {
    this.close();
    this.lost(error);
  }

  #leave() {
    this.video.srcObject = null;
    leave(this);
  }
}
