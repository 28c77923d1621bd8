// One episode: the progress of its adaptation, its results, predictions and download.

import * as api from "./api.js";
import { Ask } from "./ask.js";
import { cell, changes, key } from "./cells.js";
import { lossCurve } from "./charts.js";
import { h, percent, say, showError, term, time, titleOf, withoutLabel } from "./dom.js";
import { doubts } from "./doubts.js";
import { follow } from "./events.js";
import { natural } from "./layout.js";
import { whileDisabled } from "./sending.js";
import { mostCounted, taps } from "./taps.js";
import { Waiting } from "./waiting.js";

/** The page at #/episodes/ID. `asked`: {queries, photos}, the queries to classify once it is ready and whether the task is
 * photos, as far as it is known; `corrected` is called with this page, a new episode and the queries. */
export class EpisodePage {
  #stop = () => {};

  #closed = false;

  #asked;

  constructor(id, asked, corrected) {
    this.id = id;
    this.#asked = asked;
    this.corrected = corrected;
    this.title = h("h1", {}, "Episode");
    this.about = h("p", { class: "quiet" });
    this.error = h("div");
    this.live = h("div");
    this.body = h("div", { class: "stack" });
    this.element = h("div", { class: "page" },
      h("div", { class: "row between top" }, h("div", {}, this.title, this.about), this.links = h("div", { class: "row" }, h("a", { class: "button", href: "#/" }, "← The task"))),
      this.error, this.live, this.body);
    this.#open();
  }

  /** {queries, photos}: the queries so far, [{file, truth, drawn}], and whether the task is photos. */
  get asked() {
    return { queries: this.ask?.queries ?? this.#asked.queries, photos: this.#asked.photos };
  }

  close() {
    this.#closed = true;
    this.#stop();
    this.waiting?.stop();
    this.ask?.close();
  }

  key(event) {
    this.ask?.key(event);
  }

  paste(event) {
    this.ask?.paste(event);
  }

  async #open() {
    try {
      const episode = await api.episode(this.id);
      if (this.#closed) return;
      this.#head(episode);
      if (episode.state === "ready" || episode.state === "failed") return await this.#finished(episode);
      this.waiting = new Waiting(episode);
      this.waiting.show(episode.progress);
      this.live.replaceChildren(this.waiting.element);
      this.#stop = follow(api.eventsAddress(this.id), {
        ends: ["ready", "failed"],
        read: () => api.episode(this.id),
        progress: (progress) => this.waiting.show(progress),
        finished: (found) => this.#finished(found),
        lost: (error) => showError(this.error, error),
      });
    } catch (error) {
      showError(this.error, error);
    }
  }

  #head(episode) {
    const images = Object.values(episode.shots).reduce((sum, shots) => sum + shots, 0);
    if (episode.model_kind) this.#asked = { ...this.#asked, photos: episode.model_kind === "photos" };
    this.title.textContent = titleOf({ name: episode.name, classes: natural(episode.classes) });
    this.about.replaceChildren(`${episode.classes.length} classes, ${images} images${withoutLabel(episode.unlabelled)}${belonging(episode)}`, episode.model_kind ? h("span", { title: episode.model_reason }, `, read as ${episode.model_kind}`) : "",
      ...(episode.parent ? [", corrected from ", h("a", { href: `#/episodes/${episode.parent}` }, "an earlier episode")] : []), `, kept until ${time(episode.expires_at)}`);
    document.title = `${this.title.textContent} · LAMANAS`;
  }

  async #finished(episode) {
    this.waiting?.stop();
    this.#head(episode);
    this.links.prepend(h("a", { class: "button", href: `#/episodes/${this.id}/correct` }, "Correct and grow"));
    if (episode.state === "failed") return showError(this.error, new Error(episode.error ?? "the adaptation failed"));
    say("Adapted. You can ask it now.");
    this.ask = new Ask(episode, this.#asked, (child, queries) => this.corrected(this, child, queries));
    const { models } = await api.models().catch(() => ({ models: [] }));
    const card = models.find((model) => model.version === episode.model_version)?.card;
    this.body.replaceChildren(
      checked(episode),
      episode.warnings.length ? h("ul", { class: "notice" }, episode.warnings.map((text) => h("li", {}, text))) : "",
      episode.suspects.length ? doubts(episode, !this.#asked.photos, (child) => this.corrected(this, child, this.asked.queries)) : "", this.ask.element, this.#learned(episode, card), this.#takeAway(episode));
  }

  #learned(episode, card) {
    const { parameters, progress, genotype } = episode;
    const facts = [
      [term("On your images", "How many of the images that it has learned from it classifies correctly. Nearly always all of them: it says little about new ones."), percent(episode.support_accuracy)],
      [term("Steps", "Gradient steps on the learned loss, each of which changes the network's weights and its architecture a little."), `${progress.step} in ${episode.adapt_seconds.toFixed(1)} s`],
      [term("Parameters kept", "Operations that hardly count after the adaptation are left out, and their parameters with them: that makes the classifier smaller and faster."), percent(parameters.kept / parameters.total), `${parameters.kept.toLocaleString()} of ${parameters.total.toLocaleString()}`],
    ];
    const ofCells = genotype.reduction.length > 0;
    return h("section", { class: "card", "aria-labelledby": "learned" },
      h("h2", { id: "learned" }, "What it learned"),
      h("p", {}, ofCells ? changes(genotype, card) : mostCounted(genotype.normal, card)),
      h("div", { class: "told" },
        h("dl", { class: "facts" }, facts.map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, more ? h("small", {}, more) : null)))),
        h("div", {}, h("h3", {}, term("Learned loss", "What the adaptation makes smaller. It was learned in training, too, and its values mean nothing by themselves; only their course does."), " at each step"), lossCurve(progress.loss, progress.steps))),
      h("details", { class: "stack" }, h("summary", {}, "See the architecture"),
        ofCells ? [h("div", { class: "cells" }, ["normal", "reduction"].map((kind) => cell(kind, genotype[kind], card))), key(card)]
          : taps(genotype.normal, card)));
  }

  #takeAway({ id, expires_at: expires }) {
    const gone = h("button", { type: "button", class: "danger", onblur: () => disarm(gone), onclick: (event) => {
      // The second click of a double click does not confirm.
      if (event.detail < 2) this.#delete(gone);
    } });
    disarm(gone);
    this.awayError = h("div");
    return h("section", { class: "card", "aria-labelledby": "away" },
      h("h2", { id: "away" }, "Take it away"),
      h("p", {}, "The address of this page leads back here until ", time(expires), ", for everybody with a token of this service. The ",
        term("model", "ONNX is a file format for neural networks that many programs open, in browsers and on phones too."), " runs wherever ONNX does, without this service, and does not expire."),
      h("div", { class: "row" },
        h("a", { class: "button primary", href: api.modelAddress(id), download: `${id}.onnx`, onclick: (event) => this.#download(event) }, "Download model.onnx"),
        copyButton("Copy the link", location.href.replace(/#.*/, `#/episodes/${id}`)), copyButton("Copy as curl", curl(id)), copyButton("Copy as Python", python(id)), gone),
      h("details", {}, h("summary", {}, "Show the commands"), h("pre", { tabindex: 0 }, curl(id)), h("pre", { tabindex: 0 }, python(id))),
      this.awayError);
  }

  /** Downloads with fetch, so that an error response is shown instead of saved. */
  async #download(event) {
    event.preventDefault();
    showError(this.awayError, null);
    try {
      const address = URL.createObjectURL(await api.model(this.id));
      h("a", { href: address, download: `${this.id}.onnx` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      showError(this.awayError, error);
    }
  }

  async #delete(button) {
    if (button.dataset.armed === undefined) {
      button.dataset.armed = "";
      button.textContent = "Delete it for good?";
      return;
    }
    await whileDisabled(button, async () => {
      try {
        await api.deleteEpisode(this.id);
        location.hash = "#/";
      } catch (error) {
        showError(this.awayError, error);
      }
    });
  }
}

/** In words how well it does on new images, before it is asked. */
function checked({ classes, leave_one_out_accuracy: accuracy }) {
  if (accuracy === null) return h("p", { class: "checked" }, "Not checked: with a second image of each class it can be checked on your own images.");
  const [guess, poor] = [1 / classes.length, accuracy < (1 + 1 / classes.length) / 2];
  const words = `Checked on your own images, each set aside in turn: ${percent(accuracy)} right; guessing would be ${percent(guess)}.`;
  return h("p", { class: poor ? "notice" : "checked" }, words, poor ? " Add images of each class, or correct their labels." : "");
}

/** Not of photos, of which it is often wrong. */
const belonging = ({ unlabelled_belonging: share, model_kind: kind }) => ((share ?? null) === null || kind === "photos" ? "" : `, of which about ${percent(share)} seem to belong to the classes`);

function disarm(button) {
  delete button.dataset.armed;
  button.textContent = "Delete the episode";
}

function copyButton(label, text) {
  const button = h("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      say("Copied");
    } catch {
      button.textContent = "Copying is not allowed here: see below";
    }
  } }, label);
  return button;
}

const curl = (id) => `curl ${new URL("predict", location)} \\
  -H "Authorization: Bearer $TOKEN" \\
  -F episode_id=${id} -F images=@query.png`;

const python = (id) => `import os
import httpx

answer = httpx.post(
    "${new URL("predict", location)}",
    headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},
    data={"episode_id": "${id}"},
    files=[("images", open("query.png", "rb"))],
)
answer.raise_for_status()
print(answer.json()["predictions"][0]["label"])`;
