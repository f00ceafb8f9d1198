/**
 * The network on a picture: the paper's figure 2, alive.
 *
 * Every face is a mosaic of the maps behind it, one dot for a value and the same dot everywhere, so
 * that an area is a number of values. Underneath, the boxes height × width × maps in one scale. All
 * of it is laid out from the scene's layers.
 *
 * @typedef {import("main").App} App
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {import("scene").Stage} Stage
 *
 * @typedef {object} Column a layer whose output is drawn, with what follows it
 * @property {string} name
 * @property {Layer | null} layer null: the picture
 * @property {[number, number, number]} shape
 * @property {number} towers
 * @property {Layer[]} then
 * @property {string} face the stage that is drawn
 * @property {number} wide dots of one tower's face
 * @property {number} tall
 * @property {number} across maps beside each other
 *
 * @typedef {{left: number, top: number, width: number, height: number, hue: number}} Box
 */

import { heads, html, replace, scrolling, svg } from "element";
import { grid, mosaic, photo, copy, draw, hueOf, scaleIn } from "maps";
import { shortPath } from "words";

const DRAWN = ["conv", "maxpool", "linear"];
const NARROW = 720; // CSS pixels below which the network runs downwards
const LEAST = 5; // CSS pixels of a face
const SMALL = 160; // pixels of a picture that is enlarged
const BACK = [0.42, 0.3]; // where a map's width goes in a box, in shares of its side
const FEW = 128; // units that are drawn larger, so that each can be seen

/** @param {Scene} scene @returns {Column[]} */
export function columns(scene) {
  const { layers } = scene;
  const size = scene.network.input_size;
  /** @type {Column[]} */
  const found = [
    {
      name: "picture",
      layer: null,
      shape: [3, size, size],
      towers: 1,
      then: [],
      face: "input",
      wide: size,
      tall: size,
      across: 1,
    },
  ];
  for (const layer of layers) {
    if (!DRAWN.includes(layer.kind)) {
      found[found.length - 1].then.push(layer);
      continue;
    }
    const towers = scene.split(layer, layer.output[0]);
    found.push({ name: layer.name, layer, shape: layer.output, towers, then: [], face: layer.name, ...dots(layer, towers) });
  }
  for (const column of found) {
    const next = column.then[0];
    if (next && ["relu", "tanh"].includes(next.kind) && scene.has(next.name)) column.face = next.name;
  }
  return found;
}

/** @param {Layer} layer @param {number} towers */
function dots(layer, towers) {
  const [channels, height, width] = layer.output;
  const each = channels / towers;
  if (layer.kind === "linear") {
    const across = Math.max(1, Math.ceil(Math.sqrt(each / 8)));
    return { wide: across, tall: Math.ceil(each / across), across };
  }
  const { columns: across, rows } = grid(each);
  const gap = height > 3 ? 1 : 0;
  return { wide: across * (width + gap) - gap, tall: rows * (height + gap) - gap, across };
}

/** Whether every kernel of a layer reads the maps of all towers. @param {Layer} layer */
function crosses(layer) {
  return layer.kind === "linear" || (layer.kind === "conv" && (layer.groups ?? 1) === 1);
}

/** A network by name and width. @param {App} app @param {any} network */
export function labelled(app, { name, variant, width, source }) {
  const sized = width === 1 ? variant : app.t("network.width", { variant, width });
  return source === "fresh" ? sized : `${shortPath(name)} (${sized})`;
}

/** Whether a network was read from a file of weights. @param {any} network */
function isFile({ name, source }) {
  return source === "run" && /\.\w+$/.test(name);
}

/** A class by name; one that has only a number is named in the page's language. @param {App} app @param {string} name */
export function className(app, name) {
  const number = /^class (\d+)$/.exec(name);
  return number ? app.t("network.class", { number: number[1] }) : name;
}

export class NetworkView {
  /** @param {App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.scene = /** @type {Scene} */ (app.scene);
    this.columns = columns(this.scene);
    this.figure = html("figure", { class: "network" });
    this.hint = html("p", { class: "hint", "data-role": "hint" }, app.t("network.hint"));
    root.append(this.hero(), this.figure, this.hint, this.table());
    this.width = 0;
    this.observer = new ResizeObserver(() => this.lay());
    this.observer.observe(this.figure);
    this.lay();
  }

  update() {}

  close() {
    this.observer.disconnect();
    this.lens?.remove();
  }

  // --- the heading ----------------------------------------------------------------------------

  hero() {
    const { app, scene } = this;
    const { network, picture, learned } = scene;
    return html(
      "section",
      { class: "hero" },
      this.photograph(),
      html(
        "div",
        { class: "identity" },
        html("h1", {}, app.t("network.title", { name: `\u2068${app.pictureName()}\u2069` })),
        html(
          "p",
          { class: "which" },
          html("strong", { title: network.name }, labelled(app, network)),
          " ",
          html("span", { class: "origin" }, app.t(`network.source_${isFile(network) ? "file" : network.source}`)),
        ),
        network.note
          ? html(
              "p",
              { class: "note", "data-role": "note" },
              app.t(`network.${network.note}`, { missing: network.missing.join(", ") }),
            )
          : null,
        html(
          "p",
          {},
          learned[app.words.language],
          " · ",
          html(
            "span",
            { class: "soft" },
            app.t(`network.cut_${picture.how}`, { width: picture.width, height: picture.height, side: network.input_size }),
          ),
        ),
        picture.frames > 1 ? html("p", { class: "soft" }, app.t("network.frames", { count: picture.frames })) : null,
        scene.towers > 1 ? this.legend() : null,
      ),
      this.answers(),
    );
  }

  legend() {
    const { app, scene } = this;
    const names = Array.from({ length: scene.towers }, (_, tower) =>
      html("span", { class: `tower-${tower % 2}` }, app.t("tower", { number: tower + 1 })),
    );
    return html("p", { class: "legend" }, names, html("span", { class: "soft" }, app.t("network.legend")));
  }

  photograph() {
    const { picture } = this.scene;
    const [left, top, width, height] = picture.cut;
    const share = (/** @type {number} */ part, /** @type {number} */ whole) => `${(100 * part) / whole}%`;
    return html(
      "div",
      { class: Math.max(picture.width, picture.height) < SMALL ? "photo tiny" : "photo" },
      html("img", {
        src: `data:image/jpeg;base64,${picture.jpeg}`,
        alt: this.app.t("network.photo", { name: this.app.pictureName() }),
        width: picture.width,
        height: picture.height,
      }),
      html("div", {
        class: "cut",
        style: {
          left: share(left, picture.width),
          top: share(top, picture.height),
          width: share(width, picture.width),
          height: share(height, picture.height),
        },
      }),
    );
  }

  answers() {
    const { app, scene } = this;
    const { top } = scene.classes;
    if (!top.length)
      return html(
        "section",
        { class: "answers" },
        html("h2", {}, app.t("network.answer")),
        html("p", { class: "soft" }, app.t("network.no_answer", { missing: scene.network.missing.join(", ") })),
      );
    const best = top[0].probability || 1;
    const items = top.map((/** @type {any} */ one) =>
      html(
        "li",
        {},
        html(
          "a",
          { href: app.link({ view: "number", layer: "softmax", channel: one.index }) },
          html("span", { class: "name", dir: "auto", title: className(app, one.name) }, className(app, one.name)),
          html("span", { class: "share" }, app.words.percent(one.probability)),
          html("span", { class: "bar", style: { "--share": one.probability / best } }),
        ),
      ),
    );
    return html(
      "section",
      { class: "answers" },
      html("h2", {}, app.t("network.best", { count: top.length, classes: app.words.count(scene.classes.count) })),
      html("ol", {}, items),
    );
  }

  // --- the figure -----------------------------------------------------------------------------

  lay() {
    const width = this.figure.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    const em = parseFloat(getComputedStyle(this.figure).fontSize);
    const plan =
      width < NARROW * (em / 16) ? downwards(this.columns, width, em) : rightwards(this.columns, width, em, innerHeight);
    this.paint(plan, em);
  }

  /** @param {Plan} plan @param {number} em */
  paint(plan, em) {
    const { scene, app, columns } = this;
    const back = svg("svg", {
      class: "lines",
      width: plan.width,
      height: plan.height,
      viewBox: `0 0 ${plan.width} ${plan.height}`,
      "aria-hidden": "true",
    });
    const labels = svg("svg", {
      class: "labels",
      width: plan.width,
      height: plan.height,
      viewBox: `0 0 ${plan.width} ${plan.height}`,
      role: "group",
      "aria-label": app.t("network.figure"),
    });
    const faces = columns.map((column, at) => plan.boxes[at].map((box, tower) => this.face(column, tower, box)));
    columns.forEach((column, at) => {
      if (column.layer) back.append(joints(column.layer, plan.boxes[at - 1], plan.boxes[at], plan.down));
    });
    columns.forEach((column, at) => plan.boxes[at].forEach((box) => back.append(edge(box))));
    columns.forEach((column, at) => column.layer && back.append(...this.windows(at, plan)));
    columns.forEach((column, at) =>
      labels.append(plan.down ? this.caption(column, plan.marks[at], em) : this.footing(column, plan.marks[at], em)),
    );
    this.plan = plan;
    this.traced = svg("g", { class: "traced" });
    labels.append(this.traced);
    if (!plan.down) labels.append(this.headings(plan, em), this.solids(plan, em));
    if (scene.towers > 1)
      plan.boxes[1]?.forEach((box, tower) =>
        labels.append(
          svg(
            "text",
            { x: box.left, y: box.top - 0.6 * em, class: `mark tower-${box.hue}` },
            app.t("tower", { number: tower + 1 }),
          ),
        ),
      );
    replace(this.figure, back, faces.flat(), labels);
    this.figure.style.setProperty("height", `${plan.height}px`);
  }

  /** @param {Column} column @param {number} tower @param {Box} box */
  face(column, tower, box) {
    const { scene, app } = this;
    const style = { left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px`, height: `${box.height}px` };
    const stage = scene.stage(column.face);
    if (!column.layer) {
      const seen = scene.array("seen");
      const canvas = seen ? photo(/** @type {any} */ (seen)) : document.createElement("canvas");
      return dressed(canvas, style, "face", app.t("network.seen", { side: scene.network.input_size }));
    }
    if (!stage) return html("div", { class: "face missing", style, title: app.t("network.absent", { name: column.name }) });
    const each = column.shape[0] / column.towers;
    const order = Array.from({ length: each }, (_, at) => tower * each + at);
    const made = mosaic(stage, order, column.across);
    const label = app.t("network.face", { name: column.name, maps: each, size: `${column.shape[1]} × ${column.shape[2]}` });
    const canvas = dressed(
      copy(made.canvas),
      style,
      `face hue-${box.hue}${box.width > made.canvas.width * 1.4 ? " large" : ""}`,
      label,
    );
    const at = (/** @type {MouseEvent} */ event) => {
      const bounds = canvas.getBoundingClientRect();
      const x = ((event.clientX - bounds.left) / bounds.width) * canvas.width;
      const y = ((event.clientY - bounds.top) / bounds.height) * canvas.height;
      const place = Math.floor(y / made.pitchY) * made.columns + Math.floor(x / made.pitchX);
      const cell = (/** @type {number} */ offset, /** @type {number} */ pitch, /** @type {number} */ count) =>
        Math.max(0, Math.min(count - 1, Math.floor(offset % pitch)));
      return {
        channel: order[Math.min(order.length - 1, Math.max(0, place))],
        row: cell(y, made.pitchY, stage.shape[1]),
        column: cell(x, made.pitchX, stage.shape[2]),
      };
    };
    canvas.addEventListener("click", (event) => app.goto({ view: "layer", layer: column.name, ...at(event) }));
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      const place = at(event);
      this.magnify(column, stage, place.channel, event);
      this.trace(column, place, event);
    });
    canvas.addEventListener("pointerleave", () => {
      this.lens?.setAttribute("hidden", "");
      if (this.traced) replace(this.traced);
    });
    return canvas;
  }

  /**
   * Where the cell under the pointer looks on the picture.
   * @param {Column} column @param {{row: number, column: number}} place @param {PointerEvent} event
   */
  trace(column, place, event) {
    const box = this.plan?.boxes[0]?.[0];
    if (!box || !this.traced) return;
    const { left, top, side } = this.scene.field(column.name, place.row, place.column);
    const dot = box.width / this.scene.network.input_size;
    const bound = (/** @type {number} */ value) => Math.max(0, Math.min(this.scene.network.input_size, value)) * dot;
    const [x, y, right, bottom] = [
      box.left + bound(left),
      box.top + bound(top),
      box.left + bound(left + side),
      box.top + bound(top + side),
    ];
    const bounds = this.figure.getBoundingClientRect();
    const [tipX, tipY] = [event.clientX - bounds.left, event.clientY - bounds.top];
    const near = this.plan?.down ? [`${x} ${bottom}`, `${right} ${bottom}`] : [`${right} ${y}`, `${right} ${bottom}`];
    replace(
      this.traced,
      svg("path", { class: "sight", d: `M${near[0]}L${tipX} ${tipY}L${near[1]}Z` }),
      svg("rect", { class: "frame", x, y, width: right - x, height: bottom - y }),
    );
  }

  /** A map under the pointer, large. @param {Column} column @param {Stage} stage @param {number} channel @param {PointerEvent} event */
  magnify(column, stage, channel, event) {
    if (!this.lens) {
      this.lens = html("div", { class: "lens", "aria-hidden": "true" }, html("canvas"), html("p"));
      document.body.append(this.lens);
    }
    const [, height, width] = stage.shape;
    const flat = height * width === 1;
    const canvas = /** @type {HTMLCanvasElement} */ (this.lens.firstChild);
    canvas.hidden = flat;
    if (this.lensed !== `${stage.name} ${channel}`) {
      this.lensed = `${stage.name} ${channel}`;
      draw(
        canvas,
        stage.data.subarray(channel * height * width, (channel + 1) * height * width),
        width,
        height,
        hueOf(stage, channel),
        scaleIn(stage, channel),
      );
      const key = flat ? "network.lens_unit" : "network.lens";
      /** @type {Element} */ (this.lens.lastChild).textContent = this.app.t(key, {
        name: column.name,
        number: channel,
        value: this.scene.strength(stage.name)[channel].toPrecision(3),
      });
    }
    this.lens.removeAttribute("hidden");
    const side = this.lens.offsetWidth;
    this.lens.style.left = `${event.clientX + 18 + side > innerWidth ? event.clientX - side - 14 : event.clientX + 18}px`;
    this.lens.style.top = `${Math.min(event.clientY + 14, innerHeight - this.lens.offsetHeight - 8)}px`;
  }

  /**
   * The window that the strongest cell reads, and the lines from it to that cell.
   * @param {number} at @param {Plan} plan
   */
  windows(at, plan) {
    const { scene, columns } = this;
    const column = columns[at];
    const layer = /** @type {Layer} */ (column.layer);
    const stage = scene.stage(column.face);
    if (layer.kind === "linear" || !stage) return [];
    const [source, target] = [columns[at - 1], column];
    const shares = [];
    for (let tower = 0; tower < target.towers; tower++) {
      const each = target.shape[0] / target.towers;
      const order = scene.ranked(column.face).filter((channel) => Math.floor(channel / each) === tower);
      const [row, column_] = scene.peak(column.face, order[0]);
      const end = plan.boxes[at][tower];
      const tip = spot(target, order[0] - tower * each, row + 0.5, column_ + 0.5, end);
      const size = layer.size ?? 1;
      const [top, left] = [row, column_].map((cell) => cell * (layer.stride ?? 1) - (layer.padding?.[0] ?? 0));
      const from =
        source.towers === 1 ? [0] : crosses(layer) ? Array.from({ length: source.towers }, (_, one) => one) : [tower];
      for (const one of from) {
        const own = source.shape[0] / source.towers;
        const tile =
          layer.kind === "maxpool"
            ? order[0] - tower * each
            : source.layer
              ? (scene.ranked(source.face).find((channel) => Math.floor(channel / own) === one) ?? 0)
              : 0;
        const start = plan.boxes[at - 1][one];
        const [x, y] = spot(source, tile % own, top, left, start);
        const [right, bottom] = spot(source, tile % own, top + size, left + size, start);
        shares.push(
          svg("path", {
            class: `ray tower-${end.hue}`,
            d: plan.down
              ? `M${x} ${bottom}L${tip[0]} ${tip[1]}L${right} ${bottom}`
              : `M${right} ${y}L${tip[0]} ${tip[1]}L${right} ${bottom}`,
          }),
          svg("rect", { class: `window tower-${end.hue}`, x, y, width: right - x, height: bottom - y }),
        );
      }
      shares.push(svg("circle", { class: `tip tower-${end.hue}`, cx: tip[0], cy: tip[1], r: 2.5 }));
    }
    return shares;
  }

  // --- labels ---------------------------------------------------------------------------------

  /** The cells of the table under a column. @param {Column} column */
  cells(column) {
    const { app } = this;
    const { layer, shape, towers } = column;
    const each = shape[0] / towers;
    const windowed = layer && layer.size && layer.kind !== "linear";
    const maps = towers > 1 ? `${app.words.count(each)}·${towers}` : app.words.count(each);
    return {
      row_side: layer?.kind === "linear" ? "" : `${shape[1]} × ${shape[2]}`,
      row_maps: maps,
      row_window: windowed ? `${layer.size} × ${layer.size}` : "",
      row_stride: windowed ? `${layer.stride}` : "",
      row_padding: layer?.padding ? `[${layer.padding.join(", ")}]` : windowed ? "0" : "",
      row_reads: layer && this.scene.towers > 1 ? this.reads(column) : "",
    };
  }

  /** @param {Column} column */
  reads(column) {
    const layer = /** @type {Layer} */ (column.layer);
    if (column === this.columns[1]) return this.app.t("short_picture");
    return this.app.t(!crosses(layer) ? "short_own" : this.scene.towers === 2 ? "short_both" : "short_all");
  }

  /** @param {Column} column @param {Mark} mark @param {number} em */
  footing(column, mark, em) {
    const line = 1.5 * em;
    const group = svg("g", { class: "column" });
    group.append(this.named(column, mark.x, mark.y + em));
    let y = mark.y + em + line;
    for (const [key, value] of this.rows(column)) {
      if (value)
        group.append(svg("text", { x: mark.x, y, class: key === "row_maps" && column.towers > 1 ? "both" : "" }, value));
      y += line;
    }
    for (const layer of column.then) {
      group.append(this.chip(layer, mark.x, y));
      y += line;
    }
    if (column === this.columns[this.columns.length - 1] && this.scene.array("probabilities"))
      group.append(this.softmax(mark.x, y));
    return group;
  }

  /** @param {Column} column @returns {[string, string][]} */
  rows(column) {
    const rows = Object.entries(this.cells(column));
    return rows.filter(([key]) => key !== "row_reads" || this.scene.towers > 1);
  }

  /** The names of the rows. @param {Plan} plan @param {number} em */
  headings(plan, em) {
    const line = 1.5 * em;
    const group = svg("g", { class: "rows" });
    const { y } = plan.marks[0];
    [...this.rows(this.columns[0]).map(([key]) => key), "row_then"].forEach((key, at) => {
      const at_y = y + em + line * (at + 1);
      group.append(
        svg("text", { x: 0, y: at_y }, this.app.t(key)),
        svg("path", { class: "rule", d: `M0 ${at_y - line * 0.72}H${plan.width}` }),
      );
    });
    return group;
  }

  /**
   * The boxes of figure 2, height × width × maps in one scale. Rows of units would be longer than
   * the page, and are cut short.
   * @param {Plan} plan @param {number} em
   */
  solids(plan, em) {
    const { columns } = this;
    const maps = columns.filter((one) => one.layer?.kind !== "linear");
    const slot = (/** @type {Column} */ one) => plan.slots[columns.indexOf(one)];
    const unit = Math.min(
      (5.5 * em) / columns[0].shape[1],
      ...maps.map((one) => slot(one) / (one.shape[0] / one.towers + BACK[0] * one.shape[1])),
    );
    const group = svg("g", { class: "solids" });
    const tall = columns[0].shape[1] * unit * (1 + BACK[1]);
    const top = plan.height - tall - 1.2 * em;
    group.append(
      svg("text", { x: 0, y: top + tall / 2, class: "heading" }, this.app.t("network.solids")),
      svg("path", { class: "rule", d: `M0 ${top - 0.6 * em}H${plan.width}` }),
    );
    columns.forEach((column, at) => {
      const flat = column.layer?.kind === "linear";
      const side = flat ? 0.4 * tall : column.shape[1] * unit;
      const deep = flat ? 2 : (column.shape[0] / column.towers) * unit;
      const back = flat ? 1 : side * BACK[0];
      for (let tower = 0; tower < column.towers; tower++) {
        const middle = top + tall * (column.towers === 1 ? 0.5 : tower ? 0.75 : 0.25);
        const high = side * (flat ? 1 : 1 + BACK[1]);
        group.append(
          solid(plan.marks[at].x - (deep + back) / 2, middle + high / 2, deep, side, flat, hue(column, tower, columns)),
        );
      }
    });
    return group;
  }

  /** @param {Column} column @param {Mark} mark @param {number} em */
  caption(column, mark, em) {
    const { app } = this;
    const cells = this.cells(column);
    const group = svg("g", { class: "column" }, this.named(column, mark.x, mark.y + em));
    const size = cells.row_side ? `${cells.row_maps} · ${cells.row_side}` : app.t("count_units", { count: cells.row_maps });
    const first = svg("text", { x: mark.x, y: mark.y + 2.4 * em }, size);
    group.append(first);
    let y = mark.y + 3.8 * em;
    if (cells.row_window) {
      group.append(
        svg(
          "text",
          { x: mark.x, y, class: "soft" },
          app.t("network.window", { size: cells.row_window, stride: cells.row_stride, padding: cells.row_padding }),
        ),
      );
      y += 1.4 * em;
    }
    column.then.forEach((layer, at) =>
      group.append(this.chip(layer, mark.x + (at - (column.then.length - 1) / 2) * 6 * em, y)),
    );
    return group;
  }

  /** @param {Column} column @param {number} x @param {number} y */
  named(column, x, y) {
    if (!column.layer) return svg("text", { x, y, class: "name" }, this.app.t("picture"));
    return svg(
      "a",
      { href: this.app.link({ view: "layer", layer: column.name }) },
      svg("text", { x, y, class: "name" }, column.name),
    );
  }

  /** @param {Layer} layer @param {number} x @param {number} y */
  chip(layer, x, y) {
    const name = this.app.t(`op_${layer.kind}`);
    const link = svg(
      "a",
      { href: this.app.link({ view: "layer", layer: layer.name }), "aria-label": `${layer.name}: ${name}` },
      svg("text", { x, y, class: "chip" }, name),
    );
    return link;
  }

  /** @param {number} x @param {number} y */
  softmax(x, y) {
    const index = this.scene.classes.top[0]?.index;
    return svg(
      "a",
      { href: this.app.link({ view: "number", layer: "softmax", channel: index }) },
      svg("text", { x, y, class: "chip" }, this.app.t("softmax")),
    );
  }

  // --- the numbers as in the notes --------------------------------------------------------------

  table() {
    const { app, scene } = this;
    const names = [
      "network.layer",
      "input_size",
      "kernels",
      "kernel_size",
      "stride",
      "padding",
      "output_size",
      "parameters",
      "multiply_adds",
      "receptive_field",
    ];
    const rows = this.columns.slice(1).map((column) => this.numbers(column));
    const total = (/** @type {"parameters" | "multiply_adds"} */ key) =>
      app.words.count(scene.layers.reduce((sum, layer) => sum + layer[key], 0));
    return html(
      "section",
      { class: "numbers" },
      html("h2", {}, app.t("network.numbers")),
      scrolling(
        app.t("network.numbers"),
        html(
          "table",
          {},
          heads(names.map((key) => app.t(key))),
          html("tbody", {}, rows),
          html(
            "tfoot",
            {},
            html(
              "tr",
              {},
              html("th", { scope: "row", colspan: "7" }, app.t("network.total")),
              html("td", {}, total("parameters")),
              html("td", {}, total("multiply_adds")),
              html("td"),
            ),
          ),
        ),
      ),
    );
  }

  /** @param {Column} column */
  numbers(column) {
    const { app } = this;
    const layer = /** @type {Layer} */ (column.layer);
    const cells = this.cells(column);
    const sized = ([c, h, w] = layer.output) => `[${h}, ${w}, ${c}]`;
    const counted =
      layer.kind === "maxpool"
        ? ""
        : column.towers > 1
          ? `${column.shape[0] / column.towers}·${column.towers} = ${column.shape[0]}`
          : `${column.shape[0]}`;
    const values = [
      sized(layer.input),
      counted,
      layer.kind === "linear" ? "" : `${layer.size}`,
      cells.row_stride,
      cells.row_padding,
      sized(),
      app.words.count(layer.parameters),
      app.words.count(layer.multiply_adds),
      `${layer.receptive_field}`,
    ];
    return html(
      "tr",
      {},
      html("th", { scope: "row" }, html("a", { href: app.link({ view: "layer", layer: layer.name }) }, layer.name)),
      values.map((value) =>
        html(
          "td",
          {},
          value === "0" && layer.kind === "maxpool" && !layer.parameters && value !== cells.row_padding ? "" : value,
        ),
      ),
    );
  }
}

// --- layout -------------------------------------------------------------------------------------

/**
 * @typedef {{x: number, y: number}} Mark where a column's words begin
 * @typedef {{width: number, height: number, boxes: Box[][], marks: Mark[], down: boolean, slots: number[]}} Plan
 */

/** Pixels of a face at `dot` pixels for a value. @param {Column} column @param {number} dot */
function extent(column, dot) {
  const few = column.layer?.kind === "linear" && column.shape[0] <= FEW;
  const scale = few ? Math.max(dot, 5) : dot;
  return { width: Math.max(LEAST, column.wide * scale), height: Math.max(LEAST, column.tall * scale) };
}

/** @param {Column} column @param {number} tower @param {Column[]} all */
function hue(column, tower, all) {
  return column.towers === 1 && (!column.layer || (all[1]?.towers ?? 1) > 1) ? 2 : tower % 2;
}

/** The largest dot for which `fits` holds. @param {(dot: number) => boolean} fits */
function largest(fits) {
  let [low, high] = [0.02, 6];
  for (let turn = 0; turn < 30; turn++) {
    const middle = (low + high) / 2;
    if (fits(middle)) low = middle;
    else high = middle;
  }
  return low;
}

/** @param {Column[]} all @param {number} width @param {number} em @param {number} screen @returns {Plan} */
function rightwards(all, width, em, screen) {
  const gutter = 6.2 * em;
  const [least, gap, lane] = [3.9 * em, 1.1 * em, 2.2 * em];
  const towers = Math.max(...all.map((one) => one.towers));
  const spread = (/** @type {number} */ dot) =>
    all.reduce((sum, one) => sum + Math.max(least, extent(one, dot).width), gap * (all.length - 1));
  const height = (/** @type {number} */ dot) =>
    Math.max(...all.map((one) => extent(one, dot).height * one.towers + lane * (one.towers - 1)));
  const dot = largest((one) => spread(one) <= width - gutter && height(one) <= Math.max(22 * em, 0.7 * screen));
  const [head, tallest] = [2 * em, height(dot)];
  const widened = gap + Math.max(0, width - gutter - spread(dot)) / (all.length - 1);
  const [middle, each] = [head + tallest / 2, (tallest - lane * (towers - 1)) / towers];
  let x = gutter;
  /** @type {Box[][]} */ const boxes = [];
  /** @type {Mark[]} */ const marks = [];
  /** @type {number[]} */ const slots = [];
  for (const column of all) {
    const face = extent(column, dot);
    const slot = Math.max(least, face.width);
    boxes.push(
      Array.from({ length: column.towers }, (_, tower) => {
        const centre = middle + (tower - (column.towers - 1) / 2) * (each + lane);
        return { left: x + (slot - face.width) / 2, top: centre - face.height / 2, ...face, hue: hue(column, tower, all) };
      }),
    );
    marks.push({ x: x + slot / 2, y: head + tallest + 1.4 * em });
    slots.push(slot);
    x += slot + widened;
  }
  const lines =
    (towers > 1 ? 7.6 : 6.6) + Math.max(...all.map((one) => one.then.length + (one === all[all.length - 1] ? 1 : 0)));
  return { width, height: head + tallest + 1.4 * em + lines * 1.5 * em + 8 * em, boxes, marks, slots, down: false };
}

/** @param {Column[]} all @param {number} width @param {number} em @returns {Plan} */
function downwards(all, width, em) {
  const lane = 1.2 * em;
  const towers = Math.max(...all.map((one) => one.towers));
  const spread = (/** @type {number} */ dot) =>
    Math.max(...all.map((one) => extent(one, dot).width * one.towers + lane * (one.towers - 1)));
  const dot = Math.min(
    largest((one) => spread(one) <= width),
    260 / all[0].wide,
  );
  const each = (spread(dot) - lane * (towers - 1)) / towers;
  let y = 1.6 * em;
  /** @type {Box[][]} */ const boxes = [];
  /** @type {Mark[]} */ const marks = [];
  for (const column of all) {
    if (column === all[1] && towers > 1) y += em;
    const face = extent(column, dot);
    boxes.push(
      Array.from({ length: column.towers }, (_, tower) => {
        const centre = width / 2 + (tower - (column.towers - 1) / 2) * Math.max(each + lane, 0.34 * width);
        return { left: centre - face.width / 2, top: y, ...face, hue: hue(column, tower, all) };
      }),
    );
    marks.push({ x: width / 2, y: y + face.height + 0.5 * em });
    const lines = 2.9 + (column.layer && column.layer.kind !== "linear" ? 1.4 : 0) + (column.then.length ? 1.4 : 0);
    y += face.height + (lines + 1.6) * em;
  }
  return { width, height: y, boxes, marks, slots: [], down: true };
}

/**
 * A place on a face. @param {Column} column @param {number} tile which map of the tower
 * @param {number} row @param {number} cell @param {Box} box @returns {[number, number]} x, y
 */
function spot(column, tile, row, cell, box) {
  const gap = column.layer && column.shape[1] > 3 ? 1 : 0;
  const dot = box.width / column.wide;
  const left = (tile % column.across) * (column.shape[2] + gap) + cell;
  const top = Math.floor(tile / column.across) * (column.shape[1] + gap) + row;
  return [box.left + left * dot, box.top + top * dot];
}

/**
 * What flows from one column into the next: bands from tower to tower.
 * @param {Layer} layer @param {Box[]} from @param {Box[]} to @param {boolean} down
 */
function joints(layer, from, to, down) {
  const group = svg("g", { class: `joint${crosses(layer) && from.length > 1 ? " crossing" : ""}` });
  to.forEach((end, tower) => {
    const starts = from.length === 1 ? from : crosses(layer) || to.length === 1 ? from : [from[tower]];
    for (const start of starts)
      group.append(svg("path", { class: `band tower-${start.hue === 2 ? end.hue : start.hue}`, d: band(start, end, down) }));
  });
  return group;
}

/** @param {Box} start @param {Box} end @param {boolean} down */
function band(start, end, down) {
  const [s, e] = [start, end];
  if (down) {
    const [a, b] = [s.top + s.height, e.top];
    const [bend, right, left] = [(a + b) / 2, e.left + e.width, s.left + s.width];
    return `M${s.left} ${a}C${s.left} ${bend} ${e.left} ${bend} ${e.left} ${b}H${right}C${right} ${bend} ${left} ${bend} ${left} ${a}Z`;
  }
  const [a, b] = [s.left + s.width, e.left];
  const [bend, low, high] = [(a + b) / 2, e.top + e.height, s.top + s.height];
  return `M${a} ${s.top}C${bend} ${s.top} ${bend} ${e.top} ${b} ${e.top}V${low}C${bend} ${low} ${bend} ${high} ${a} ${high}Z`;
}

/**
 * A box seen from the left: its depth to the right, its width to the back.
 * @param {number} x @param {number} bottom @param {number} deep @param {number} side
 * @param {boolean} cut short @param {number} hue
 */
function solid(x, bottom, deep, side, cut, hue) {
  const top = bottom - side;
  const [right, back, up] = [x + deep, cut ? 0 : side * BACK[0], cut ? 0 : side * BACK[1]];
  const d = `M${x} ${bottom}V${top}H${right}V${bottom}ZM${x} ${top}L${x + back} ${top - up}H${right + back}L${right} ${top}ZM${right} ${top}L${right + back} ${top - up}V${bottom - up}L${right} ${bottom}Z`;
  return svg("path", { class: `solid tower-${hue}${cut ? " cut-short" : ""}`, d });
}

/** The thickness of a box: a rim to the right and above. @param {Box} box */
function edge({ left, top, width, height, hue }) {
  const depth = Math.min(7, 2 + width * 0.05);
  const [right, bottom] = [left + width, top + height];
  return svg("path", {
    class: `edge tower-${hue}`,
    d: `M${left} ${top}L${left + depth} ${top - depth}H${right + depth}V${bottom - depth}L${right} ${bottom}V${top}ZM${right} ${top}L${right + depth} ${top - depth}`,
  });
}

/** @param {HTMLCanvasElement} canvas @param {Record<string, string>} style @param {string} name @param {string} label */
function dressed(canvas, style, name, label) {
  canvas.className = name;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  for (const [key, value] of Object.entries(style)) canvas.style.setProperty(key, value);
  return canvas;
}
