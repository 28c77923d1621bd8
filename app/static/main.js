// Which page is shown, and for whom.

import * as api from "./api.js";
import { Builder } from "./builder.js";
import { h, showError } from "./dom.js";
import { EpisodePage } from "./episode.js";
import { emptyTask, History } from "./task.js";

const main = document.getElementById("main");
const history = new History(emptyTask());
let shown = null;
let queries = { id: null, list: [] };

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
  const id = /^#\/episodes\/([^/]+)$/.exec(location.hash)?.[1];
  document.title = "LAMANAS";
  if (id) return show(new EpisodePage(decodeURIComponent(id), queries.id === id ? queries.list : []));
  show(new Builder(history, (episode, task) => {
    queries = { id: episode.id, list: task.queries };
    location.hash = `#/episodes/${episode.id}`;
  }));
}

/** The token of a link, taken out of the address before anything else happens. */
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
    // Nobody is signed in: that is no error unless there was a token.
    askForToken(error.status === 401 && !token ? null : error);
  }
}

function enter(who) {
  document.getElementById("session").replaceChildren(
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
  // The sign-in form stays until somebody is in; then the address is followed.
  if (!document.getElementById("token")) route();
});
addEventListener("keydown", (event) => shown?.key?.(event));
// Not by the address, which says what is shown.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
// A file dropped beside every target would otherwise replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

start();
