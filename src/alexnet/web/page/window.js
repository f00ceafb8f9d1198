/**
 * Where a cell looks: the window of a layer, and the numbers in it.
 *
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {import("scene").Stage} Stage
 * @typedef {{left: number, top: number, size: number}} Window in cells of the layer's input
 */

/**
 * @param {Layer} layer @param {number} row @param {number} column
 * @returns {Window} for layers that look at one cell, that cell
 */
export function windowOf(layer, row, column) {
  if (layer.kind === "spatialnorm") {
    const size = layer.size ?? 1;
    return { left: column - (size >> 1), top: row - (size >> 1), size };
  }
  if (layer.kind !== "conv" && layer.kind !== "maxpool") return { left: column, top: row, size: 1 };
  const before = layer.padding?.[0] ?? 0;
  const stride = layer.stride ?? 1;
  return { left: column * stride - before, top: row * stride - before, size: layer.size ?? 1 };
}

/**
 * The values of one map in a window, row by row; null where the window reaches beyond the map.
 * @param {Stage} stage @param {number} channel @param {Window} window
 * @returns {(number | null)[]}
 */
export function valuesIn(stage, channel, { left, top, size }) {
  const [, height, width] = stage.shape;
  const start = channel * height * width;
  /** @type {(number | null)[]} */
  const values = [];
  for (let y = top; y < top + size; y++) {
    for (let x = left; x < left + size; x++) {
      values.push(x >= 0 && x < width && y >= 0 && y < height ? stage.data[start + y * width + x] : null);
    }
  }
  return values;
}

/** A stage's value. @param {Stage} stage @param {number} channel @param {number} row @param {number} column */
export function valueAt(stage, channel, row, column) {
  const [, height, width] = stage.shape;
  return stage.data[(channel * height + row) * width + column];
}

/**
 * A convolution at one cell: what each map that it reads adds.
 * @param {Scene} scene @param {Layer} layer @param {number} channel @param {number} row @param {number} column
 */
export function convolve(scene, layer, channel, row, column) {
  const stage = scene.stage(scene.before(layer.name));
  const weight = scene.array(`${layer.name}.weight`);
  const bias = scene.array(`${layer.name}.bias`);
  if (!stage || !weight || !bias) return null;
  const window = windowOf(layer, row, column);
  const [first, count] = scene.reads(layer, channel);
  const area = window.size ** 2;
  const partial = new Float64Array(count);
  let sum = 0;
  for (let k = 0; k < count; k++) {
    const kernel = weight.data.subarray((channel * count + k) * area, (channel * count + k + 1) * area);
    const values = valuesIn(stage, first + k, window);
    for (let at = 0; at < area; at++) partial[k] += (values[at] ?? 0) * kernel[at];
    sum += partial[k];
  }
  return { stage, window, first, partial, sum, bias: bias.data[channel], value: sum + bias.data[channel] };
}

/**
 * Normalisation at one cell: the neighbours, and what they divide by.
 * @param {Scene} scene @param {Layer} layer @param {number} channel @param {number} row @param {number} column
 */
export function normalise(scene, layer, channel, row, column) {
  const stage = scene.stage(scene.before(layer.name));
  if (!stage) return null;
  const before = valueAt(stage, channel, row, column);
  /** @type {{channel: number, value: number, counts: boolean, other: boolean}[]} */
  const neighbours = [];
  let sum = 0;
  if (layer.kind === "spatialnorm") {
    for (const value of valuesIn(stage, channel, windowOf(layer, row, column))) sum += (value ?? 0) ** 2;
  } else {
    const reach = (layer.size ?? 5) >> 1;
    const channels = stage.shape[0];
    const each = channels / (layer.towers || 1);
    for (let one = channel - reach; one <= channel + reach; one++) {
      const exists = one >= 0 && one < channels;
      const counts = exists && Math.floor(one / each) === Math.floor(channel / each);
      const value = exists ? valueAt(stage, one, row, column) : 0;
      if (counts) sum += value * value;
      neighbours.push({ channel: one, value, counts, other: exists && !counts });
    }
  }
  const inner = (layer.k ?? 1) + (layer.coefficient ?? 0) * sum;
  const denominator = inner ** (layer.beta ?? 0.75);
  return { stage, before, neighbours, sum, inner, denominator, value: before / denominator };
}

/**
 * A unit of a fully connected layer: what each input adds. Null where the scene does not carry it.
 * @param {Scene} scene @param {Layer} layer @param {number} unit
 */
export function connect(scene, layer, unit) {
  const stage = scene.stage(scene.before(layer.name));
  const rows = scene.array(`${layer.name}.rows`);
  const weight = scene.array(`${layer.name}.weight`);
  const bias = scene.array(`${layer.name}.bias`);
  const place = rows ? rows.data.indexOf(unit) : -1;
  if (!stage || !weight || !bias || place < 0) return null;
  const count = stage.data.length;
  const own = weight.data.subarray(place * count, (place + 1) * count);
  const products = new Float64Array(count);
  let sum = 0;
  for (let at = 0; at < count; at++) sum += products[at] = own[at] * stage.data[at];
  return { stage, weight: own, products, sum, bias: bias.data[place], value: sum + bias.data[place] };
}
