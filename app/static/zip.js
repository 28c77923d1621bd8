// Zip files, opened and made in the browser.

import { isLitter } from "./layout.js";

const [ENTRY, LOCAL, END] = [0x02014b50, 0x04034b50, 0x06054b50];
const [END_BYTES, LONGEST_COMMENT, ZIP64] = [22, 0xffff, 0xffffffff];
const [ENCRYPTED, UTF8] = [0x1, 0x800];
const [STORED, DEFLATED] = [0, 8];
const VERSION = 20;
// Of names that leave their folder, are absolute, or cannot be read, the service says what is wrong.
const BAD_NAME = /^\/|^[A-Za-z]:|\\|(^|\/)\.{0,2}\/|(^|\/)\.\.?$|[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffd]/;

/** The files of a zip file and its folders, whose names end with "/": [{path, open}], where `open` gives the file. Null for
 * one that is left to the service: it knows more encodings of names, and says what it refuses. `most`: the bytes that the
 * files may have in all. */
export async function unpacked(zip, most) {
  const data = new DataView(await zip.arrayBuffer());
  const entries = entriesOf(data);
  if (!entries || entries.reduce((sum, { size }) => sum + size, 0) > most) return null;
  return entries.map((entry) => ({ path: entry.path, open: () => inflated(data, entry) }));
}

function entriesOf(data) {
  const end = endOf(data);
  if (end < 0) return null;
  const [count, first] = [data.getUint16(end + 10, true), data.getUint32(end + 16, true)];
  if (first === ZIP64) return null;
  const [entries, names] = [[], new Set()];
  let at = first;
  for (let read = 0; read < count; read += 1) {
    if (at + 46 > end || data.getUint32(at, true) !== ENTRY) return null;
    const [flags, method] = [data.getUint16(at + 8, true), data.getUint16(at + 10, true)];
    const [packed, size, local] = [20, 24, 42].map((offset) => data.getUint32(at + offset, true));
    const [name, extra, comment] = [28, 30, 32].map((offset) => data.getUint16(at + offset, true));
    const path = nameOf(new Uint8Array(data.buffer, at + 46, name));
    at += 46 + name + extra + comment;
    if (path !== null && isLitter(path)) continue;
    if (path === null || BAD_NAME.test(path) || names.has(path) || flags & ENCRYPTED || [packed, size, local].includes(ZIP64)) return null;
    if (extra && !(flags & UTF8) && /[^\x00-\x7f]/.test(path)) return null;  // another name may be there
    if (method !== STORED && method !== DEFLATED) return null;
    names.add(path);
    entries.push({ path, method, packed, size, local });
  }
  return entries;
}

function endOf(data) {
  const earliest = Math.max(0, data.byteLength - END_BYTES - LONGEST_COMMENT);
  for (let at = data.byteLength - END_BYTES; at >= earliest; at -= 1) if (data.getUint32(at, true) === END) return at;
  return -1;
}

function nameOf(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** The file of an entry; an empty one if it is damaged, which the service then refuses by its name. */
async function inflated(data, { path, method, packed, local }) {
  const name = path.split("/").at(-1);
  try {
    if (data.getUint32(local, true) !== LOCAL) throw new Error("there is no file");
    const begin = local + 30 + data.getUint16(local + 26, true) + data.getUint16(local + 28, true);
    const bytes = new Uint8Array(data.buffer, begin, packed);
    if (method === STORED) return new File([bytes], name);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new File([await new Response(stream).blob()], name);
  } catch {
    return new File([], name);
  }
}

/** A zip of these files, [{path, file}], which are stored as they are: images are compressed already. */
export async function packed(files) {
  const [parts, directory] = [[], []];
  let at = 0;
  for (const { path, file } of files) {
    const [name, bytes] = [new TextEncoder().encode(path), new Uint8Array(await file.arrayBuffer())];
    // Version, flags, method, time and date (of 1980, the earliest), CRC, both sizes, the length of the name.
    const common = [[VERSION, 2], [UTF8, 2], [STORED, 2], [0, 2], [0x21, 2], [crc32(bytes), 4], [bytes.length, 4], [bytes.length, 4], [name.length, 2]];
    const head = fields([[LOCAL, 4], ...common, [0, 2]]);
    parts.push(head, name, bytes);
    directory.push(fields([[ENTRY, 4], [VERSION, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 2], [0, 4], [at, 4]]), name);
    at += head.length + name.length + bytes.length;
  }
  const size = directory.reduce((sum, each) => sum + each.length, 0);
  const end = fields([[END, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [at, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Little-endian numbers: [[value, bytes]]. */
const fields = (numbers) => Uint8Array.from(numbers.flatMap(([value, bytes]) => Array.from({ length: bytes }, (_, at) => (value >>> (8 * at)) & 255)));

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let value = -1;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}
