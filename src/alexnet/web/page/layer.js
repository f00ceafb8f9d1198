/**
 * A layer: what it reads, what it does, what it gives, with the arithmetic of its size.
 *
 * @typedef {import("main").App} App
 * @typedef {import("main").State} State
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {import("scene").Stage} Stage
 */

import { Bench, PADDINGS, fitting, strip } from "bench";
import { html, replace, svg } from "element";
import { Explorer } from "explorer";
import { formulaBox, sizeFormula } from "formula";
import { coloured, slices } from "kernels";
import { grid, hueOf, mosaic } from "maps";

/** Links to all stages in order, for the views of one layer. @param {App} app @param {State} state */
export function stages(app, state) {
  const scene = /** @type {Scene} */ (app.scene);
  const links = scene.layers.map((layer) =>
    html(
      "a",
      {
        href: app.link({ view: state.view, layer: layer.name }),
        class: `stage kind-${layer.kind}${scene.has(layer.name) ? "" : " absent"}`,
        "aria-current": layer.name === state.layer ? "true" : null,
      },
      layer.name,
    ),
  );
  if (state.view === "number" && scene.array("probabilities")) {
    links.push(
      html(
        "a",
        {
          href: app.link({ view: "number", layer: "softmax" }),
          class: "stage",
          "aria-current": state.layer === "softmax" ? "true" : null,
        },
        app.t("softmax"),
      ),
    );
  }
  return html("nav", { class: "stages", "aria-label": app.t("layer.stages") }, links);
}

/** What a layer does, in words. @param {App} app @param {Layer} layer */
export function operation(app, layer) {
  const overlaps = layer.kind === "maxpool" && (layer.stride ?? 0) < (layer.size ?? 0);
  const full = `${layer.kind}_in_full`;
  return app.t(overlaps ? "op_overlapping" : app.words.has(full) ? full : `op_${layer.kind}`);
}

/** @param {[number, number, number]} shape */
export function sized([channels, height, width]) {
  return height * width === 1 ? `${channels}` : `${height} × ${width} × ${channels}`;
}

export class LayerView {
  /** @param {App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.scene = /** @type {Scene} */ (app.scene);
    this.root = root;
    this.sorted = true;
  }

  /** @param {State} state @param {State | null} before */
  update(state, before) {
    const layer = /** @type {Layer} */ (this.scene.layer(state.layer ?? ""));
    if (before?.layer !== state.layer || !this.built) this.build(layer, state);
    if (!this.stage) return;
    this.explorer?.update(state);
    if (before?.channel !== state.channel || before?.layer !== state.layer) {
      this.pick(state);
      this.showKernel(layer, state);
    }
  }

  /** @param {Layer} layer @param {State} state */
  build(layer, state) {
    const { app, scene, root } = this;
    this.built = true;
    this.stage = scene.stage(layer.name);
    const explorer = html("section", { class: "explorer", "aria-label": app.t("layer.explorer") });
    replace(root, stages(app, state), this.heading(layer), explorer);
    root.querySelector(".stages [aria-current]")?.scrollIntoView?.({ block: "nearest", inline: "center" });
    if (!this.stage) {
      replace(
        explorer,
        html("p", { class: "note" }, app.t("layer.absent", { name: layer.name, missing: scene.network.missing.join(", ") })),
      );
      root.append(this.written(layer));
      return;
    }
    this.explorer = new Explorer(app, explorer, { hover: true });
    root.append(html("div", { class: "two" }, this.maps(layer, this.stage), this.written(layer)));
    if (layer.kind === "conv") root.append(this.kernels(layer));
    if (layer.size && layer.stride) root.append(this.bench(layer));
    if (layer === scene.layers[0] && layer.kind === "conv") root.append(this.paddings(layer));
  }

  /** @param {Layer} layer */
  heading(layer) {
    const { app } = this;
    return html(
      "header",
      { class: "heading" },
      html("h1", {}, layer.name, " ", html("span", { class: "soft" }, operation(app, layer))),
      html("p", { class: "sizes" }, `${sized(layer.input)} → ${sized(layer.output)}`),
      html("p", { class: "lead" }, app.t(this.story(layer))),
    );
  }

  /** The key of the sentence that says what a layer is for. @param {Layer} layer */
  story(layer) {
    if (layer.kind === "conv") {
      if (layer === this.scene.layers[0]) return "layer.story_first";
      if (this.scene.towers === 1) return "layer.story_conv";
      return (layer.groups ?? 1) > 1 ? "layer.story_tower" : "layer.story_cross";
    }
    if (layer.kind === "maxpool")
      return (layer.stride ?? 0) < (layer.size ?? 0) ? "layer.story_overlapping" : "layer.story_maxpool";
    return layer.kind === "dropout" && !layer.rate ? "number.dropout_none" : `layer.story_${layer.kind}`;
  }

  // --- all maps ---------------------------------------------------------------------------------

  /** @param {Layer} layer @param {Stage} stage */
  maps(layer, stage) {
    const { app } = this;
    const button = html(
      "button",
      { type: "button", class: "tool", onclick: () => this.sort(layer, stage, button) },
      app.t(this.sorted ? "layer.by_number" : "layer.by_strength"),
    );
    this.sheets = html("div", { class: `sheets${stage.towers === 1 ? " one" : ""}` });
    this.fillSheets(layer, stage);
    return html(
      "section",
      { class: "maps" },
      html(
        "div",
        { class: "bar-heading" },
        html("h2", {}, app.t(stage.flat ? "layer.all_units" : "layer.all_maps", { count: stage.shape[0] })),
        stage.flat ? null : button,
      ),
      html("p", { class: "soft" }, app.t(stage.flat ? "layer.units_hint" : "layer.maps_hint")),
      this.sheets,
    );
  }

  /** @param {Layer} layer @param {Stage} stage @param {HTMLElement} button */
  sort(layer, stage, button) {
    this.sorted = !this.sorted;
    button.textContent = this.app.t(this.sorted ? "layer.by_number" : "layer.by_strength");
    this.fillSheets(layer, stage);
    this.pick(this.app.state);
  }

  /** @param {Layer} layer @param {Stage} stage */
  fillSheets(layer, stage) {
    const { app, scene } = this;
    const each = stage.shape[0] / stage.towers;
    const order = this.sorted && !stage.flat ? scene.ranked(layer.name) : Array.from({ length: stage.shape[0] }, (_, at) => at);
    /** @type {Sheet[]} */
    this.picks = Array.from({ length: stage.towers }, (_, tower) => {
      const own = order.filter((channel) => Math.floor(channel / each) === tower);
      const name = stage.towers > 1 ? app.t("tower", { number: tower + 1 }) : "";
      return new Sheet(app, stage, own, name, hueOf(stage, own[0]));
    });
    replace(/** @type {HTMLElement} */ (this.sheets), ...this.picks.map((one) => one.root));
  }

  /** @param {State} state */
  pick(state) {
    this.picks?.forEach((one) => one.mark(state.channel ?? 0));
  }

  // --- in writing -------------------------------------------------------------------------------

  /** The layer as the study notes write it. @param {Layer} layer */
  written(layer) {
    const { app } = this;
    const lines = layer.lines?.[app.words.language] ?? [];
    const items = lines.filter(([label]) => label).flatMap(([label, value]) => [html("dt", {}, label), html("dd", {}, value)]);
    const rules = lines
      .filter(([label, value]) => !label && !value.startsWith("N ="))
      .map(([, value]) => html("p", { class: "rule" }, value));
    const sizes =
      layer.size && layer.stride
        ? sizeFormula({ side: layer.input[1], size: layer.size, padding: layer.padding ?? null, stride: layer.stride })
        : null;
    return html(
      "section",
      { class: "written" },
      html("h2", {}, app.t("layer.written")),
      sizes ? formulaBox(app.t("layer.formula"), { "data-role": "formula" }, sizes) : null,
      rules,
      items.length ? html("dl", {}, items) : null,
    );
  }

  /** @param {Layer} layer */
  bench(layer) {
    const { app } = this;
    const root = html("div", {});
    const [before, after] = layer.padding ?? [0, 0];
    this.workbench = new Bench(app, root, {
      side: layer.input[1],
      size: layer.size ?? 1,
      before,
      after,
      stride: layer.stride ?? 1,
    });
    return html(
      "section",
      { class: "bench" },
      html("h2", {}, app.t("layer.bench")),
      html("p", { class: "soft" }, app.t("layer.bench_hint")),
      root,
    );
  }

  /** What the programs of the time padded with, side by side. @param {Layer} layer */
  paddings(layer) {
    const { app } = this;
    const cards = PADDINGS.map(({ key, side, before, after }) => {
      const numbers = { side, size: 11, before, after, stride: 4 };
      const { count, rest } = fitting(numbers);
      const own = layer.input[1] === side && layer.padding?.[0] === before && layer.padding?.[1] === after;
      return html(
        "li",
        { class: own ? "own" : "" },
        html("h3", {}, app.t(`layer.padding_${key}`, { padding: `[${before}, ${after}]`, side })),
        html("div", { class: "strip" }, strip(numbers)),
        html(
          "p",
          { class: "sum-line" },
          `(${side} − 11 + (${before} + ${after})) / 4 + 1 = ${(side - 11 + before + after) / 4 + 1}`,
        ),
        html("p", {}, app.t(rest ? "layer.padding_rest" : "layer.padding_fits", { count, rest })),
        html(
          "button",
          { type: "button", class: "tool", onclick: () => this.workbench?.set(numbers) },
          app.t("layer.padding_try"),
        ),
      );
    });
    return html(
      "section",
      { class: "paddings" },
      html("h2", {}, app.t("layer.paddings")),
      html("p", { class: "soft" }, app.t("layer.paddings_hint")),
      html("ul", {}, cards),
    );
  }

  // --- kernels ----------------------------------------------------------------------------------

  /** @param {Layer} layer */
  kernels(layer) {
    const { app, scene } = this;
    this.kernel = html("figure", { class: "kernel" }, html("div"), html("figcaption"));
    const room = html("div", { class: "kernel-room" }, this.kernel);
    const section = html(
      "section",
      { class: "kernels" },
      html(
        "h2",
        {},
        app.t("layer.kernels", {
          count: layer.output[0],
          size: `${layer.size} × ${layer.size} × ${layer.input[0] / (layer.groups ?? 1)}`,
        }),
      ),
      html("p", { class: "soft" }, app.t(layer.input[0] === 3 ? "layer.kernels_first" : "layer.kernels_hint")),
      room,
    );
    if (layer.input[0] === 3) room.append(this.gallery(layer, scene.split(layer, layer.output[0])));
    return section;
  }

  /** Every kernel of the first layer, tower by tower. @param {Layer} layer @param {number} towers */
  gallery(layer, towers) {
    const { app, scene } = this;
    const each = layer.output[0] / towers;
    const rooms = Array.from({ length: towers }, (_, tower) =>
      html(
        "div",
        { class: "room" },
        towers > 1 ? html("h3", { class: `tower-${tower % 2}` }, app.t("tower", { number: tower + 1 })) : null,
        html(
          "div",
          { class: "tiles" },
          Array.from({ length: each }, (_, at) => this.tile(layer, tower * each + at)),
        ),
      ),
    );
    return html("div", { class: "gallery" }, rooms);
  }

  /** @param {Layer} layer @param {number} channel */
  tile(layer, channel) {
    const { app, scene } = this;
    return html(
      "a",
      {
        href: app.link({ view: "layer", layer: layer.name, channel }),
        class: "tile",
        "data-channel": channel,
        "aria-label": app.t("layer.kernel", { number: channel }),
      },
      coloured(scene, layer, channel),
    );
  }

  /** @param {Layer} layer @param {State} state */
  showKernel(layer, state) {
    if (layer.kind !== "conv" || !this.kernel || !this.stage) return;
    const { channel = 0 } = state;
    const canvas =
      layer.input[0] === 3
        ? coloured(this.scene, layer, channel)
        : slices(this.scene, layer, channel, hueOf(this.stage, channel));
    replace(/** @type {Element} */ (this.kernel.firstChild), canvas);
    const [first, count] = this.scene.reads(layer, channel);
    const key = layer.input[0] === 3 ? "layer.kernel" : "layer.kernel_slices";
    /** @type {Element} */ (this.kernel.lastChild).textContent = this.app.t(key, {
      number: channel,
      count,
      first,
      last: first + count - 1,
    });
    this.root
      .querySelectorAll(".tile")
      .forEach((tile) => tile.classList.toggle("chosen", tile.getAttribute("data-channel") === String(channel)));
  }
}

/** A tower's maps to choose from, by pointer or arrow keys. */
class Sheet {
  /** @param {App} app @param {Stage} stage @param {number[]} order @param {string} name @param {number} hue */
  constructor(app, stage, order, name, hue) {
    this.order = order;
    this.grid = stage.flat ? grid(order.length) : { columns: grid(order.length).columns, rows: 0 };
    const made = mosaic(stage, order, this.grid.columns);
    this.rows = Math.ceil(order.length / this.grid.columns);
    const canvas = html("canvas", { width: made.canvas.width, height: made.canvas.height });
    /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(made.canvas, 0, 0);
    this.frame = svg("rect", { class: "frame", width: stage.shape[2] / made.pitchX, height: stage.shape[1] / made.pitchY });
    const gap = made.pitchX - stage.shape[2];
    const marks = svg(
      "svg",
      {
        viewBox: `0 0 ${this.grid.columns - gap / made.pitchX} ${this.rows - gap / made.pitchY}`,
        preserveAspectRatio: "none",
        "aria-hidden": "true",
      },
      this.frame,
    );
    const label = app.t(stage.flat ? "layer.sheet_units" : "layer.sheet", {
      name: stage.name,
      tower: name,
      count: order.length,
    });
    const box = html("div", { class: "sheet", tabindex: "0", role: "application", "aria-label": label }, canvas, marks);
    box.addEventListener("click", (event) => {
      const bounds = box.getBoundingClientRect();
      const x = Math.floor(((event.clientX - bounds.left) / bounds.width) * this.grid.columns);
      const y = Math.floor(((event.clientY - bounds.top) / bounds.height) * this.rows);
      this.choose(app, y * this.grid.columns + x);
    });
    box.addEventListener("keydown", (event) => {
      const { columns } = this.grid;
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
      if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const here = order.indexOf(app.state.channel ?? -1);
      this.choose(app, here < 0 ? 0 : here + step);
    });
    this.root = html("div", {}, name ? html("h3", { class: `tower-${hue}` }, name) : null, box);
  }

  /** @param {App} app @param {number} place */
  choose(app, place) {
    const channel = this.order[place];
    if (channel !== undefined) app.goto({ channel });
  }

  /** @param {number} channel */
  mark(channel) {
    const place = this.order.indexOf(channel);
    this.frame.style.display = place < 0 ? "none" : "";
    this.frame.setAttribute("x", String(place % this.grid.columns));
    this.frame.setAttribute("y", String(Math.floor(place / this.grid.columns)));
  }
}
