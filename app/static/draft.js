// Tasks that are not sent yet, kept in the browser's database: they survive reloading, leaving and coming back.

import { newKey } from "./api.js";

const [TASKS, FILES] = ["tasks", "files"];
// The key of each file that is already in the database: a change of the task writes new files alone.
const stored = new WeakMap();
let database = null;

function open() {
  database ??= new Promise((give, refuse) => {
    const request = indexedDB.open("lamanas", 1);
    request.onupgradeneeded = () => [TASKS, FILES].forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => give(request.result);
    request.onerror = () => refuse(request.error);
  });
  return database;
}

/** What `work` returns, a request or nothing, once all that it did is in the database. Where the browser keeps nothing, in
 * some private windows, or has no room, drafts are lost as they would be without it: null. */
async function transaction(work) {
  try {
    const change = (await open()).transaction([TASKS, FILES], "readwrite");
    const request = work(change.objectStore(TASKS), change.objectStore(FILES));
    await new Promise((give, refuse) => {
      change.oncomplete = give;
      change.onerror = change.onabort = () => refuse(change.error);
    });
    return request?.result ?? null;
  } catch {
    return null;
  }
}

/** Keeps the task under this name. */
export async function save(name, task) {
  const added = [];
  const done = await transaction((drafts, files) => {
    const keyOf = (file) => {
      if (!stored.has(file)) {
        added.push(file);
        stored.set(file, newKey());
        files.put(file, stored.get(file));
      }
      return stored.get(file);
    };
    return drafts.put(mapFiles(task, keyOf), name);
  });
  if (!done) added.forEach((file) => stored.delete(file));
}

/** The task that was kept under this name; null if there is none. */
export async function load(name) {
  const draft = await transaction((drafts) => drafts.get(name));
  if (!draft) return null;
  const keys = [];
  mapFiles(draft, (key) => keys.push(key));
  const found = new Map();
  await transaction((_, files) => {
    for (const key of keys) files.get(key).onsuccess = ({ target }) => found.set(key, target.result);
  });
  if (keys.some((key) => !found.get(key))) return null;
  return mapFiles(draft, (key) => {
    stored.set(found.get(key), key);
    return found.get(key);
  });
}

export const remove = (name) => transaction((drafts) => void drafts.delete(name));

/** Forgets all drafts, as when the user signs out. */
export const clear = () => transaction((drafts, files) => void [drafts, files].forEach((each) => each.clear()));

/** Forgets the files that no draft has any more. */
export const tidy = () => transaction((drafts, files) => {
  drafts.getAll().onsuccess = ({ target }) => {
    const used = new Set();
    for (const draft of target.result) mapFiles(draft, (key) => used.add(key));
    files.getAllKeys().onsuccess = ({ target: { result } }) => result.forEach((key) => used.has(key) || files.delete(key));
  };
});

/** The task with `change` applied to each file in it. */
function mapFiles(task, change) {
  const each = (images) => images.map((image) => ({ ...image, file: change(image.file) }));
  return {
    ...task,
    archive: task.archive && change(task.archive),
    queries: each(task.queries),
    unlabelled: each(task.unlabelled ?? []),  // there were none when an earlier release kept the task
    classes: task.classes.map((one) => ({ ...one, images: each(one.images) })),
  };
}
