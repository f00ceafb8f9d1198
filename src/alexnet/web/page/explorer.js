/**
 * Three planes side by side: the picture, what a layer reads, what it gives. A cell of the last is
 * chosen by pointer or arrow keys; the others show where it looks, padding and all.
 *
 * @typedef {import("main").App} App
 * @typedef {import("main").State} State
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {import("scene").Stage} Stage
 * @typedef {{left: number, top: number, width: number, height: number}} Extent in cells
 */

import { html, replace, svg } from "element";
import { draw, grid, hueOf, mosaic, photo, scaleIn } from "maps";
import { windowOf } from "window";

const LONGEST = 14000; // ms that a window slides over a map
const SLOWEST = 250; // ms that it rests on a cell
const JUMP = 5; // cells that an arrow key with Shift goes

/** A picture of cells with marks on it, in the cells' coordinates. */
class Plane {
  /** @param {string} name */
  constructor(name) {
    this.canvas = html("canvas");
    this.marks = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
    this.box = html("div", { class: `plane ${name}` }, this.canvas, this.marks);
    this.caption = html("figcaption");
    this.root = html("figure", { class: "plane-figure" }, this.box, this.caption);
    /** @type {Extent} */
    this.extent = { left: 0, top: 0, width: 1, height: 1 };
  }

  /**
   * @param {Extent} extent what is to be seen @param {number} width of the canvas, in cells
   * @param {number} height
   */
  frame(extent, width, height) {
    this.extent = extent;
    const share = (/** @type {number} */ part, /** @type {number} */ whole) => `${(100 * part) / whole}%`;
    const { style } = this.canvas;
    style.left = share(-extent.left, extent.width);
    style.top = share(-extent.top, extent.height);
    style.width = share(width, extent.width);
    style.height = share(height, extent.height);
    this.marks.setAttribute("viewBox", `${extent.left} ${extent.top} ${extent.width} ${extent.height}`);
    this.box.style.aspectRatio = `${extent.width} / ${extent.height}`;
  }

  /** @param {HTMLCanvasElement} source */
  show(source) {
    this.canvas.width = source.width;
    this.canvas.height = source.height;
    /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d")).drawImage(source, 0, 0);
  }

  /** The cell under a pointer. @param {PointerEvent} event @returns {[number, number]} row, column */
  at(event) {
    const bounds = this.box.getBoundingClientRect();
    const { left, top, width, height } = this.extent;
    return [
      Math.floor(top + ((event.clientY - bounds.top) / bounds.height) * height),
      Math.floor(left + ((event.clientX - bounds.left) / bounds.width) * width),
    ];
  }
}

/** @param {string} name @param {number} x @param {number} y @param {number} width @param {number} [height] */
function rect(name, x, y, width, height = width) {
  return svg("rect", { class: name, x, y, width, height });
}

/** What has not been computed yet. @param {number} x @param {number} y @param {number} width @param {number} height */
function cover(x, y, width, height) {
  return svg("rect", { class: "cover", x, y, width: Math.max(0, width), height: Math.max(0, height) });
}

/** How the units of a stage without height and width are laid out. @param {Stage} stage */
export function flatGrid(stage) {
  const { columns, rows } = grid(stage.shape[0]);
  return { columns, rows };
}

export class Explorer {
  /**
   * @param {App} app @param {HTMLElement} root
   * @param {{hover: boolean}} how whether the cell follows the pointer, and a click opens its number
   */
  constructor(app, root, { hover }) {
    this.app = app;
    this.scene = /** @type {Scene} */ (app.scene);
    this.hover = hover;
    this.picture = new Plane("picture");
    this.input = new Plane("input");
    this.output = new Plane("output");
    this.source = html("div", { class: "source" });
    this.player = html(
      "button",
      { type: "button", class: "tool", onclick: () => (this.playing ? this.stop() : this.play()) },
      `▶ ${app.t("layer.play")}`,
    );
    this.playing = 0;
    this.readout = html("p", { class: "readout", "data-role": "readout" });
    this.spoken = html("p", { class: "spoken", "aria-live": "polite" });
    this.input.root.append(this.source);
    this.output.root.append(html("p", { class: "keys" }, hover ? this.player : null, app.t("layer.keys_hint")));
    const { box } = this.output;
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("pointermove", (event) =>
      hover && event.pointerType === "mouse" ? this.point(event) : event.buttons && this.point(event),
    );
    box.addEventListener("pointerdown", (event) => this.point(event));
    box.addEventListener("click", () => hover && this.pointer === "mouse" && app.goto({ view: "number" }));
    root.append(
      html("div", { class: "planes" }, this.picture.root, this.input.root, this.output.root),
      this.readout,
      this.spoken,
    );
    /** @type {State | null} */
    this.shown = null;
    this.speaking = 0;
    this.offered = ""; // the sources that can be chosen now
    this.pointer = "mouse";
  }

  // --- moving -----------------------------------------------------------------------------------

  /** @param {PointerEvent} event */
  point(event) {
    this.pointer = event.pointerType;
    const [row, column] = this.output.at(event);
    this.choose(row, column);
  }

  /** @param {number} row @param {number} column */
  choose(row, column) {
    const { stage } = this;
    if (!stage) return;
    const [rows, columns] = this.size(stage);
    const [y, x] = [Math.max(0, Math.min(rows - 1, row)), Math.max(0, Math.min(columns - 1, column))];
    if (stage.flat) {
      const channel = Math.min(stage.shape[0] - 1, y * columns + x);
      if (channel !== this.app.state.channel) this.app.goto({ channel, row: 0, column: 0 });
    } else if (y !== this.app.state.row || x !== this.app.state.column) this.app.goto({ row: y, column: x });
  }

  /** Rows and columns of the output plane. @param {Stage} stage @returns {[number, number]} */
  size(stage) {
    if (!stage.flat) return [stage.shape[1], stage.shape[2]];
    const { columns, rows } = flatGrid(stage);
    return [rows, columns];
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { stage, app } = this;
    if (!stage || event.altKey || event.ctrlKey || event.metaKey) return;
    const { channel = 0, row = 0, column = 0 } = app.state;
    const [rows, columns] = this.size(stage);
    const [y, x] = stage.flat ? [Math.floor(channel / columns), channel % columns] : [row, column];
    const step = event.shiftKey ? JUMP : 1;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => this.choose(y, x - step),
      ArrowRight: () => this.choose(y, x + step),
      ArrowUp: () => this.choose(y - step, x),
      ArrowDown: () => this.choose(y + step, x),
      Home: () => this.choose(event.ctrlKey ? 0 : y, 0),
      End: () => this.choose(y, columns - 1),
      PageUp: () => app.goto({ channel: Math.max(0, channel - 1), row: row, column }),
      PageDown: () => app.goto({ channel: Math.min(stage.shape[0] - 1, channel + 1), row, column }),
      Enter: () => {
        app.goto({ view: app.state.view === "number" ? "layer" : "number" });
        /** @type {HTMLElement | null} */ (document.querySelector(".plane.output"))?.focus();
      },
    };
    const action = keys[event.key];
    if (!action || rows === 0) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  // --- sliding the window -------------------------------------------------------------------------

  /** Slide the window over all cells; the map appears as it goes. */
  play() {
    const layer = this.scene.layer(this.app.state.layer ?? "");
    const { stage } = this;
    if (!layer || !stage || stage.flat) return;
    const [, height, width] = stage.shape;
    const begin = performance.now();
    this.player.textContent = `■ ${this.app.t("layer.stop")}`;
    const step = () => {
      const done = (performance.now() - begin) / Math.min(LONGEST, height * width * SLOWEST);
      const at = Math.min(height * width - 1, Math.floor(done * height * width));
      const [row, column] = [Math.floor(at / width), at % width];
      this.mark(layer, stage, { ...this.app.state, row, column });
      this.output.marks.prepend(
        cover(0, row + 0.97, width, height - row - 0.97),
        cover(column + 1, row, width - column - 1, 1),
      );
      if (done < 1) this.playing = requestAnimationFrame(step);
      else this.stop();
    };
    this.playing = requestAnimationFrame(step);
  }

  stop() {
    if (!this.playing) return;
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.player.textContent = `▶ ${this.app.t("layer.play")}`;
    const layer = this.scene.layer(this.app.state.layer ?? "");
    if (layer && this.stage) this.mark(layer, this.stage, this.app.state);
  }

  // --- showing ----------------------------------------------------------------------------------

  /** @param {State} state */
  update(state) {
    this.stop();
    const layer = this.scene.layer(state.layer ?? "");
    this.stage = layer ? this.scene.stage(layer.name) : null;
    if (!layer || !this.stage) return;
    const { shown } = this;
    const other = shown?.layer !== state.layer || shown?.channel !== state.channel || shown?.source !== state.source;
    if (shown?.layer !== state.layer) this.drawPicture(layer);
    if (other) {
      this.drawInput(layer, state);
      this.drawOutput(layer, this.stage, state);
      this.player.hidden = this.stage.flat;
    }
    this.mark(layer, this.stage, state);
    this.shown = state;
  }

  /** The square, with room around it for fields that reach into the padding. @param {Layer} layer */
  drawPicture(layer) {
    const side = this.scene.network.input_size;
    const first = this.scene.field(layer.name, 0, 0);
    const last = this.scene.field(layer.name, layer.output[1] - 1, 0);
    const beyond = Math.max(0, -first.top, last.top + last.side - side);
    const margin = Math.min(beyond, 0.15 * side);
    const seen = this.scene.array("seen");
    if (seen) this.picture.show(photo(/** @type {any} */ (seen)));
    this.picture.frame({ left: -margin, top: -margin, width: side + 2 * margin, height: side + 2 * margin }, side, side);
    const reaches = Math.min(layer.field ?? layer.receptive_field, side);
    this.picture.caption.textContent = this.app.t("layer.picture", { side: reaches });
  }

  /** The channel of the input that is drawn. @param {Layer} layer @param {State} state */
  sourceOf(layer, state) {
    const { channel = 0, source } = state;
    if (layer.kind !== "conv") return channel;
    const [first, count] = this.scene.reads(layer, channel);
    if (source !== undefined && source >= first && source < first + count) return source;
    return this.scene.ranked(this.scene.before(layer.name)).find((one) => one >= first && one < first + count) ?? first;
  }

  /** @param {Layer} layer @param {State} state */
  drawInput(layer, state) {
    const { scene, app } = this;
    const name = scene.before(layer.name);
    const stage = scene.stage(name);
    if (!stage) return;
    const [channels, height, width] = stage.shape;
    const source = this.sourceOf(layer, state);
    const coloured = name === "input" && state.source === undefined && layer.kind === "conv";
    if (coloured) {
      const seen = scene.array("seen");
      if (seen) this.input.show(photo(/** @type {any} */ (seen)));
    } else if (layer.kind === "linear" || stage.flat) {
      const made = mosaic(
        stage,
        Array.from({ length: channels }, (_, at) => at),
      );
      this.input.show(made.canvas);
    } else {
      const map = stage.data.subarray(source * height * width, (source + 1) * height * width);
      draw(this.input.canvas, map, width, height, hueOf(stage, source), scaleIn(stage, source));
    }
    this.frameInput(layer, stage);
    this.input.caption.textContent = this.readCaption(layer, stage, source, coloured);
    this.sources(layer, state, source, coloured);
  }

  /**
   * What is drawn of the input, in words.
   * @param {Layer} layer @param {Stage} stage @param {number} source @param {boolean} coloured
   */
  readCaption(layer, stage, source, coloured) {
    const { app, scene } = this;
    if (coloured) return app.t("layer.reads_colour");
    const name = this.named(stage.name);
    if (layer.kind === "linear") return app.t("layer.reads_all", { name, count: app.words.count(stage.data.length) });
    if (stage.flat) return app.t("layer.reads_units", { name });
    if (stage.name === "input" && layer.kind === "conv") {
      const colour = (scene.preprocessing.order ?? "RGB")[source] ?? source;
      return app.t("layer.reads_channel", { colour: app.t(`layer.colour_${colour}`) });
    }
    return app.t("layer.reads_map", { name, number: source, size: `${stage.shape[1]} × ${stage.shape[2]}` });
  }

  /** @param {string} stage */
  named(stage) {
    return stage === "input" ? this.app.t("picture") : stage;
  }

  /** @param {Layer} layer @param {Stage} stage */
  frameInput(layer, stage) {
    const [channels, height, width] = stage.shape;
    if (layer.kind === "linear" || stage.flat) {
      const { canvas } = this.input;
      const { columns, rows } = stage.flat ? flatGrid(stage) : { columns: canvas.width, rows: canvas.height };
      this.input.frame({ left: 0, top: 0, width: columns, height: rows }, columns, rows);
      return channels;
    }
    const [before, after] = layer.padding ?? [0, 0];
    this.input.frame(
      { left: -before, top: -before, width: width + before + after, height: height + before + after },
      width,
      height,
    );
    return channels;
  }

  /**
   * A choice among the maps that a kernel reads.
   * @param {Layer} layer @param {State} state @param {number} source @param {boolean} coloured
   */
  sources(layer, state, source, coloured) {
    if (layer.kind !== "conv") {
      if (this.source.childNodes.length) replace(this.source);
      return;
    }
    const { app, scene } = this;
    const [first, count] = scene.reads(layer, state.channel ?? 0);
    const key = `${layer.name} ${first} ${count}`;
    if (this.offered !== key) {
      this.offered = key;
      if (layer.input[0] <= 4) replace(this.source, this.colours(first, count));
      else {
        const range = html("input", {
          type: "range",
          min: first,
          max: first + count - 1,
          "aria-label": app.t("layer.source"),
          oninput: () => app.goto({ source: Number(range.value) }),
        });
        replace(this.source, range);
      }
    }
    const range = this.source.querySelector("input");
    if (range) range.value = String(source);
    this.source
      .querySelectorAll("button")
      .forEach((button, at) =>
        button.setAttribute("aria-pressed", String(first + at - (this.hover ? 1 : 0) === (coloured ? first - 1 : source))),
      );
  }

  /** @param {number} first @param {number} count */
  colours(first, count) {
    const { app, scene } = this;
    const order = scene.preprocessing.order ?? "RGB";
    const names = Array.from({ length: count }, (_, at) => app.t(`layer.colour_${order[at] ?? at}`));
    const button = (/** @type {string} */ name, /** @type {number | null} */ source) =>
      html("button", { type: "button", class: "tool", onclick: () => app.goto({ source }) }, name);
    const each = names.map((name, at) => button(name, first + at));
    return this.hover ? [button(app.t("layer.colour_all"), null), ...each] : each;
  }

  /** @param {Layer} layer @param {Stage} stage @param {State} state */
  drawOutput(layer, stage, state) {
    const { channel = 0 } = state;
    const [channels, height, width] = stage.shape;
    const { app } = this;
    if (stage.flat) {
      this.output.show(
        mosaic(
          stage,
          Array.from({ length: channels }, (_, at) => at),
        ).canvas,
      );
      const { columns, rows } = flatGrid(stage);
      this.output.frame({ left: 0, top: 0, width: columns, height: rows }, columns, rows);
      this.output.caption.textContent = app.t("layer.gives_units", { name: layer.name, count: app.words.count(channels) });
    } else {
      draw(
        this.output.canvas,
        stage.data.subarray(channel * height * width, (channel + 1) * height * width),
        width,
        height,
        hueOf(stage, channel),
        scaleIn(stage, channel),
      );
      this.output.frame({ left: 0, top: 0, width, height }, width, height);
      this.output.caption.textContent = app.t("layer.gives_map", { name: layer.name, number: channel, count: channels });
    }
    this.output.box.setAttribute(
      "aria-label",
      app.t(stage.flat ? "layer.keys_units" : "layer.keys", { name: layer.name, number: channel }),
    );
  }

  /** @param {Layer} layer @param {Stage} stage @param {State} state */
  mark(layer, stage, state) {
    const { channel = 0, row = 0, column = 0 } = state;
    const { scene } = this;
    const field = scene.field(layer.name, row, column);
    replace(
      this.picture.marks,
      rect("halo", field.left, field.top, field.side),
      rect("frame", field.left, field.top, field.side),
    );
    const flat = stage.flat;
    const { columns } = flatGrid(stage);
    const [y, x] = flat ? [Math.floor(channel / columns), channel % columns] : [row, column];
    replace(this.output.marks, rect("halo", x, y, 1), rect("frame", x, y, 1));
    replace(this.input.marks, ...this.lookedAt(layer, row, column, y, x, flat));
    const value = flat ? stage.data[channel] : stage.data[(channel * stage.shape[1] + row) * stage.shape[2] + column];
    this.tell(layer, flat, state, value);
  }

  /** @param {Layer} layer @param {number} row @param {number} column @param {number} y @param {number} x @param {boolean} flat */
  lookedAt(layer, row, column, y, x, flat) {
    if (layer.kind === "linear") {
      const { width, height } = this.input.extent;
      return [rect("frame", 0, 0, width, height)];
    }
    if (flat) return [rect("halo", x, y, 1), rect("frame", x, y, 1)];
    const { left, top, size } = windowOf(layer, row, column);
    const marks = [rect("halo", left, top, size), rect("frame", left, top, size)];
    if (layer.kind === "maxpool" && (layer.stride ?? 1) < size) {
      const stride = layer.stride ?? 1;
      const [, height, width] = layer.output;
      const neighbours = [
        [0, -1],
        [0, 1],
        [-1, 0],
        [1, 0],
      ].filter(([dy, dx]) => row + dy >= 0 && row + dy < height && column + dx >= 0 && column + dx < width);
      marks.unshift(...neighbours.map(([dy, dx]) => rect("shared", left + dx * stride, top + dy * stride, size)));
    }
    return marks;
  }

  /** @param {Layer} layer @param {boolean} flat @param {State} state @param {number} value */
  tell(layer, flat, state, value) {
    const { app } = this;
    const { channel = 0, row = 0, column = 0 } = state;
    const said = flat
      ? app.t("layer.unit_value", { name: layer.name, number: channel, value: value.toPrecision(5) })
      : app.t("layer.cell_value", { name: layer.name, number: channel, row, column, value: value.toPrecision(5) });
    if (!this.sentence) {
      this.sentence = html("span");
      this.more = html("a", { class: "more" }, app.t("layer.work_out"));
      this.liked = html("a", {}, app.t("layer.to_unit"));
      replace(this.readout, this.sentence, this.hover ? [this.more, this.liked] : null);
    }
    this.sentence.textContent = said;
    this.more?.setAttribute(
      "href",
      app.link({ view: "number", layer: layer.name, channel, row, column, source: state.source }),
    );
    this.liked?.setAttribute("href", app.link({ view: "unit", layer: layer.name, channel }));
    if (this.playing) return;
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => (this.spoken.textContent = said), 400);
  }
}
