// Files and folders that the user chooses or drops.

/** For file inputs: not every system counts the endings after the first one as images. */
export const ACCEPTED = "image/*,.heic,.heif,.hif,.avif,.bmp,.tif,.tiff,.jfif";

const isZip = (file) => /\.zip$/i.test(file.name) || file.type === "application/zip";
const isLitter = (file) => file.name.startsWith(".") || file.name === "Thumbs.db" || file.name === "desktop.ini";

/** {archive} for a zip, else {loose: [file], labelled: [{label, file}]}; a file's label is the name of its folder. */
export function sorted(entries) {
  const wanted = entries.filter(({ file }) => !isLitter(file));
  const zip = wanted.find(({ file }) => isZip(file));
  if (zip) return { archive: zip.file, loose: [], labelled: [] };
  const folder = (path) => path.split("/").at(-2);
  return {
    archive: null,
    loose: wanted.filter(({ path }) => !folder(path)).map(({ file }) => file),
    labelled: wanted.filter(({ path }) => folder(path)).map(({ path, file }) => ({ label: folder(path), file })),
  };
}

export const chosen = (input) =>
  [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));

/** The dropped files, including those in folders. */
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
  return (await Promise.all(found.map(walk))).flat();
}

export function fromBase64(text, name) {
  return new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type: "image/png" });
}

/** Accepts files dropped on an element; `take` is called with the result of `sorted`. */
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
    take(sorted(await dropped(event.dataTransfer)));
  });
}
