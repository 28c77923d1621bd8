// Image files as they come in: big ones are shrunk before they are sent, and photos are told from drawings.

export const LONGER_SIDE = 512;
const QUALITY = 0.92;
// A decoded photo of 12 megapixels takes 48 MB.
const AT_ONCE = 2;
// What phones write, which not every browser reads.
const OF_PHONES = /\.(heic|heif|hif|avif)$/i;

/** [{file, photo}] for files, in the same order; `files` are functions that give them, since not all may fit into memory at
 * once. `told` is called with how many of them have been read. */
export async function imagesOf(files, told = () => {}) {
  const images = [];
  let [next, done] = [0, 0];
  const read = async () => {
    while (next < files.length) {
      const at = next++;
      images[at] = await imageOf(await files[at]());
      told(++done);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, read));
  return images;
}

/** Files that the browser cannot read are sent as they are: the service reads more, and says what it cannot read. */
async function imageOf(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (!bitmap) return { file, photo: OF_PHONES.test(file.name) };
  try {
    return { file: await shrunk(file, bitmap), photo: !isDrawing(bitmap) };
  } finally {
    bitmap.close();
  }
}

async function shrunk(file, bitmap) {
  if (Math.max(bitmap.width, bitmap.height) <= LONGER_SIDE) return file;
  // Without loss what may be a drawing, or transparent.
  const type = /^image\/(jpeg|heic|heif)$/.test(file.type) || /\.(jpe?g|heic|heif)$/i.test(file.name) ? "image/jpeg" : "image/png";
  const smaller = await encoded(bitmap, bitmap.width, bitmap.height, type, file.name);
  return smaller.size < file.size ? smaller : file;
}

/** A picture or video frame as a file whose longer side has at most 512 pixels. */
export async function encoded(source, width, height, type, name) {
  const scale = Math.min(1, LONGER_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((give) => canvas.toBlob(give, type, QUALITY));
  return new File([blob], name, { type });
}

/** Whether it has even, colourless paper on most of it and some ink that stands out. True of all of 300 characters of
 * Omniglot, and of 3 % of photos. */
function isDrawing(bitmap) {
  const side = 48;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, side, side);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, side, side);
  const { data } = pen.getImageData(0, 0, side, side);
  const pixels = Array.from({ length: side * side }, (_, at) => data.subarray(4 * at, 4 * at + 3));
  const paper = commonest(pixels);
  const share = (holds) => pixels.filter(holds).length / pixels.length;
  const apart = (pixel) => Math.max(...pixel.map((value, channel) => Math.abs(value - paper[channel])));
  return share((pixel) => apart(pixel) < 16) > 0.6 && share((pixel) => apart(pixel) > 90) > 0.005
    && share((pixel) => Math.max(...pixel) - Math.min(...pixel) > 48) < 0.05;
}

/** The mean of the pixels in the fullest of 512 boxes of colours. */
function commonest(pixels) {
  const boxes = new Map();
  for (const pixel of pixels) {
    const box = (pixel[0] >> 5) * 64 + (pixel[1] >> 5) * 8 + (pixel[2] >> 5);
    if (!boxes.has(box)) boxes.set(box, []);
    boxes.get(box).push(pixel);
  }
  const most = [...boxes.values()].reduce((one, other) => (other.length > one.length ? other : one));
  return [0, 1, 2].map((channel) => most.reduce((sum, pixel) => sum + pixel[channel], 0) / most.length);
}
