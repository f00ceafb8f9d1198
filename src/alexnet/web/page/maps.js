/**
 * Maps as pictures on canvas: one dot for each value.
 *
 * Hue says the tower, blue or orange; grey says negative. Zero is the colour of the paper, so that
 * a map reads as a drawing in light and as a glow in the dark.
 *
 * @typedef {import("scene").Stage} Stage
 * @typedef {{canvas: HTMLCanvasElement, columns: number, rows: number, pitchX: number, pitchY: number, order: number[]}} Mosaic
 */

/** @typedef {[number, number, number]} Colour */

/** @type {Record<string, {zero: Colour, hues: [Colour, Colour][], grey: Colour}>} */
const PALETTES = {
  // hues: tower 1, tower 2, no tower; each at half and at full strength
  light: {
    zero: [255, 255, 255],
    hues: [
      [
        [86, 160, 220],
        [8, 48, 107],
      ],
      [
        [246, 156, 76],
        [122, 42, 0],
      ],
      [
        [72, 168, 150],
        [4, 74, 66],
      ],
    ],
    grey: [96, 94, 104],
  },
  dark: {
    zero: [18, 20, 26],
    hues: [
      [
        [40, 128, 210],
        [214, 238, 255],
      ],
      [
        [214, 104, 22],
        [255, 236, 210],
      ],
      [
        [30, 148, 128],
        [212, 255, 244],
      ],
    ],
    grey: [150, 148, 158],
  },
};

/** @type {Map<string, Uint32Array>} */
const tables = new Map();

/** Whether the page is dark. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/**
 * 511 colours from the most negative to the most positive value.
 * @param {number} hue 0 and 1 for the towers, 2 for neither
 */
function table(hue) {
  const theme = isDark() ? "dark" : "light";
  const key = `${theme}${hue}`;
  let found = tables.get(key);
  if (found) return found;
  const { zero, hues, grey } = PALETTES[theme];
  const [half, full] = hues[hue];
  found = new Uint32Array(511);
  for (let at = 0; at < 511; at++) {
    const share = (at - 255) / 255;
    const stops = share < 0 ? [zero, mixed(zero, grey, 0.5), grey] : [zero, half, full];
    const [r, g, b] = along(stops, Math.abs(share));
    found[at] = 0xff000000 | (b << 16) | (g << 8) | r;
  }
  tables.set(key, found);
  return found;
}

/** @param {Colour} a @param {Colour} b @param {number} share @returns {Colour} */
function mixed(a, b, share) {
  return /** @type {Colour} */ (a.map((value, at) => Math.round(value + (b[at] - value) * share)));
}

/** @param {Colour[]} stops @param {number} share @returns {Colour} */
function along(stops, share) {
  return share < 0.5 ? mixed(stops[0], stops[1], share * 2) : mixed(stops[1], stops[2], share * 2 - 1);
}

/** The hue of a channel's tower. @param {Stage} stage @param {number} channel */
export function hueOf(stage, channel) {
  return stage.towers === 1
    ? stage.name === "fc8" || stage.name === "input"
      ? 2
      : 0
    : Math.min(1, Math.floor(channel / (stage.shape[0] / stage.towers)));
}

/** @type {WeakMap<Stage, number>} */
const scales = new WeakMap();

/**
 * The value that gets the full colour: larger than all but one in 100.
 * @param {Stage} stage
 */
export function scaleOf(stage) {
  let found = scales.get(stage);
  if (found !== undefined) return found;
  const step = Math.max(1, Math.floor(stage.data.length / 20000));
  const sizes = [];
  for (let at = 0; at < stage.data.length; at += step) if (stage.data[at]) sizes.push(Math.abs(stage.data[at]));
  sizes.sort((a, b) => a - b);
  found = sizes[Math.floor((sizes.length - 1) * 0.99)] || 1;
  scales.set(stage, found);
  return found;
}

/**
 * The value that gets the full colour in one map: between the map's own largest and the stage's, so
 * that weak maps can be read and strong ones still look strong.
 * @param {Stage} stage @param {number} channel
 */
export function scaleIn(stage, channel) {
  const area = stage.shape[1] * stage.shape[2];
  const whole = scaleOf(stage);
  if (area === 1) return whole;
  let own = 0;
  for (let at = channel * area, end = at + area; at < end; at++) own = Math.max(own, Math.abs(stage.data[at]));
  return own ? Math.sqrt(own * Math.max(whole, own / 4)) : whole;
}

/** Brightness of a value: the square root lets weak responses be seen. @param {number} value @param {number} scale */
function level(value, scale) {
  const share = Math.min(1, Math.abs(value) / scale);
  return 255 + Math.sign(value) * Math.round(255 * share ** 0.6);
}

/** @param {number} width @param {number} height */
function sheet(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  return canvas;
}

/**
 * How many maps beside each other: as square as whole maps allow.
 * @param {number} count
 */
export function grid(count) {
  const columns = Math.ceil(Math.sqrt(count));
  return { columns, rows: Math.ceil(count / columns) };
}

/** @type {WeakMap<Stage, Map<string, Mosaic>>} */
const mosaics = new WeakMap();

/**
 * Some maps of a stage, side by side; drawn once for each order and theme.
 * @param {Stage} stage
 * @param {number[]} order channels
 * @param {number} [columns] beside each other
 * @returns {Mosaic}
 */
export function mosaic(stage, order, columns = grid(order.length).columns) {
  let known = mosaics.get(stage);
  if (!known) mosaics.set(stage, (known = new Map()));
  const key = `${isDark()} ${columns} ${order.join()}`;
  const found = known.get(key);
  if (found) return found;
  const [, height, width] = stage.shape;
  const gap = height > 3 ? 1 : 0;
  const rows = Math.ceil(order.length / columns);
  const canvas = sheet(columns * (width + gap) - gap, rows * (height + gap) - gap);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  order.forEach((channel, at) => {
    const scale = scaleIn(stage, channel);
    const colours = table(hueOf(stage, channel));
    const left = (at % columns) * (width + gap);
    const top = Math.floor(at / columns) * (height + gap);
    let from = channel * height * width;
    for (let row = 0; row < height; row++) {
      let to = (top + row) * canvas.width + left;
      for (let column = 0; column < width; column++) pixels[to++] = colours[level(stage.data[from++], scale)];
    }
  });
  context.putImageData(image, 0, 0);
  const made = { canvas, columns, rows, pitchX: width + gap, pitchY: height + gap, order };
  known.set(key, made);
  return made;
}

/**
 * A copy of a canvas to put into the page; the drawn one is kept.
 * @param {HTMLCanvasElement} source
 */
export function copy(source) {
  const canvas = sheet(source.width, source.height);
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(source, 0, 0);
  return canvas;
}

/**
 * Values as a picture, one dot each, into a canvas of any size.
 * @param {HTMLCanvasElement} canvas becomes width × height
 * @param {ArrayLike<number>} values row by row @param {number} width @param {number} height
 * @param {number} hue @param {number} scale
 */
export function draw(canvas, values, width, height, hue, scale) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = table(hue);
  for (let at = 0; at < pixels.length; at++) pixels[at] = colours[level(values[at], scale)];
  context.putImageData(image, 0, 0);
}

/**
 * The colour of a single value, for cells with numbers in them, and that of a text on it.
 * @param {number} value @param {number} scale @param {number} hue
 */
export function colour(value, scale, hue) {
  const packed = table(hue)[level(value, scale)];
  const [r, g, b] = [packed & 255, (packed >> 8) & 255, (packed >> 16) & 255];
  const bright = 0.299 * r + 0.587 * g + 0.114 * b;
  return { fill: `rgb(${r} ${g} ${b})`, text: bright > 130 ? "#101014" : "#ffffff" };
}

/**
 * The square as the network sees it.
 * @param {{data: Uint8Array, shape: number[]}} seen H, W, 3
 */
export function photo({ data, shape: [height, width] }) {
  const canvas = sheet(width, height);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  for (let from = 0, to = 0; from < data.length; to += 4) {
    image.data[to] = data[from++];
    image.data[to + 1] = data[from++];
    image.data[to + 2] = data[from++];
    image.data[to + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
