// A task before it is sent: classes with images and images without a label, or an archive. Tasks are immutable: each change
// creates a new one.

import { UNLABELLED_FOLDER } from "./layout.js";

/** The id of the images without a label, where others are those of classes. */
export const UNLABELLED = "unlabelled";

let created = 0;
const id = () => `c${++created}`;

export const emptyTask = () => ({
  name: null,
  archive: null,
  queries: [],
  unlabelled: [],
  classes: ["Symbol A", "Symbol B", "Symbol C"].map((name) => ({ id: id(), name, images: [] })),
});

/** The images without a label, as if they were a class. */
export const unlabelledOf = ({ unlabelled: images }) => ({ id: UNLABELLED, name: "Unlabelled", images });
/** The classes and the images without a label. */
export const groups = (task) => [...task.classes, unlabelledOf(task)];

export const imageCount = (task) => groups(task).reduce((sum, each) => sum + each.images.length, 0);

/** Whether it is about photos, not drawings. */
export const isPhotos = (task) => task.classes.some((each) => each.images.some(({ photo }) => photo));

/** A message about what the task still lacks; null if it can be sent. */
export function missing(task) {
  if (task.archive) return null;
  const shown = task.classes.filter((each) => each.images.length);
  if (shown.length >= 2) return null;
  return shown.length ? "One more class needs an image." : "Two classes or more need an image each.";
}

/** A message about what is more than the service accepts; null if nothing is. `limits`: those of `GET /session`. */
export function tooMuch(task, limits) {
  const classes = task.classes.filter((each) => each.images.length);
  const full = classes.find((each) => each.images.length > limits.shots);
  const most = (count, what) => `${count.toLocaleString()} ${what} are accepted at most.`;
  if (classes.length > limits.classes) return most(limits.classes, "classes");
  if (full) return `${full.name} has ${full.images.length} images: ${most(limits.shots, "of a class")}`;
  if (imageCount(task) > limits.images) return most(limits.images, "images");
  const bytes = groups(task).flatMap((each) => each.images).reduce((sum, { file, at }) => sum + (at === undefined ? file.size : 0), 0);
  return bytes > limits.bytes ? `The images have ${Math.ceil(bytes / 2 ** 20)} MB: ${most(Math.floor(limits.bytes / 2 ** 20), "MB")}` : null;
}

const withClass = (task, classId, change) => (classId === UNLABELLED ? { ...task, unlabelled: change(unlabelledOf(task)).images } : {
  ...task,
  classes: task.classes.map((each) => (each.id === classId ? change(each) : each)),
});

/** An image is {file, drawn, photo, at}; `drawn`: shown in the page's colours; `at`: its index in the corrected episode, if
 * it belongs to it. */
export const addImages = (task, classId, images) =>
  withClass(task, classId, (each) => ({ ...each, images: [...each.images, ...images] }));
/** Without these images: a set. */
export function removeImages(task, images) {
  const left = (all) => all.filter((image) => !images.has(image));
  return { ...task, unlabelled: left(task.unlabelled), classes: task.classes.map((each) => ({ ...each, images: left(each.images) })) };
}
/** These images go to the end of the class, unless they are in it already. */
export function moveImages(task, images, to) {
  const moved = groups(task).filter(({ id }) => id !== to).flatMap((each) => each.images.filter((image) => images.has(image)));
  return moved.length ? addImages(removeImages(task, new Set(moved)), to, moved) : task;
}
export const rename = (task, classId, name) => withClass(task, classId, (each) => ({ ...each, name }));

export function addClass(task) {
  const taken = new Set(task.classes.map((each) => each.name));
  let number = task.classes.length;
  const name = () => (number < 26 ? `Symbol ${String.fromCharCode(65 + number)}` : `Symbol ${number + 1}`);
  while (taken.has(name())) number += 1;
  return { ...task, classes: [...task.classes, { id: id(), name: name(), images: [] }] };
}

export const removeClass = (task, classId) => ({
  ...task,
  classes: task.classes.filter((each) => each.id !== classId),
});

export function move(task, classId, by) {
  const from = task.classes.findIndex((each) => each.id === classId);
  const to = from + by;
  if (to < 0 || to >= task.classes.length) return task;
  const classes = task.classes.toSpliced(from, 1);
  return { ...task, classes: classes.toSpliced(to, 0, task.classes[from]) };
}

/** Adds labelled files to the classes of these names, and creates missing classes. */
export function addLabelled(task, labelled) {
  const classes = task.classes.filter((each) => each.images.length || labelled.some(({ label }) => label === each.name));
  for (const { label, ...image } of labelled) {
    const at = classes.findIndex((each) => each.name === label);
    if (at < 0) classes.push({ id: id(), name: label, images: [image] });
    else classes[at] = { ...classes[at], images: [...classes[at].images, image] };
  }
  return { ...task, archive: null, classes };
}

/** The images of an episode, as `GET /episodes/{id}/support` lists them, as a task. `photo`: whether they are photos. */
export function ofSupport(episode, images, photo) {
  const of = (name) => images.flatMap(({ label, file }, at) => (label === name ? [{ file, drawn: !photo, photo, at }] : []));
  const classes = episode.classes.map((name) => ({ id: id(), name, images: of(name) }));
  return { name: episode.name, archive: null, queries: [], unlabelled: of(null), classes };
}

/** The images in the folders of their classes, or in that of images without a label: [{path, file}]. */
export const paths = (task) => groups(task).flatMap(({ id: group, name, images }) => images.map(({ file }, at) => ({
  path: `${group === UNLABELLED ? UNLABELLED_FOLDER : name.split("/").map(folder).join("/")}/${String(at + 1).padStart(3, "0")}${/\.[a-z0-9]+$/i.exec(file.name ?? "")?.[0] ?? ".png"}`, file,
})));

/** The name of a folder of a class, neither hidden nor with what no zip may have in it. */
const folder = (name) => name.replace(/[\x00-\x1f\x7f\\]/g, "_").replace(/^(\.|$)/, "_").replace(/^([A-Za-z]):/, "$1_").replace(/^\s*_unlabelled\s*$/i, "_$&");

/** The body of POST /episodes, and its images by their field and in order. Classes without images are omitted. */
export function form(task) {
  const [body, sent] = [new FormData(), newSent()];
  if (task.name) body.append("name", task.name);
  if (task.archive) body.append("archive", task.archive, task.archive.name);
  else for (const each of groups(task)) for (const image of each.images) append(body, sent, each, image);
  return { body, sent };
}

/** The body of POST /episodes/{id}/support, and the added images by their field and in order; null if nothing has changed.
 * `parent`: the corrected episode, whose images have these `labels`, null for those without. */
export function correction(task, parent, labels) {
  const [body, sent, left] = [new FormData(), newSent(), new Set()];
  for (const each of groups(task)) {
    for (const image of each.images) {
      if (image.at === undefined) append(body, sent, each, image);
      else {
        left.add(image.at);
        if (each.id !== UNLABELLED && labels[image.at] !== each.name) body.append("relabel", `${image.at}=${each.name}`);
      }
    }
  }
  labels.forEach((_, at) => left.has(at) || body.append("remove", at));
  if (task.name !== parent.name) body.append("name", task.name ?? "");
  return [...body.keys()].length ? { body, sent } : null;
}

const newSent = () => ({ images: [], unlabelled: [] });

function append(body, sent, { id: group, name }, image) {
  const field = group === UNLABELLED ? "unlabelled" : "images";
  body.append(field, image.file, image.file.name || `${name} ${sent[field].length + 1}.png`);
  if (field === "images") body.append("labels", name);
  sent[field].push(image);
}

/** A task from the browser's database, whose ids another visit has given. */
export const restored = (task) => ({ ...task, classes: task.classes.map((each) => ({ ...each, id: id() })) });

/** The task and its earlier versions. `changed` is called with each new task. */
export class History {
  #past = [];

  constructor(task, changed = () => {}) {
    this.now = task;
    this.changed = changed;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  do(task) {
    if (task === this.now) return;
    this.#past.push(this.now);
    this.#become(task);
  }

  /** Makes the task that follows `before` part of the same step; a step of its own if there was another one meanwhile. */
  amend(before, task) {
    if (this.now === before) this.#become(task);
    else this.do(task);
  }

  undo() {
    if (this.canUndo) this.#become(this.#past.pop());
  }

  #become(task) {
    this.now = task;
    this.changed(task);
  }
}
