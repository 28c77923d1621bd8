// Routing between pages, and signing in.

import * as api from "./api.js";
import { Builder } from "./builder.js";
import { h, showError } from "./dom.js";
import * as drafts from "./draft.js";
import { fromBase64 } from "./files.js";
import { whileDisabled } from "./sending.js";
import { emptyTask, History, imageCount, isPhotos, ofSupport, restored } from "./task.js";

const main = document.getElementById("main");
// The name of the draft at #/; that of an episode's correction is its id.
const TASK = "task";
let history = new History(emptyTask(), (task) => drafts.save(TASK, task));
// What to start over with, if the task is one of an earlier visit.
let original = null;
// The result of the dialog that is open.
let signingIn = null;
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
  if (shown?.asked) asked = { id: shown.id, ...shown.asked };
  const [, id, correcting] = /^#\/episodes\/([^/]+)(\/correct)?$/.exec(location.hash) ?? [];
  document.title = "LAMANAS";
  if (correcting) return correct(id);
  // What the first page does not need is fetched when it is needed: phones are far from the service.
  if (id) {
    return showWhenLoaded(import("./episode.js"), ({ EpisodePage }) =>
      new EpisodePage(id, askedOf(id), (page, child, queries) => open(page, child, { queries, photos: page.asked.photos })));
  }
  if (location.hash === "#/operate" && admin) return showWhenLoaded(import("./operate.js"), ({ Operate }) => new Operate());
  const nothing = original;
  original = null;  // offered once
  show(new Builder({ history, original: nothing, sent: (page, episode, task) => open(page, episode, { queries: task.queries, photos: isPhotos(task) }) }));
}

/** Shows the page that `make` makes of a module, unless the user has gone on meanwhile. */
async function showWhenLoaded(loading, make) {
  const address = location.hash;
  try {
    const module = await loading;
    if (location.hash === address) show(make(module));
  } catch {
    showFailure(address, new Error("the service does not respond; is it still running?"));
  }
}

function showFailure(address, error) {
  if (location.hash !== address) return;
  const place = h("div", { class: "page" });
  show({ element: place });
  showError(place, error);
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
    const stored = images.map(({ label, image }, at) => ({ label, file: fromBase64(image, `${label ?? "unlabelled"} ${at + 1}.png`) }));
    const { queries, photos } = askedOf(id);
    const task = ofSupport(parent, stored, parent.model_kind ? parent.model_kind === "photos" : photos);
    const draft = await drafts.load(id);
    if (location.hash !== address) return;
    show(new Builder({
      history: new History(draft ? restored(draft) : task, (now) => (now === task ? drafts.remove(id) : drafts.save(id, now))),
      original: draft && task, parent, labels: images.map(({ label }) => label),
      sent: (page, episode, sent) => {
        drafts.remove(id);
        open(page, episode, { queries, photos: isPhotos(sent) });
      },
    }));
  } catch (error) {
    showFailure(address, error);
  }
}

/** The token of a link, which is first removed from the address. */
function tokenOfLink() {
  const token = /^#token=([^&]+)$/.exec(location.hash)?.[1];
  if (token) window.history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  try {
    return token ? decodeURIComponent(token) : null;
  } catch {
    return token;  // no percent-encoding, and so no token that the service knows
  }
}

async function start() {
  const token = tokenOfLink();
  const restoring = restore();
  try {
    const who = token ? await api.signIn(token) : await api.session();
    await restoring;
    enter(who);
  } catch (error) {
    // Not being signed in is no error unless a token was given.
    askForToken(error.status === 401 && !token ? null : error);
  }
}

/** Takes up the task of an earlier visit. */
async function restore() {
  const draft = await drafts.load(TASK);
  drafts.tidy();
  if (!draft || !(imageCount(draft) || draft.archive) || imageCount(history.now)) return;
  history = new History(restored(draft), history.changed);
  original = emptyTask();
}

function enter(who) {
  signedIn(who);
  route();
}

function signedIn(who) {
  admin = who.scopes.includes("admin");
  document.getElementById("session").replaceChildren(
    admin ? h("a", { href: "#/operate" }, "Operate") : "",
    h("span", { class: "quiet" }, who.name),
    h("button", { type: "button", onclick: ({ target }) => whileDisabled(target, async () => {
      await Promise.allSettled([api.signOut(), drafts.clear()]);
      location.reload();
    }) }, "Sign out"));
}

function askForToken(error) {
  const form = signInForm(h("h1", {}, "Sign in"), enter);
  show({ element: form.element });
  form.refuse(error);
  form.input.focus();
}

/** The session ended, because its key was revoked or its cookie is gone: a dialog over the page, which stays as it is. */
function signInAgain() {
  signingIn ??= new Promise((done) => {
    const form = signInForm(h("h2", { id: "again" }, "Your session has ended"), (who) => {
      signedIn(who);
      dialog.close("signed in");
    });
    const dialog = h("dialog", { "aria-labelledby": "again", onclose: () => {
      dialog.remove();
      signingIn = null;
      done(dialog.returnValue === "signed in");
    } }, form.element, h("p", { class: "quiet" }, "Nothing on the page is lost: sign in again to go on."));
    document.body.append(dialog);
    dialog.showModal();
  });
  return signingIn;
}

/** `done` is called with who has signed in. */
function signInForm(title, done) {
  const wrong = h("div");
  const input = h("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const element = h("form", { class: "card sign-in", onsubmit: (event) => {
    event.preventDefault();
    showError(wrong, null);
    whileDisabled(event.submitter, async () => {
      try {
        done(await api.signIn(input.value.trim()));
      } catch (refused) {
        showError(wrong, refused);
      }
    });
  } },
    title,
    h("p", {}, "Open the link that ", h("code", {}, "lamanas serve"), " printed, or paste a token; ", h("code", {}, "lamanas token"), " prints the first one."),
    h("label", { for: "token" }, "Token"), input, h("button", { class: "primary" }, "Sign in"), wrong);
  return { element, input, refuse: (error) => showError(wrong, error) };
}

const busy = h("p", { class: "busy", role: "status", hidden: true });
document.body.append(busy);
api.meanwhile.signIn = signInAgain;
api.meanwhile.busy = (seconds) => {
  busy.hidden = seconds === null;
  if (seconds === null) return;
  busy.textContent = `The service is busy, trying again in ${seconds} s`;
};

addEventListener("hashchange", () => {
  if (location.hash.startsWith("#token=")) return start();
  // The sign-in form stays until sign-in succeeds; then the address determines the page.
  if (!document.querySelector("main #token")) route();
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
