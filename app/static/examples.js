// Example tasks as pictures to click on, fetched once somebody wants to see them.

import * as api from "./api.js";
import { h, picture, showError } from "./dom.js";
import { fromBase64 } from "./files.js";

// Classes of an example that are shown.
const SHOWN = 5;

/** `load` is called with the example that was clicked on. */
export function examples(load) {
  const [list, error] = [h("ul", { class: "examples" }), h("div")];
  const element = h("details", { ontoggle: async () => {
    if (!element.open || list.firstChild) return;
    try {
      const { examples } = await api.examples();
      list.replaceChildren(...examples.map((example) => h("li", {}, h("button", { type: "button", onclick: () => {
        element.open = false;
        load(example);
      } }, h("span", { class: "row tight" }, firsts(example)), example.title))));
      showError(error, null);
    } catch (refused) {
      showError(error, refused);
    }
  } }, h("summary", {}, "Or try an example"), list, error);
  return element;
}

function firsts({ kind, support }) {
  const labels = [...new Set(support.map(({ label }) => label))].slice(0, SHOWN);
  return labels.map((label) => picture(fromBase64(support.find((each) => each.label === label).image, label), null, { drawn: kind === "drawings" }));
}
