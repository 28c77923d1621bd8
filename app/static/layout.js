// How a folder is read: names of files -> classes, and what is said about the rest.
//
// The copy of lamanas_core/layout.py for the page; tests/layouts.json holds both to one table. See docs/folders.md.

const IMAGE_SUFFIXES = new Set(
  "png apng jpg jpeg jpe jfif jif webp gif bmp dib tif tiff heic heif hif avif jp2 jxl ppm pgm pbm pnm".split(" "));
const LITTER = new Set([
  "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
  "@eadir", "lost+found",
]);
const SPLITS = ["train", "val", "test"];
const SPLIT_NAMES = new Map([
  ["train", "train"], ["training", "train"],
  ["val", "val"], ["valid", "val"], ["validation", "val"],
  ["test", "test"], ["testing", "test"],
]);
/** A folder of this name, in any case and at any depth, has images without a label; it is never a class. */
export const UNLABELLED_FOLDER = "_unlabelled";
const LISTED = 10;
const SPACES = "\\t\\n\\v\\f\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff";
const ENDS = new RegExp(`^[${SPACES}]+|[${SPACES}]+$`, "g");
const SIGNATURES = [[0, "\x89PNG\r\n"], [0, "\xff\xd8\xff"], [0, "GIF8"], [0, "BM"], [0, "II*\0"], [0, "MM\0*"],
  [4, "ftypheic"], [4, "ftypmif1"], [4, "ftypavif"], [8, "WEBP"]];
const HEAD = 16;

/** {images: [{path, label, split}], unlabelled, loose, skipped, empty, splits, joined} for paths separated by "/"; a folder's ends
 * with "/". `unnamed`: the set of files without a suffix that are images by their first bytes. */
export function read(paths, unnamed = new Set()) {
  const visible = paths.filter((path) => !isLitter(path));
  const files = visible.filter((path) => !path.endsWith("/"));
  const isAnImage = (path) => isImage(path) || unnamed.has(path);
  const images = files.filter(isAnImage);
  const folders = unwrapped(images.filter((path) => !isUnlabelled(path)).map((path) => [path, path.split("/").slice(0, -1).filter(trimmed)]));
  const splits = splitsOf(folders.map(([, folder]) => folder));
  let placed = folders.map(([path, folder]) => [path, splits.size ? folder.slice(1) : folder, splits.get(folder[0]) ?? null]);
  if (splits.size) {
    placed = placed.map(([path, folder, split]) => [path, split ? folder : [], split]);
    const inner = unwrapped(placed.map(([path, folder]) => [path, folder]));
    placed = placed.map(([path, , split], at) => [path, inner[at][1], split]);
  }
  return {
    images: placed.filter(([, folder]) => folder.length).map(([path, folder, split]) => ({ path, label: label(folder), split })),
    unlabelled: images.filter(isUnlabelled),
    loose: natural(placed.filter(([, folder]) => !folder.length).map(([path]) => path)),
    skipped: natural([...new Set(files.filter((path) => !isAnImage(path)))]),
    empty: empty(visible),
    splits: natural([...splits.keys()]).sort((one, other) => SPLITS.indexOf(splits.get(one)) - SPLITS.indexOf(splits.get(other))),
    joined: joined(placed.map(([, folder]) => folder).filter((folder) => folder.length)),
  };
}

/** What is to be told about how a folder was read for adapting, a sentence each. `looseAdded`: loose images have got a
 * class in some other way. */
export function notes(found, looseAdded = false) {
  const added = found.images.length + found.unlabelled.length + (looseAdded ? found.loose.length : 0);
  const skipped = natural([...found.skipped, ...(looseAdded ? [] : found.loose)]);
  const told = skipped.length ? [`${added} added, ${skipped.length} skipped: ${listed(skipped)}`] : [];
  if (found.loose.length && !looseAdded) told.push(`images outside class folders were skipped: ${listed(found.loose)}`);
  if (found.empty.length) told.push(`folders without images: ${listed(found.empty)}`);
  if (found.splits.length) {
    told.push(`${found.splits.slice(0, -1).join(", ")} and ${found.splits.at(-1)} are splits: the images of a class are joined`);
  }
  const nested = natural(found.images.map((image) => image.label).filter((name) => name.includes("/")));
  if (nested.length) told.push(`folders are nested: a class is named by the path of its folder, e.g. ${nested[0]}`);
  for (const name of found.joined) told.push(`folders whose names look the same are one class: ${name}`);
  return told;
}

/** Whether a file or folder is hidden, lies in a hidden folder, or is left by an operating system. */
export const isLitter = (path) =>
  path.replace(/\/+$/, "").split("/").some((part) => part.startsWith(".") || LITTER.has(part.toLowerCase()));

function isImage(path) {
  const name = path.split("/").at(-1);
  return name.includes(".") && IMAGE_SUFFIXES.has(trimmed(name.split(".").at(-1)).toLowerCase());
}

const isUnlabelled = (path) => path.split("/").slice(0, -1).some((part) => trimmed(part).toLowerCase() === UNLABELLED_FOLDER);

/** The paths of those files without a suffix that begin as images do. `entries`: [{path, open}], folders among them. */
export async function unnamedImages(entries) {
  const found = new Set();
  for (const { open, path } of entries) {
    if (path.endsWith("/") || path.split("/").at(-1).includes(".") || isLitter(path)) continue;
    const head = String.fromCharCode(...new Uint8Array(await (await open()).slice(0, HEAD).arrayBuffer()));
    if (SIGNATURES.some(([at, known]) => head.startsWith(known, at))) found.add(path);
  }
  return found;
}

const trimmed = (name) => name.replace(ENDS, "");
const label = (folder) => folder.map((part) => trimmed(part.normalize("NFC"))).join("/");

/** In the order in which people list them: "image 2" before "image 10", whatever the case. */
export const natural = (names) => [...names].sort(naturally);

export function naturally(one, other) {
  const [mine, yours] = [one, other].map((name) => name.toLowerCase().split(/([0-9]+)/));
  for (let at = 0; at < Math.min(mine.length, yours.length); at += 1) {
    const [left, right] = [mine[at], yours[at]].map((part) => (at % 2 ? part.replace(/^0+/, "") : part));
    const order = (at % 2 ? left.length - right.length : 0) || byCodePoint(left, right);
    if (order) return order;
  }
  return mine.length - yours.length || byCodePoint(one, other);
}

function byCodePoint(one, other) {
  const [mine, yours] = [[...one], [...other]];
  const at = mine.findIndex((letter, place) => letter !== yours[place]);
  if (at < 0) return mine.length - yours.length;
  return at < yours.length ? mine[at].codePointAt(0) - yours[at].codePointAt(0) : 1;
}

const listed = (names) =>
  names.slice(0, LISTED).join(", ") + (names.length > LISTED ? ` and ${names.length - LISTED} more` : "");

/** Without the folders that wrap everything: while all images in folders are in one, and some deeper in it. */
function unwrapped(folders) {
  for (;;) {
    const inside = folders.filter(([, folder]) => folder.length);
    const outermost = new Set(inside.map(([, folder]) => folder[0]));
    if (outermost.size !== 1 || inside.every(([, folder]) => folder.length === 1)) return folders;
    folders = folders.map(([path, folder]) => [path, folder.slice(1)]);
  }
}

/** Which of the outermost folders are splits, as a map to their meaning; empty if they are classes. */
function splitsOf(folders) {
  const tops = new Set(folders.filter((folder) => folder.length).map((folder) => folder[0]));
  const named = new Map();
  for (const top of tops) {
    const split = SPLIT_NAMES.get(trimmed(top).toLowerCase());
    if (split) named.set(top, split);
  }
  if (new Set(named.values()).size < 2) return new Map();
  const holders = new Map();
  for (const folder of folders.filter((each) => each.length > 1 && named.has(each[0]))) {
    const name = label(folder.slice(1));
    holders.set(name, (holders.get(name) ?? new Set()).add(named.get(folder[0])));
  }
  const common = [...holders.values()].some((splits) => splits.size > 1);
  return common || (holders.size && named.size === tops.size) ? named : new Map();
}

function joined(folders) {
  const spellings = new Map();
  for (const folder of folders) {
    const name = label(folder);
    spellings.set(name, (spellings.get(name) ?? new Set()).add(folder.join("/")));
  }
  return natural([...spellings].filter(([, there]) => there.size > 1).map(([name]) => name));
}

function empty(visible) {
  const above = (path) => [...path.matchAll(/\//g)].map(({ index }) => path.slice(0, index + 1));
  const inhabited = new Set(visible.filter((path) => !path.endsWith("/")).flatMap(above));
  const bare = new Set(visible.filter((path) => path.endsWith("/") && !inhabited.has(path)));
  return natural([...bare].filter((path) => !above(path.slice(0, -1)).some((folder) => bare.has(folder))));
}
