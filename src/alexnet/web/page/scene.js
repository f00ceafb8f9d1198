/**
 * One picture in one network: layers, stages, weights.
 *
 * The bytes are a header in JSON and arrays behind it, little-endian. Stages that follow from
 * another to the bit (ReLU, dropout) are not in the file; they are computed when asked for.
 *
 * @typedef {object} Layer
 * @property {string} name
 * @property {string} kind conv, relu, tanh, lrn, spatialnorm, maxpool, dropout, linear
 * @property {[number, number, number]} input C, H, W
 * @property {[number, number, number]} output
 * @property {number} parameters
 * @property {number} multiply_adds
 * @property {number} receptive_field side in pixels, at most the picture's
 * @property {number} field side in pixels, the padding counted
 * @property {number} jump pixels between neighbouring cells
 * @property {number} offset pixel at which the field of cell 0 begins
 * @property {number} towers
 * @property {number} [kernels]
 * @property {number} [size]
 * @property {number} [stride]
 * @property {[number, number]} [padding]
 * @property {number} [groups]
 * @property {number} [units]
 * @property {number} [coefficient]
 * @property {number} [beta]
 * @property {number} [k]
 * @property {number} [rate]
 * @property {boolean} [inverted]
 * @property {Record<string, [string, string][]>} lines label and value, by language
 *
 * @typedef {object} Stage
 * @property {string} name
 * @property {Float32Array} data
 * @property {[number, number, number]} shape C, H, W
 * @property {number} towers
 * @property {boolean} flat units without height and width
 *
 * @typedef {object} Unit
 * @property {number} channel
 * @property {{jpeg: string, value: number}[]} patches
 * @property {string} [deconv] JPEG in base64
 * @property {[number, number, number, number]} [deconv_box] left, top, right, bottom
 * @property {[number, number]} [cell]
 * @property {number} [value]
 */

const MAGIC = "AXSCENE1";
const ALIGNED = 16;
/** @type {Record<string, any>} */
const KINDS = { f4: Float32Array, u1: Uint8Array, i4: Int32Array };

/** What is wrong with a scene, as a key of the words. */
export class SceneError extends Error {
  /** @param {string} key @param {string} [text] what a server said */
  constructor(key, text) {
    super(text ?? key);
    this.key = key;
    this.text = text;
  }
}

export class Scene {
  /** @param {ArrayBuffer} bytes */
  constructor(bytes) {
    const head = new Uint8Array(bytes, 0, MAGIC.length);
    if (String.fromCharCode(...head) !== MAGIC) throw new SceneError("error.scene");
    const length = new DataView(bytes).getUint32(MAGIC.length, true);
    const begin = MAGIC.length + 4;
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, begin, length)));
    this.bytes = bytes;
    this.start = Math.ceil((begin + length) / ALIGNED) * ALIGNED;
    this.header = header;
    this.network = header.network;
    /** @type {Layer[]} */
    this.layers = header.layers;
    this.picture = header.picture;
    this.classes = header.classes;
    this.learned = header.learned;
    this.preprocessing = header.preprocessing;
    /** @type {Record<string, Unit[]> | null} */
    this.units = header.units;
    /** @type {number} towers of the network */
    this.towers = Math.max(1, ...this.layers.filter((one) => one.kind !== "lrn").map((one) => one.towers ?? 1));
    /** @type {Map<string, {data: any, shape: number[]}>} */
    this.arrays = new Map();
    /** @type {Map<string, Stage | null>} */
    this.stages = new Map();
    /** @type {Map<string, Float32Array>} */
    this.strengths = new Map();
  }

  /**
   * @param {string} name
   * @returns {{data: any, shape: number[]} | null}
   */
  array(name) {
    const entry = this.header.arrays[name];
    if (!entry) return null;
    const known = this.arrays.get(name);
    if (known) return known;
    const count = entry.shape.reduce((/** @type {number} */ product, /** @type {number} */ side) => product * side, 1);
    const Kind = KINDS[entry.type];
    const size = Kind.BYTES_PER_ELEMENT;
    const raw = new Uint8Array(this.bytes, this.start + entry.offset, count * size);
    const whole = entry.planes && size > 1;
    const data = whole ? new Kind(joined(raw, size).buffer) : new Kind(this.bytes, raw.byteOffset, count);
    const found = { data, shape: entry.shape };
    this.arrays.set(name, found);
    return found;
  }

  /** @param {string} name @returns {Layer | undefined} */
  layer(name) {
    return this.layers.find((one) => one.name === name);
  }

  /** The stage that a layer reads: "input" for the first. @param {string} name */
  before(name) {
    const index = this.layers.findIndex((one) => one.name === name);
    return index > 0 ? this.layers[index - 1].name : "input";
  }

  /** The layer that reads a stage. @param {string} name @returns {Layer | undefined} */
  after(name) {
    return this.layers[this.layers.findIndex((one) => one.name === name) + 1];
  }

  /** Whether a layer's result is known; not so behind missing weights. @param {string} name */
  has(name) {
    return this.stage(name) !== null;
  }

  /**
   * A stage by name, null where the weights for it are missing.
   * @param {string} name
   * @returns {Stage | null}
   */
  stage(name) {
    const known = this.stages.get(name);
    if (known !== undefined) return known;
    const found = this.compute(name);
    this.stages.set(name, found);
    return found;
  }

  /** @param {string} name @returns {Stage | null} */
  compute(name) {
    const layer = this.layer(name);
    const stored = this.array(name);
    if (stored) {
      const [c, h = 1, w = 1] = stored.shape;
      return { name, data: stored.data, shape: [c, h, w], towers: this.split(layer, c), flat: stored.shape.length === 1 };
    }
    if (!layer || !["relu", "dropout"].includes(layer.kind)) return null;
    const source = this.stage(this.before(name));
    if (!source) return null;
    return { ...source, name, data: derived(layer, source.data), towers: this.split(layer, source.shape[0]) };
  }

  /**
   * Into how many towers the channels of a stage are split: the last layer has none.
   * @param {Layer | undefined} layer @param {number} channels
   */
  split(layer, channels) {
    if (!layer || layer === this.layers[this.layers.length - 1]) return 1;
    return channels % this.towers ? 1 : this.towers;
  }

  /** @param {string} name of a layer @param {number} channel counted over all towers */
  tower(name, channel) {
    const layer = /** @type {Layer} */ (this.layer(name));
    if (!layer) return 0;
    const towers = this.split(layer, layer.output[0]);
    return Math.floor(channel / (layer.output[0] / towers));
  }

  /**
   * How strong each map is on this picture: its largest value.
   * @param {string} name
   * @returns {Float32Array}
   */
  strength(name) {
    let found = this.strengths.get(name);
    const stage = this.stage(name);
    if (found || !stage) return found ?? new Float32Array();
    const [channels, height, width] = stage.shape;
    const area = height * width;
    found = new Float32Array(channels).fill(-Infinity);
    for (let c = 0, at = 0; c < channels; c++) {
      for (let end = at + area; at < end; at++) if (stage.data[at] > found[c]) found[c] = stage.data[at];
    }
    this.strengths.set(name, found);
    return found;
  }

  /** The channels of a stage from strong to weak. @param {string} name */
  ranked(name) {
    const strength = this.strength(name);
    return Array.from(strength.keys()).sort((a, b) => strength[b] - strength[a]);
  }

  /**
   * Where a map is largest.
   * @param {string} name @param {number} channel
   * @returns {[number, number]} row, column
   */
  peak(name, channel) {
    const stage = this.stage(name);
    if (!stage) return [0, 0];
    const [, height, width] = stage.shape;
    const map = stage.data.subarray(channel * height * width, (channel + 1) * height * width);
    let best = 0;
    for (let at = 1; at < map.length; at++) if (map[at] > map[best]) best = at;
    return [Math.floor(best / width), best % width];
  }

  /**
   * The box of pixels that a cell depends on, in the coordinates of the network's square. It may
   * reach beyond the square, into the padding.
   * @param {string} name @param {number} row @param {number} column
   */
  field(name, row, column) {
    const size = this.network.input_size;
    const layer = this.layer(name);
    if (!layer) return { left: column, top: row, side: 1 };
    if (layer.output[1] * layer.output[2] === 1 && !layer.stride) return { left: 0, top: 0, side: size };
    const { offset = 0, jump } = layer;
    return { left: offset + jump * column, top: offset + jump * row, side: layer.field ?? layer.receptive_field };
  }

  /**
   * The input channels that one channel of a convolution reads.
   * @param {Layer} layer @param {number} channel
   * @returns {[number, number]} the first, and how many
   */
  reads(layer, channel) {
    const groups = layer.groups ?? 1;
    const each = layer.input[0] / groups;
    return [Math.floor(channel / (layer.output[0] / groups)) * each, each];
  }
}

/**
 * Numbers out of their planes: the first bytes of all, then the second ones and so on.
 * @param {Uint8Array} planes @param {number} size bytes of a number
 */
function joined(planes, size) {
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0, from = 0; plane < size; plane++) {
    for (let to = plane; to < bytes.length; to += size) bytes[to] = planes[from++];
  }
  return bytes;
}

/** @param {Layer} layer @param {Float32Array} data */
function derived(layer, data) {
  if (layer.kind === "relu") return data.map((value) => (value > 0 ? value : 0));
  if (layer.inverted) return data;
  const kept = 1 - (layer.rate ?? 0);
  return data.map((value) => value * kept);
}

/**
 * Read a scene that was packed with gzip.
 * @param {Uint8Array | Blob} packed
 * @returns {Promise<Scene>}
 */
export async function unpack(packed) {
  if (typeof DecompressionStream === "undefined") throw new SceneError("error.browser");
  const blob = packed instanceof Blob ? packed : new Blob([/** @type {any} */ (packed)]);
  const stream = blob.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Scene(await new Response(stream).arrayBuffer());
}

/** The bytes of base64 text. @param {string} text */
export function fromBase64(text) {
  if ("fromBase64" in Uint8Array) return /** @type {any} */ (Uint8Array).fromBase64(text);
  const raw = atob(text.replace(/\s+/g, ""));
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return bytes;
}
