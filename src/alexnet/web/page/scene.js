// A scene: one network on one picture, as `web/scene.py` writes it.

const MAGIC = "AXSCENE1";
const ALIGNED = 16;
const TYPES = {f4: Float32Array, u1: Uint8Array, i4: Int32Array};

export class Scene {
  /** @param {ArrayBuffer} buffer */
  constructor(buffer) {
    const head = new Uint8Array(buffer, 0, MAGIC.length);
    if (String.fromCharCode(...head) !== MAGIC) throw new Error("not a scene");
    const length = new DataView(buffer).getUint32(MAGIC.length, true);
    const begin = MAGIC.length + 4;
    /** What the scene says, see web/scene.py. */
    this.data = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, begin, length)));
    this.buffer = buffer;
    this.start = Math.ceil((begin + length) / ALIGNED) * ALIGNED;
  }

  /** An array by name, as a typed array. @param {string} name */
  array(name) {
    const {offset, shape, type} = this.data.arrays[name];
    const count = shape.reduce((product, side) => product * side, 1);
    return new TYPES[type](this.buffer, this.start + offset, count);
  }

  /** The scene in the element `scene` of an exported page. */
  static async embedded() {
    const text = document.getElementById("scene").textContent.trim();
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Scene(await new Response(stream).arrayBuffer());
  }
}
