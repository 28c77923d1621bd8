// Files and folders that the user chooses or drops.

import { limits } from "./api.js";
import { isLitter, natural, naturally, notes, read, unnamedImages } from "./layout.js";
import { imagesOf } from "./photo.js";

/** For file inputs: not every system counts the endings after the first one as images. */
export const ACCEPTED = "image/*,.heic,.heif,.hif,.avif,.bmp,.tif,.tiff,.jfif";

const isZip = ({ file, path }) => !path.includes("/") && (/\.zip$/i.test(file.name) || file.type === "application/zip");

// A zip's photos are shrunk before they are sent: it may have more bytes than a request.
const UNPACKED = 20;

/** {archives: zips that only the service can open, loose: [{file, photo}], unlabelled: [{file, photo}], labelled: [{label,
 * file, photo}]} by the rule for folders, of each zip and of all else, in natural order, photos shrunk. `told`: what there is
 * to know about the reading, with whether loose images are added to a class. `reading` is called with how many of how many
 * images have been read; `noLabels`: none has a label, whatever folder it is in. */
export async function sorted(entries, { reading = () => {}, noLabels = false } = {}) {
  const zips = entries.filter((entry) => entry.file && isZip(entry) && !isLitter(entry.path));
  const opened = await Promise.all(zips.map(async ({ file }) => (await import("./zip.js")).unpacked(file, UNPACKED * limits.bytes)));
  const archives = zips.filter((_, at) => !opened[at]).map(({ file }) => file);
  const others = entries.filter((entry) => !zips.includes(entry)).map(({ file, path }) => ({ path, open: async () => file }));
  const found = await Promise.all([others, ...opened.filter(Boolean)].filter((each) => each.length).map((each) => ruled(each, noLabels)));
  const wanted = found.flatMap(({ loose, labelled, unlabelled }) => [...loose, ...labelled, ...unlabelled]);
  const images = await imagesOf(wanted.map(({ open }) => open), (done) => reading(done, wanted.length));
  const all = wanted.map(({ label }, at) => ({ ...images[at], label }));
  const without = (no) => all.filter(({ label }) => label === no).map(({ label, ...image }) => image);
  return {
    archives,
    loose: without(undefined),
    unlabelled: without(null),
    labelled: all.filter(({ label }) => typeof label === "string"),
    told: (looseAdded) => found.flatMap(({ layout }) => notes(layout, looseAdded)),
  };
}

/** {layout, loose: [{open}], labelled: [{open, label}], unlabelled: [{open, label: null}]} for files in folders: [{path,
 * open}]. */
async function ruled(entries, noLabels) {
  const visible = entries.filter(({ path }) => !isLitter(path)).sort((one, other) => naturally(one.path, other.path));
  const byRule = read(visible.map(({ path }) => path), await unnamedImages(visible));
  const layout = noLabels ? withoutLabels(byRule) : byRule;
  const files = new Map();
  for (const { open, path } of visible) files.set(path, [...(files.get(path) ?? []), open]);
  const next = (path) => files.get(path).shift();  // files of several folders may have one name
  // A single class with images around it: they lie in a class folder, too, and not in one that wraps everything.
  const inner = new Set(layout.images.map(({ label }) => label)).size === 1;
  const loose = layout.loose.map((path) => ({ open: next(path), label: inner ? path.split("/").at(-2) : undefined }));
  return {
    layout,
    loose: loose.filter(({ label }) => label === undefined),
    labelled: [...loose.filter(({ label }) => label !== undefined), ...layout.images.map(({ path, label }) => ({ open: next(path), label }))],
    unlabelled: layout.unlabelled.map((path) => ({ open: next(path), label: null })),
  };
}

/** A layout as it is if none of its images has a label. */
const withoutLabels = ({ images, loose, unlabelled, ...rest }) =>
  ({ ...rest, images: [], loose: [], splits: [], joined: [], unlabelled: natural([...images.map(({ path }) => path), ...loose, ...unlabelled]) });

/** What to say of a zip in `archives` where it cannot be sent as it is. */
export const onlyByTheService = ({ name }) => `${name}: the browser cannot open this zip; drop its images or folders instead`;

export const chosen = (input) =>
  [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

/** The images in the clipboard. */
export const pasted = (event) => [...event.clipboardData.files].map((file) => ({ file, path: file.name }));

/** The dropped files, including those in folders, and the folders, whose file is null. */
export async function dropped(transfer) {
  // Read before the first await: the list is emptied as soon as the event has been handled.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, path: file.name }));
  return (await Promise.all(entries.map(walk))).flat();
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((give, refuse) => entry.file(give, refuse));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((give, refuse) => reader.readEntries(give, refuse));
    if (!some.length) break;
    found.push(...some);
  }
  return [{ file: null, path: `${entry.fullPath.replace(/^\//, "")}/` }, ...(await Promise.all(found.map(walk))).flat()];
}

export function fromBase64(text, name) {
  return new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type: name.endsWith(".jpg") ? "image/jpeg" : "image/png" });
}

/** Accepts files dropped on an element; `take` is called with them as for `sorted`. */
export function dropTarget(element, take) {
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.add("over");
  };
  element.addEventListener("dragenter", over);
  element.addEventListener("dragover", over);
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("over");
    take(await dropped(event.dataTransfer));
  });
}
