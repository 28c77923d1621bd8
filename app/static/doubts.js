// Images whose labels may be wrong: the user moves them to the classes that they look like, and adapts again.

import * as api from "./api.js";
import { h, picture, showError } from "./dom.js";
import { fromBase64 } from "./files.js";
import { Intention, whileDisabled } from "./sending.js";

const SHOWN = 10;

/** `drawn`: whether the images are drawings; `corrected` is called with the new episode. */
export function doubts({ id, suspects }, drawn, corrected) {
  const [intention, error] = [new Intention(), h("div")];
  const rows = suspects.slice(0, SHOWN).map(row);
  const ticked = () => rows.filter(({ box }) => box.checked);
  const send = h("button", { type: "button", disabled: true, onclick: () => whileDisabled(send, async () => {
    showError(error, null);
    const form = new FormData();
    for (const { suspect } of ticked()) form.append("relabel", `${suspect.image}=${suspect.likelier}`);
    try {
      corrected(await intention.send(form.getAll("relabel"), (key) => api.correct(id, form, key)));
    } catch (refused) {
      showError(error, refused);
    }
  }) }, "Move and adapt again");
  for (const { box } of rows) box.addEventListener("change", () => (send.disabled = !ticked().length));
  showPictures(id, rows, drawn);
  return h("section", { class: "notice", "aria-label": "Doubtful labels" },
    h("p", {}, suspects.length === 1 ? "One label may be wrong:" : `${suspects.length} labels may be wrong:`),
    h("ul", { class: "doubts" }, rows.map(({ element }) => element)),
    h("div", { class: "row" }, send,
      h("p", {}, suspects.length > SHOWN ? `…and ${suspects.length - SHOWN} more. ` : "", h("a", { href: `#/episodes/${id}/correct` }, "Look at the images and correct them"))),
    error);
}

function row(suspect) {
  const { image, label, likelier, times } = suspect;
  const box = h("input", { type: "checkbox" });
  const place = h("span", { class: "small" });
  const element = h("li", {}, place,
    h("span", {}, `Image ${image + 1}, labelled ${label}, looks more like ${likelier} (${Math.round(times).toLocaleString()} times as likely). `,
      h("label", { class: "tick" }, box, `Move it to ${likelier}`)));
  return { suspect, box, place, element };
}

async function showPictures(id, rows, drawn) {
  const { images } = await api.support(id).catch(() => ({ images: [] }));
  for (const { suspect, place } of rows) {
    const stored = images[suspect.image];
    if (stored) place.replaceChildren(picture(fromBase64(stored.image, `image ${suspect.image + 1}.png`), null, { drawn }));
  }
}
