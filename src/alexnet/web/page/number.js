/**
 * A number: how one cell came to be, worked out here from the scene's arrays in float64 and held
 * against what the network computed.
 *
 * @typedef {import("main").App} App
 * @typedef {import("main").State} State
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {import("scene").Stage} Stage
 */

import { Cells } from "cells";
import { heads, html, replace, scrolling, svg } from "element";
import { className } from "figure";
import { Explorer } from "explorer";
import { formula, formulaBox, fraction, index, power, row, sum } from "formula";
import { operation, sized, stages } from "layer";
import { draw, hueOf, scaleIn } from "maps";
import { connect, convolve, normalise, valueAt, valuesIn, windowOf } from "window";
import { short } from "words";

const LISTED = 8; // contributions of a unit, for and against

/**
 * A number that can be read by people and by programs.
 * @param {string} role @param {number} value @param {string} [name] class
 * @param {number} [shown] what people read, if it is not the same
 */
function figure(role, value, name = "", shown = value) {
  return html(
    "data",
    { "data-role": role, "data-value": String(value), value: String(value), class: `number ${name}` },
    short(shown),
  );
}

/** A bias after a sum, with its sign between them. @param {number} bias */
function added(bias) {
  return [bias < 0 ? " − " : " + ", figure("bias", bias, "", Math.abs(bias))];
}

export class NumberView {
  /** @param {App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.scene = /** @type {Scene} */ (app.scene);
    this.root = root;
  }

  /** @param {State} state @param {State | null} before */
  update(state, before) {
    const softmax = state.layer === "softmax";
    const layer = this.scene.layer(state.layer ?? "");
    if (before?.layer !== state.layer || !this.built) this.build(layer, state);
    if (softmax) return this.softmax(state);
    const stage = layer && this.scene.stage(layer.name);
    if (!layer || !stage) return;
    this.work(layer, stage, state);
  }

  /** @param {Layer | undefined} layer @param {State} state */
  build(layer, state) {
    const { app, root, scene } = this;
    this.built = true;
    this.body = html("section", { class: "working", "aria-label": app.t("number.working") });
    this.kept = {};
    const heading = html(
      "header",
      { class: "heading" },
      html(
        "h1",
        {},
        state.layer === "softmax" ? app.t("softmax") : layer?.name,
        " ",
        html("span", { class: "soft" }, layer ? operation(app, layer) : ""),
      ),
      layer ? html("p", { class: "sizes" }, `${sized(layer.input)} → ${sized(layer.output)}`) : null,
      html("p", { class: "lead" }, app.t(`number.story_${this.story(layer)}`)),
    );
    const opening = html("div", { class: "opening" }, heading);
    replace(root, stages(app, state), opening);
    root.querySelector(".stages [aria-current]")?.scrollIntoView?.({ block: "nearest", inline: "center" });
    if (layer && !scene.has(layer.name)) {
      root.append(
        html("p", { class: "note" }, app.t("layer.absent", { name: layer.name, missing: scene.network.missing.join(", ") })),
      );
      return;
    }
    const explorer = html("section", { class: "explorer small", "aria-label": app.t("layer.explorer") });
    this.result = html("div", { class: "result" });
    heading.append(this.result);
    root.append(this.body);
    if (layer) {
      opening.append(explorer);
      this.explorer = new Explorer(app, explorer, { hover: false });
    }
  }

  /** @param {Layer | undefined} layer */
  story(layer) {
    if (!layer) return "softmax";
    return layer.kind === "dropout" && (layer.inverted || !layer.rate) ? "dropout_kept" : layer.kind;
  }

  /** @param {Layer} layer @param {Stage} stage @param {State} state */
  work(layer, stage, state) {
    const { channel = 0, row: y = 0, column = 0 } = state;
    const stored = valueAt(stage, channel, y, column);
    const known =
      layer === this.scene.layers[this.scene.layers.length - 1] &&
      this.scene.classes.top.find((/** @type {any} */ one) => one.index === channel);
    const named = known ? ` (\u2068${className(this.app, known.name)}\u2069)` : "";
    const place = stage.flat ? `${layer.name}[${channel}]${named}` : `${layer.name}[${channel}, ${y}, ${column}]`;
    const hue = hueOf(stage, channel);
    /** @type {Record<string, () => void>} */
    const kinds = {
      conv: () => this.convolution(layer, state, place, stored, hue),
      lrn: () => this.normalisation(layer, state, place, stored, hue),
      spatialnorm: () => this.normalisation(layer, state, place, stored, hue),
      maxpool: () => this.pooling(layer, state, place, stored, hue),
      linear: () => this.connected(layer, state, place, stored),
    };
    this.source = state.source;
    (kinds[layer.kind] ?? (() => this.pointwise(layer, state, place, stored)))();
    this.explorer?.update({ ...state, source: this.source });
  }

  /**
   * The line with the answer: a sum worked out, and what the network had.
   * @param {string} place @param {(Node | string)[]} left @param {number} value @param {number} stored
   */
  answer(place, left, value, stored) {
    const { app } = this;
    const digits = agreement(value, stored);
    replace(
      /** @type {HTMLElement} */ (this.result),
      html(
        "p",
        { class: "equation" },
        html("span", { class: "place" }, place),
        " = ",
        left,
        left.length ? " = " : "",
        figure("value", value, "strong"),
      ),
      html(
        "p",
        { class: "soft" },
        app.t("number.stored"),
        " ",
        figure("stored", stored),
        " · ",
        html("span", { class: "agrees" }, app.t(digits >= 12 ? "number.same" : "number.agrees", { digits })),
      ),
    );
  }

  // --- convolution ------------------------------------------------------------------------------

  /** @param {Layer} layer @param {State} state @param {string} place @param {number} stored @param {number} hue */
  convolution(layer, state, place, stored, hue) {
    const { app, scene } = this;
    const { channel = 0, row: y = 0, column = 0 } = state;
    const made = convolve(scene, layer, channel, y, column);
    if (!made) return;
    this.answer(
      place,
      [figure("sum", made.sum), ...added(made.bias), html("span", { class: "soft" }, ` (${app.t("number.bias")})`)],
      made.value,
      stored,
    );
    const kept = /** @type {any} */ (this.kept);
    const { size = 1 } = layer;
    if (!kept.window) {
      kept.window = new Cells(size, "");
      kept.kernel = new Cells(size, "");
      kept.products = new Cells(size, "");
      kept.partial = html("p", { class: "partial" });
      kept.chart = html("div", { class: "chart" });
      kept.caption = html("p", { class: "soft" });
      replace(
        /** @type {HTMLElement} */ (this.body),
        html(
          "div",
          { class: "trio" },
          kept.window.root,
          html("span", { class: "sign" }, "×"),
          kept.kernel.root,
          html("span", { class: "sign" }, "="),
          kept.products.root,
        ),
        kept.partial,
        html("h2", {}, app.t(layer.input[0] === 3 ? "number.colours" : "number.maps", { count: made.partial.length })),
        kept.caption,
        kept.chart,
      );
    }
    const source = (this.source = this.sourceOf(made, state));
    const k = source - made.first;
    const area = size * size;
    const weight = /** @type {{data: Float32Array}} */ (scene.array(`${layer.name}.weight`));
    const kernel = weight.data.subarray(
      (channel * made.partial.length + k) * area,
      (channel * made.partial.length + k + 1) * area,
    );
    const values = valuesIn(made.stage, source, made.window);
    const products = values.map((value, at) => (value === null ? null : value * kernel[at]));
    kept.window.show(values, hueOf(made.stage, source), layer.input[0] === 3 ? undefined : scaleIn(made.stage, source));
    kept.kernel.show(kernel, hue);
    kept.products.show(products, hue);
    const named = this.sourceName(layer, source);
    kept.window.title.textContent = app.t("number.window", { name: named });
    kept.kernel.title.textContent = app.t("number.kernel", { number: channel, name: named });
    kept.products.title.textContent = app.t("number.products");
    const padded = values.filter((value) => value === null).length;
    replace(
      kept.partial,
      app.t("number.partial", { count: area, name: named }),
      " ",
      figure("partial", made.partial[k]),
      padded ? html("span", { class: "soft" }, ` · ${app.t("number.padded", { count: padded })}`) : null,
    );
    kept.caption.textContent = app.t("number.maps_hint", {
      count: made.partial.length,
      products: app.words.count(made.partial.length * area),
    });
    replace(kept.chart, this.chart(layer, made, source));
  }

  /** The map whose window is shown: the chosen one, or the one that adds most. @param {{first: number, partial: Float64Array}} made @param {State} state */
  sourceOf({ first, partial }, { source }) {
    if (source !== undefined && source >= first && source < first + partial.length) return source;
    let best = 0;
    for (let k = 1; k < partial.length; k++) if (Math.abs(partial[k]) > Math.abs(partial[best])) best = k;
    return first + best;
  }

  /** @param {Layer} layer @param {number} source */
  sourceName(layer, source) {
    const { app, scene } = this;
    const before = scene.before(layer.name);
    if (before === "input") return app.t(`layer.colour_${(scene.preprocessing.order ?? "RGB")[source] ?? source}`);
    return `${before}[${source}]`;
  }

  /** What each map adds, as bars to choose from. @param {Layer} layer @param {any} made @param {number} source */
  chart(layer, made, source) {
    const { app } = this;
    const count = made.partial.length;
    const most = made.partial.reduce((/** @type {number} */ a, /** @type {number} */ b) => Math.max(a, Math.abs(b)), 1e-30);
    const wide = 1000 / count;
    const bars = svg("svg", { viewBox: "0 0 1000 200", preserveAspectRatio: "none", "aria-hidden": "true" });
    made.partial.forEach((/** @type {number} */ value, /** @type {number} */ k) => {
      const tall = (Math.abs(value) / most) * 95;
      const name = `${value < 0 ? "against" : "for"}${made.first + k === source ? " chosen" : ""}`;
      bars.append(
        svg("rect", {
          class: name,
          x: k * wide + wide * 0.08,
          y: value < 0 ? 100 : 100 - tall,
          width: wide * 0.84,
          height: Math.max(tall, 0.6),
        }),
      );
    });
    bars.append(svg("path", { class: "zero", d: "M0 100H1000" }));
    const box = html(
      "div",
      {
        class: "bars",
        tabindex: "0",
        role: "slider",
        "aria-label": app.t("layer.source"),
        "aria-valuemin": made.first,
        "aria-valuemax": made.first + count - 1,
        "aria-valuenow": source,
        "aria-valuetext": `${this.sourceName(layer, source)}: ${short(made.partial[source - made.first])}`,
      },
      bars,
    );
    const choose = (/** @type {number} */ k) => k >= 0 && k < count && app.goto({ source: made.first + k });
    box.addEventListener("click", (event) => {
      const bounds = box.getBoundingClientRect();
      choose(Math.floor(((event.clientX - bounds.left) / bounds.width) * count));
    });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      choose(source - made.first + step);
      /** @type {HTMLElement | null} */ (this.root.querySelector(".bars"))?.focus();
    });
    return box;
  }

  // --- normalisation ----------------------------------------------------------------------------

  /** @param {Layer} layer @param {State} state @param {string} place @param {number} stored @param {number} hue */
  normalisation(layer, state, place, stored, hue) {
    const { app, scene } = this;
    const { channel = 0, row: y = 0, column = 0 } = state;
    const made = normalise(scene, layer, channel, y, column);
    if (!made) return;
    this.answer(place, [figure("before", made.before), " / ", figure("denominator", made.denominator)], made.value, stored);
    const name = scene.before(layer.name);
    const { k = 1, coefficient = 0, beta = 0.75, size = 5 } = layer;
    const parts = [
      html("p", { class: "partial" }, app.t("number.squares"), " ", figure("sum", made.sum)),
      this.rule(layer, made),
    ];
    /** @type {HTMLElement} */ let summed;
    if (layer.kind === "spatialnorm") {
      const cells = new Cells(size, app.t("number.square_window", { name: `${name}[${channel}]`, size }));
      const values = valuesIn(made.stage, channel, windowOf(layer, y, column));
      cells.show(values, hue);
      cells.mark([(size * size - 1) / 2], "winner");
      summed = html("div", { class: "trio" }, cells.root);
    } else summed = this.neighbours(layer, made, name, channel);
    parts.push(
      this.beforeAfter(made.before, stored),
      html(
        "p",
        {},
        app.t("number.lrn_effect", {
          share: app.words.percent(1 / made.denominator),
          k: String(k),
          coefficient: String(coefficient),
          beta: String(beta),
        }),
      ),
    );
    replace(
      /** @type {HTMLElement} */ (this.body),
      html("div", { class: "halves" }, html("div", {}, summed), html("div", {}, parts)),
    );
  }

  /** @param {Layer} layer @param {any} made */
  rule({ k = 1, coefficient = 0, beta = 0.75 }, made) {
    const squares = row(sum("j"), power(index("a", "j"), 2));
    const named = fraction("a", power(row("(", "k", "+", "c", squares, ")"), "β"));
    const numbers = fraction(
      short(made.before),
      power(row("(", String(k), "+", String(coefficient), "·", short(made.sum), ")"), String(beta)),
    );
    return formulaBox(
      this.app.t("layer.formula"),
      {},
      formula(
        "b",
        "=",
        named,
        "=",
        numbers,
        "=",
        fraction(short(made.before), short(made.denominator)),
        "=",
        short(made.value),
      ),
    );
  }

  /** The neighbouring channels, and which of them count. @param {Layer} layer @param {any} made @param {string} name @param {number} channel */
  neighbours(layer, made, name, channel) {
    const { app, scene } = this;
    const rows = made.neighbours.map((/** @type {any} */ one) => {
      const absent = one.channel < 0 || one.channel >= made.stage.shape[0];
      const why = absent ? app.t("number.no_map") : one.other ? app.t("number.other_tower") : "";
      const tower =
        scene.towers > 1 && !absent
          ? html(
              "span",
              { class: `tower-${hueOf(made.stage, one.channel)}` },
              app.t("tower", { number: scene.tower(layer.name, one.channel) + 1 }),
            )
          : "";
      return html(
        "tr",
        { class: `${one.counts ? "" : "out"}${one.channel === channel ? " own" : ""}` },
        html("th", { scope: "row" }, absent ? "–" : `${name}[${one.channel}]`),
        html("td", {}, tower),
        html("td", {}, absent ? "" : short(one.value)),
        html("td", {}, one.counts ? short(one.value * one.value) : why),
      );
    });
    const maps = made.neighbours.map((/** @type {any} */ one) => this.thumbnail(made.stage, one, channel));
    const title = app.t("number.neighbours", { count: layer.size ?? 5 });
    return scrolling(
      title,
      html("div", { class: "thumbnails", "aria-hidden": "true" }, maps),
      html(
        "table",
        { class: "neighbours" },
        html("caption", {}, title),
        heads([app.t("number.map"), app.t("number.tower"), "a", "a²"]),
        html("tbody", {}, rows),
      ),
    );
  }

  /**
   * A neighbour's whole map, with the place on it.
   * @param {Stage} stage @param {{channel: number, counts: boolean}} neighbour @param {number} own
   */
  thumbnail(stage, { channel, counts }, own) {
    const [channels, height, width] = stage.shape;
    const name = `thumbnail${counts ? "" : " out"}${channel === own ? " own" : ""}`;
    if (channel < 0 || channel >= channels) return html("div", { class: `${name} none` });
    const { row: y = 0, column = 0 } = this.app.state;
    const canvas = html("canvas");
    draw(
      canvas,
      stage.data.subarray(channel * height * width, (channel + 1) * height * width),
      width,
      height,
      hueOf(stage, channel),
      scaleIn(stage, own),
    );
    return html(
      "div",
      { class: name },
      canvas,
      svg(
        "svg",
        { viewBox: `0 0 ${width} ${height}` },
        svg("circle", { class: "spot", cx: column + 0.5, cy: y + 0.5, r: Math.max(0.7, width / 18) }),
      ),
    );
  }

  /** @param {number} before @param {number} after */
  beforeAfter(before, after) {
    const { app } = this;
    const most = Math.max(Math.abs(before), Math.abs(after), 1e-30);
    const bar = (/** @type {string} */ label, /** @type {number} */ value) =>
      html(
        "div",
        { class: "bar-row" },
        html("span", {}, label),
        html("span", { class: "bar", style: { "--share": Math.abs(value) / most } }),
        html("span", { class: "number" }, short(value)),
      );
    return html("div", { class: "bar-rows" }, bar(app.t("number.before"), before), bar(app.t("number.after"), after));
  }

  // --- pooling ----------------------------------------------------------------------------------

  /** @param {Layer} layer @param {State} state @param {string} place @param {number} stored @param {number} hue */
  pooling(layer, state, place, stored, hue) {
    const { app, scene } = this;
    const { channel = 0, row: y = 0, column = 0 } = state;
    const stage = scene.stage(scene.before(layer.name));
    if (!stage) return;
    const { size = 1, stride = 1 } = layer;
    const values = /** @type {number[]} */ (valuesIn(stage, channel, windowOf(layer, y, column)));
    const most = Math.max(...values);
    this.answer(place, [`max(${values.map(short).join(", ")})`], most, stored);
    const winner = values.indexOf(most);
    const cells = new Cells(size, app.t("number.window", { name: `${stage.name}[${channel}]` }));
    cells.show(values, hue, scaleIn(stage, channel));
    cells.mark([winner], "winner");
    const [, height, width] = layer.output;
    const places = values.map((_, at) => ({
      at,
      windows: shares(y, height, stride, size, Math.floor(at / size)) * shares(column, width, stride, size, at % size),
    }));
    const shared = new Cells(size, app.t("number.shared"));
    shared.show(
      places.map((one) => one.windows),
      2,
      4,
    );
    const count = places.filter((one) => one.windows > 1).length;
    replace(
      /** @type {HTMLElement} */ (this.body),
      html("div", { class: "trio two-cells" }, cells.root, shared.root),
      html("p", {}, app.t("number.winner", { row: Math.floor(winner / size), column: winner % size, value: short(most) })),
      html("p", {}, app.t(stride < size ? "number.overlap" : "number.apart", { size, stride, both: size - stride, count })),
    );
  }

  // --- one value each ----------------------------------------------------------------------------

  /** @param {Layer} layer @param {State} state @param {string} place @param {number} stored */
  pointwise(layer, state, place, stored) {
    const { app, scene } = this;
    const { channel = 0, row: y = 0, column = 0 } = state;
    const stage = scene.stage(scene.before(layer.name));
    if (!stage) return;
    const x = valueAt(stage, channel, y, column);
    const { rate = 0, inverted = false } = layer;
    if (layer.kind === "dropout") {
      const value = inverted ? x : x * (1 - rate);
      this.answer(place, inverted ? [figure("before", x)] : [figure("before", x), ` × (1 − ${rate})`], value, stored);
      replace(
        /** @type {HTMLElement} */ (this.body),
        this.thinned(rate),
        html(
          "p",
          {},
          app.t(rate === 0 ? "number.dropout_none" : inverted ? "number.dropout_inverted" : "number.dropout_why", {
            rate: app.words.percent(rate),
            kept: app.words.percent(1 - rate),
            factor: round(1 - rate),
            grown: round(1 / (1 - rate)),
          }),
        ),
      );
      return;
    }
    const tanh = layer.kind === "tanh";
    const value = tanh ? Math.tanh(x) : Math.max(0, x);
    this.answer(place, tanh ? ["tanh(", figure("before", x), ")"] : ["max(0, ", figure("before", x), ")"], value, stored);
    replace(
      /** @type {HTMLElement} */ (this.body),
      curve(x, tanh ? Math.tanh : (/** @type {number} */ at) => Math.max(0, at), tanh),
      html("p", {}, app.t(tanh ? "number.tanh_said" : x > 0 ? "number.relu_passes" : "number.relu_stops")),
      this.census(stage, tanh),
    );
  }

  /** How many values pass a ReLU. @param {Stage} stage @param {boolean} tanh */
  census(stage, tanh) {
    const { app } = this;
    if (tanh) return null;
    const positive = stage.data.reduce((count, value) => count + (value > 0 ? 1 : 0), 0);
    return html(
      "p",
      { class: "soft" },
      app.t("number.relu_census", {
        positive: app.words.count(positive),
        all: app.words.count(stage.data.length),
        share: app.words.percent(positive / stage.data.length),
      }),
    );
  }

  /** Forty units of which a share is crossed out. @param {number} rate */
  thinned(rate) {
    const count = 40;
    const order = Array.from({ length: count }, (_, at) => (at * 23 + 7) % count);
    const dropped = new Set(order.slice(0, Math.round(rate * count)));
    const drawing = svg("svg", { class: "thinned", viewBox: "0 0 200 20", "aria-hidden": "true" });
    for (let at = 0; at < count; at++) {
      const [x, y] = [(at % 20) * 10 + 5, Math.floor(at / 20) * 10 + 5];
      drawing.append(svg("circle", { cx: x, cy: y, r: 3.6, class: dropped.has(at) ? "dropped" : "kept" }));
      if (dropped.has(at)) drawing.append(svg("path", { d: `M${x - 2.5} ${y - 2.5}l5 5m0 -5l-5 5`, class: "cross" }));
    }
    return drawing;
  }

  // --- fully connected ----------------------------------------------------------------------------

  /** @param {Layer} layer @param {State} state @param {string} place @param {number} stored */
  connected(layer, state, place, stored) {
    const { app, scene } = this;
    const { channel = 0 } = state;
    const made = connect(scene, layer, channel);
    const body = /** @type {HTMLElement} */ (this.body);
    if (!made) {
      replace(
        /** @type {HTMLElement} */ (this.result),
        html("p", { class: "equation" }, html("span", { class: "place" }, place), " = ", figure("stored", stored, "strong")),
      );
      replace(body, html("p", {}, app.t("number.not_carried", { name: layer.name })), this.carried(layer, channel));
      return;
    }
    this.answer(
      place,
      [figure("sum", made.sum), ...added(made.bias), html("span", { class: "soft" }, ` (${app.t("number.bias")})`)],
      made.value,
      stored,
    );
    const order = Array.from(made.products.keys()).sort((a, b) => made.products[b] - made.products[a]);
    const supporting = order.slice(0, LISTED).filter((at) => made.products[at] > 0);
    const opposing = order
      .slice(-LISTED)
      .reverse()
      .filter((at) => made.products[at] < 0);
    const most = Math.max(...[...supporting, ...opposing].map((at) => Math.abs(made.products[at])), 1e-30);
    const total = (/** @type {1 | -1} */ sign) => made.products.reduce((all, one) => (one * sign > 0 ? all + one : all), 0);
    replace(
      body,
      this.carried(layer, channel),
      html("p", {}, app.t("number.unit_sum", { count: app.words.count(made.products.length) })),
      html(
        "div",
        { class: "sides" },
        this.side("for", supporting, made, total(1), most),
        this.side("against", opposing, made, total(-1), most),
      ),
    );
  }

  /** @param {"for" | "against"} name @param {number[]} places @param {any} made @param {number} total @param {number} most */
  side(name, places, made, total, most) {
    const { app } = this;
    const rows = places.map((at) =>
      html(
        "tr",
        {},
        html("th", { scope: "row" }, html("a", { href: this.inputLink(made.stage, at) }, inputName(made.stage, at))),
        html("td", {}, short(made.stage.data[at])),
        html("td", {}, short(made.weight[at])),
        html("td", {}, short(made.products[at])),
        html(
          "td",
          { class: "bar-cell" },
          html("span", { class: `bar ${name}`, style: { "--share": Math.abs(made.products[at]) / most } }),
        ),
      ),
    );
    return scrolling(
      app.t(`number.${name}`),
      html(
        "table",
        {},
        html(
          "caption",
          {},
          app.t(`number.${name}`),
          " ",
          html("span", { class: "soft" }, app.t("number.total", { value: short(total) })),
        ),
        heads([app.t("number.input"), "x", "w", "w · x", ""]),
        html("tbody", {}, rows),
      ),
    );
  }

  /** @param {Stage} stage @param {number} at */
  inputLink(stage, at) {
    const [, height, width] = stage.shape;
    const [channel, y, x] = [Math.floor(at / (height * width)), Math.floor(at / width) % height, at % width];
    return this.app.link({ view: "number", layer: stage.name, channel, row: y, column: x });
  }

  /** The units whose weights the scene has. @param {Layer} layer @param {number} channel */
  carried(layer, channel) {
    const { app, scene } = this;
    const rows = scene.array(`${layer.name}.rows`);
    if (!rows) return null;
    const names = new Map(scene.classes.top.map((/** @type {any} */ one) => [one.index, className(app, one.name)]));
    const last = layer === scene.layers[scene.layers.length - 1];
    const links = Array.from(/** @type {Int32Array} */ (rows.data), (unit) =>
      html(
        "a",
        {
          href: app.link({ view: "number", layer: layer.name, channel: unit }),
          class: "tool",
          "aria-current": unit === channel ? "true" : null,
          dir: "auto",
        },
        (last && names.get(unit)) || String(unit),
      ),
    );
    return html(
      "nav",
      { class: "carried", "aria-label": app.t("number.carried") },
      html("span", { class: "soft" }, app.t(last ? "number.carried_classes" : "number.carried")),
      links,
    );
  }

  // --- softmax ------------------------------------------------------------------------------------

  /** @param {State} state */
  softmax(state) {
    const { app, scene } = this;
    const logits = scene.stage("fc8");
    const shares_ = scene.array("probabilities");
    if (!logits || !shares_ || !this.result) return;
    const { channel = 0 } = state;
    const most = logits.data.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(logits.data, (z) => Math.exp(z - most));
    const all = powers.reduce((a, b) => a + b, 0);
    const value = powers[channel] / all;
    this.answer(`p[${channel}]`, [figure("power", powers[channel]), " / ", figure("sum", all)], value, shares_.data[channel]);
    const top = scene.classes.top;
    const shown = top.some((/** @type {any} */ one) => one.index === channel)
      ? top
      : [...top, { index: channel, name: `${channel}` }];
    const best = Math.max(...shown.map((/** @type {any} */ one) => powers[one.index]));
    const rows = shown.map((/** @type {any} */ one) =>
      html(
        "tr",
        { class: one.index === channel ? "own" : "" },
        html(
          "th",
          { scope: "row", dir: "auto" },
          html("a", { href: app.link({ view: "number", layer: "softmax", channel: one.index }) }, className(app, one.name)),
        ),
        html(
          "td",
          {},
          html("a", { href: app.link({ view: "number", layer: "fc8", channel: one.index }) }, short(logits.data[one.index])),
        ),
        html("td", {}, short(logits.data[one.index] - most)),
        html("td", {}, short(powers[one.index])),
        html("td", {}, app.words.percent(powers[one.index] / all)),
        html("td", { class: "bar-cell" }, html("span", { class: "bar for", style: { "--share": powers[one.index] / best } })),
      ),
    );
    const e = (/** @type {any} */ exponent) => power("e", exponent);
    replace(
      /** @type {HTMLElement} */ (this.body),
      formulaBox(
        this.app.t("layer.formula"),
        {},
        formula(
          index("p", "i"),
          "=",
          fraction(e(index("z", "i")), row(sum("j"), e(index("z", "j")))),
          "=",
          fraction(e(row(index("z", "i"), "−", "m")), row(sum("j"), e(row(index("z", "j"), "−", "m")))),
          ",",
          "m",
          "=",
          short(most),
        ),
      ),
      scrolling(
        app.t("softmax"),
        html(
          "table",
          {},
          heads([app.t("number.class"), "z", "z − m", "exp(z − m)", "p", ""]),
          html("tbody", {}, rows),
        ),
      ),
      html("p", {}, app.t("number.softmax_sum", { count: app.words.count(logits.data.length), sum: short(all) })),
    );
  }
}

/** A number without the digits that binary fractions add. @param {number} value */
function round(value) {
  return String(Number(value.toPrecision(6)));
}

/** In how many of two neighbouring windows a row or column of a window is. @param {number} place @param {number} count @param {number} stride @param {number} size @param {number} at */
function shares(place, count, stride, size, at) {
  let windows = 0;
  for (let one = 0; one < count; one++) {
    const offset = (place - one) * stride + at;
    if (offset >= 0 && offset < size) windows++;
  }
  return windows;
}

/** @param {Stage} stage @param {number} at */
function inputName(stage, at) {
  const [, height, width] = stage.shape;
  if (stage.flat) return `${stage.name}[${at}]`;
  return `${stage.name}[${Math.floor(at / (height * width))}, ${Math.floor(at / width) % height}, ${at % width}]`;
}

/** To how many decimal digits two numbers agree. @param {number} value @param {number} stored */
function agreement(value, stored) {
  const apart = Math.abs(value - stored);
  const size = Math.max(Math.abs(value), Math.abs(stored));
  if (apart === 0) return 16;
  return Math.max(0, Math.floor(-Math.log10(apart / size)));
}

/**
 * A function as a curve, with the cell on it.
 * @param {number} x @param {(x: number) => number} of @param {boolean} tanh
 */
function curve(x, of, tanh) {
  const reach = Math.max(Math.abs(x) * 1.4, tanh ? 3 : 1e-6);
  const tall = tanh ? 1.2 : reach;
  const at = (/** @type {number} */ value) => [100 + (value / reach) * 95, 70 - (of(value) / tall) * 60];
  const points = Array.from({ length: 81 }, (_, step) => at(((step - 40) / 40) * reach).join(" "));
  const [cx, cy] = at(x);
  return svg(
    "svg",
    { class: "curve", viewBox: "0 0 200 140", "aria-hidden": "true" },
    svg("path", { class: "axis", d: "M0 70H200M100 0V140" }),
    svg("path", { class: "drop", d: `M${cx} 70V${cy}H100` }),
    svg("path", { class: "line", d: `M${points.join("L")}` }),
    svg("circle", { class: "tip", cx, cy, r: 4 }),
    svg("text", { x: Math.min(170, Math.max(30, cx)), y: x > 0 ? 84 : 62 }, short(x)),
    svg("text", { x: x > 0 ? 84 : 118, y: Math.max(10, cy + 3) }, short(of(x))),
  );
}
