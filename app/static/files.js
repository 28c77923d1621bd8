// Files and folders that the user chooses or drops.

import { isLitter, naturally, notes, read, unnamedImages } from "./layout.js";
import { imagesOf } from "./photo.js";

/** For file inputs: not every system counts the endings after the first one as images. */
export const ACCEPTED = "image/*,.heic,.heif,.hif,.avif,.bmp,.tif,.tiff,.jfif";

const isZip = ({ file, path }) => !path.includes("/") && (/\.zip$/i.test(file.name) || file.type === "application/zip");

/** {archive} for a zip alone, else {loose: [{file, photo}], labelled: [{label, file, photo}]} by the rule for folders, in
 * natural order, photos shrunk. `told`: what there is to know about the reading, with whether loose images are added to a
 * class. `reading` is called with how many of how many images have been read. */
export async function sorted(entries, reading = () => {}) {
  const visible = entries.filter(({ path }) => !isLitter(path)).sort((one, other) => naturally(one.path, other.path));
  const found = read(visible.map(({ path }) => path), await unnamedImages(visible.filter(({ file }) => file)));
  const zip = visible.find((entry) => entry.file && isZip(entry));
  if (zip && !found.images.length && !found.loose.length) return { archive: zip.file, loose: [], labelled: [], told: () => [] };
  const files = new Map();
  for (const { file, path } of visible) files.set(path, [...(files.get(path) ?? []), file]);
  const next = (path) => files.get(path).shift();  // files of several folders may have one name
  const wanted = [...found.loose, ...found.images.map(({ path }) => path)].map(next);
  const images = await imagesOf(wanted, (done) => reading(done, wanted.length));
  return {
    archive: null,
    loose: images.slice(0, found.loose.length),
    labelled: images.slice(found.loose.length).map((image, at) => ({ ...image, label: found.images[at].label })),
    told: (looseAdded) => notes(found, looseAdded),
  };
}

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
  return new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type: "image/png" });
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
