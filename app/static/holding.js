// A button that acts again and again while it is held, by pointer or by key.

import { h } from "./dom.js";

const EVERY_MS = 200;

/** `data-held` is there from the first act to the end of the last one. `act` is called with false for the first time and true for those that follow, and awaited before the next. */
export function holdButton(act) {
  let held = null;
  const start = async () => {
    if (held) return;
    const mine = (held = {});
    button.dataset.held = "";
    for (let again = false; held === mine; again = true) {
      const pause = new Promise((done) => setTimeout(done, EVERY_MS));
      await act(again);
      await pause;
    }
    if (!held) delete button.dataset.held;
  };
  const stop = () => (held = null);
  const isKey = (event) => event.key === " " || event.key === "Enter";
  const button = h("button", {
    type: "button", class: "primary hold",
    onpointerdown: (event) => {
      if (event.button > 0) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      start();
    },
    onpointerup: stop, onpointercancel: stop, onblur: stop,
    oncontextmenu: (event) => event.preventDefault(),  // a long touch
    onkeydown: (event) => {
      if (!isKey(event)) return;
      event.preventDefault();
      if (!event.repeat) start();
    },
    onkeyup: (event) => {
      if (!isKey(event)) return;
      event.preventDefault();  // no click
      stop();
    },
    // Made by neither pointer nor key but by assistive technology.
    onclick: (event) => event.detail === 0 && act(false),
  });
  return button;
}
