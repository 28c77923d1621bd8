// Routing between pages, and signing in.

import * as api from "./api.js";
import { Builder } from "./builder.js";
import { h, showError } from "./dom.js";
import { EpisodePage } from "./episode.js";
import { fromBase64 } from "./files.js";
import { Operate } from "./operate.js";
import { emptyTask, History, isPhotos, ofSupport } from "./task.js";

const main = document.getElementById("main");
const history = new History(emptyTask());
let shown = null;
// What is known of the episode shown last: the queries, and whether it is about photos.
let asked = { id: null, queries: [], photos: false };
let admin = false;

function show(page) {
  const first = !shown;
  shown?.close?.();
  shown = page;
  main.replaceChildren(page.element);
  if (first) return;
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function route() {
  // The queries of an episode are reused for an episode that corrects it.
  if (shown instanceof EpisodePage) asked = { id: shown.id, ...shown.asked };
  const [, id, correcting] = /^#\/episodes\/([^/]+)(\/correct)?$/.exec(location.hash) ?? [];
  document.title = "LAMANAS";
  if (correcting) return correct(id);
  if (id) return show(new EpisodePage(id, askedOf(id), (page, child, queries) => open(page, child, { queries, photos: page.asked.photos })));
  if (location.hash === "#/operate" && admin) return show(new Operate());
  show(new Builder({ history, sent: (page, episode, task) => open(page, episode, { queries: task.queries, photos: isPhotos(task) }) }));
}

const askedOf = (id) => (asked.id === id ? asked : { queries: [], photos: false });

/** Shows an episode, unless the user has left the page that created it. */
function open(page, episode, { queries, photos }) {
  if (page !== shown) return;
  asked = { id: episode.id, queries, photos };
  shown?.close?.();
  shown = {};
  location.hash = `#/episodes/${episode.id}`;
}

async function correct(id) {
  const address = location.hash;
  try {
    const [parent, { images }] = await Promise.all([api.episode(id), api.support(id)]);
    if (location.hash !== address) return;
    const stored = images.map(({ label, image }, at) => ({ label, file: fromBase64(image, `${label} ${at + 1}.png`) }));
    const { queries, photos } = askedOf(id);
    const task = ofSupport(parent, stored, parent.kind ? parent.kind === "photos" : photos);
    show(new Builder({
      history: new History(task), parent, labels: images.map(({ label }) => label),
      sent: (page, episode, task) => open(page, episode, { queries, photos: isPhotos(task) }),
    }));
  } catch (error) {
    if (location.hash !== address) return;
    const place = h("div", { class: "page" });
    show({ element: place });
    showError(place, error);
  }
}

/** The token of a link, which is first removed from the address. */
function tokenOfLink() {
  const token = /^#token=([^&]+)$/.exec(location.hash)?.[1];
  if (token) window.history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  return token ? decodeURIComponent(token) : null;
}

async function start() {
  const token = tokenOfLink();
  try {
    enter(token ? await api.signIn(token) : await api.session());
  } catch (error) {
    // Not being signed in is no error unless a token was given.
    askForToken(error.status === 401 && !token ? null : error);
  }
}

function enter(who) {
  admin = who.scopes.includes("admin");
  document.getElementById("session").replaceChildren(
    admin ? h("a", { href: "#/operate" }, "Operate") : "",
    h("span", { class: "quiet" }, who.name),
    h("button", { type: "button", onclick: () => api.signOut().then(() => location.reload(), () => location.reload()) }, "Sign out"));
  route();
}

function askForToken(error) {
  const wrong = h("div");
  const input = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const form = h("form", { class: "card sign-in", onsubmit: async (event) => {
    event.preventDefault();
    showError(wrong, null);
    try {
      enter(await api.signIn(input.value.trim()));
    } catch (refused) {
      showError(wrong, refused);
    }
  } },
    h("h1", {}, "Sign in"),
    h("p", {}, "Open the link that ", h("code", {}, "lamanas serve"), " printed, or paste a token; ", h("code", {}, "lamanas token"), " prints the first one."),
    h("label", { for: "token" }, "Token"), input, h("button", { class: "primary" }, "Sign in"), wrong);
  show({ element: form });
  showError(wrong, error);
  input.focus();
}

addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) return start();
  // The sign-in form stays until sign-in succeeds; then the address determines the page.
  if (!document.getElementById("token")) route();
});
addEventListener("keydown", (event) => shown?.key?.(event));
addEventListener("paste", (event) => shown?.paste?.(event));
// Not by the address, which determines the page.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
// A file dropped outside all targets would otherwise replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

start();
