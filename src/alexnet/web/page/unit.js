/**
 * A unit: what it likes, in the reader's own pictures, and what it saw here.
 *
 * @typedef {import("main").App} App
 * @typedef {import("main").State} State
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Unit} Unit
 */

import { html, replace, svg } from "element";
import { operation, stages } from "layer";
import { draw, hueOf, photo, scaleIn } from "maps";
import { short } from "words";

export class UnitView {
  /** @param {App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.scene = /** @type {Scene} */ (app.scene);
    this.root = root;
  }

  /** @param {State} state */
  update(state) {
    const { app, scene, root } = this;
    const layer = scene.layer(state.layer ?? "");
    if (!layer) return;
    const stage = scene.stage(layer.name);
    const known = scene.units?.[layer.name] ?? [];
    const unit = known.find((one) => one.channel === state.channel);
    const name = `${layer.name}[${state.channel}]`;
    replace(
      root,
      stages(app, state),
      html(
        "header",
        { class: "heading" },
        html("h1", {}, name, " ", html("span", { class: "soft" }, operation(app, layer))),
        html("p", { class: "lead" }, app.t("unit.story")),
      ),
      this.choices(known, state),
    );
    if (!stage) {
      root.append(
        html("p", { class: "note" }, app.t("layer.absent", { name: layer.name, missing: scene.network.missing.join(", ") })),
      );
      return;
    }
    root.append(html("div", { class: "unit" }, this.here(state, stage), this.deconvolved(unit), this.patches(unit)));
  }

  /** The units of this stage of which more is known. @param {Unit[]} known @param {State} state */
  choices(known, state) {
    const { app, scene } = this;
    const elsewhere = Object.keys(scene.units ?? {});
    if (!known.length) {
      if (!elsewhere.length) return null;
      return html(
        "nav",
        { class: "carried", "aria-label": app.t("unit.stages") },
        html("span", { class: "soft" }, app.t("unit.stages")),
        elsewhere.map((name) => html("a", { class: "tool", href: app.link({ view: "unit", layer: name }) }, name)),
      );
    }
    const links = known.map((one) =>
      html(
        "a",
        {
          class: "tool",
          href: app.link({ view: "unit", layer: state.layer, channel: one.channel }),
          "aria-current": one.channel === state.channel ? "true" : null,
        },
        String(one.channel),
      ),
    );
    return html(
      "nav",
      { class: "carried", "aria-label": app.t("unit.strongest") },
      html("span", { class: "soft" }, app.t("unit.strongest")),
      links,
    );
  }

  /** Its map, and its largest cell's field on the picture. @param {State} state @param {import("scene").Stage} stage */
  here(state, stage) {
    const { app, scene } = this;
    const { channel = 0 } = state;
    const [, height, width] = stage.shape;
    const [row, column] = scene.peak(stage.name, channel);
    const map = html("canvas", { role: "img", "aria-label": app.t("unit.map", { name: stage.name, number: channel }) });
    draw(
      map,
      stage.data.subarray(channel * height * width, (channel + 1) * height * width),
      width,
      height,
      hueOf(stage, channel),
      scaleIn(stage, channel),
    );
    const side = scene.network.input_size;
    const field = scene.field(stage.name, row, column);
    const seen = scene.array("seen");
    const marks = svg(
      "svg",
      { viewBox: `0 0 ${side} ${side}`, "aria-hidden": "true" },
      svg("rect", { class: "halo", x: field.left, y: field.top, width: field.side, height: field.side }),
      svg("rect", { class: "frame", x: field.left, y: field.top, width: field.side, height: field.side }),
    );
    const value = scene.strength(stage.name)[channel];
    return html(
      "section",
      {},
      html("h2", {}, app.t("unit.here")),
      html(
        "div",
        { class: "pair" },
        html("div", { class: "plane" }, map),
        html("div", { class: "plane" }, seen ? photo(/** @type {any} */ (seen)) : null, marks),
      ),
      html(
        "p",
        {},
        stage.flat ? app.t("unit.value", { value: short(value) }) : app.t("unit.peak", { value: short(value), row, column }),
        " ",
        html("a", { href: app.link({ view: "number", layer: stage.name, channel, row, column }) }, app.t("layer.work_out")),
      ),
    );
  }

  /** @param {Unit | undefined} unit */
  deconvolved(unit) {
    const { app, scene } = this;
    if (!unit?.deconv)
      return html(
        "section",
        {},
        html("h2", {}, app.t("unit.saw")),
        html("p", { class: "soft" }, app.t(scene.units ? "unit.saw_other" : "unit.saw_none")),
      );
    const drawn = html("img", { src: `data:image/jpeg;base64,${unit.deconv}`, alt: app.t("unit.saw_alt") });
    return html(
      "section",
      {},
      html("h2", {}, app.t("unit.saw")),
      html(
        "div",
        { class: "pair" },
        html("div", { class: "plane" }, drawn),
        html("div", { class: "plane" }, this.cropped(unit?.deconv_box)),
      ),
      html("p", { class: "soft" }, app.t("unit.saw_how")),
    );
  }

  /** The same part of the picture. @param {[number, number, number, number] | undefined} box */
  cropped(box) {
    const seen = this.scene.array("seen");
    if (!seen || !box) return null;
    const [left, top, right, bottom] = box;
    const canvas = html("canvas", {
      width: right - left,
      height: bottom - top,
      role: "img",
      "aria-label": this.app.t("unit.same_part"),
    });
    canvas.getContext("2d")?.drawImage(photo(/** @type {any} */ (seen)), -left, -top);
    return canvas;
  }

  /** @param {Unit | undefined} unit */
  patches(unit) {
    const { app, scene } = this;
    const patches = unit?.patches ?? [];
    if (!patches.length) {
      const any = Object.values(scene.units ?? {}).some((units) => units.some((one) => one.patches.length));
      return html(
        "section",
        {},
        html("h2", {}, app.t("unit.likes")),
        html("p", { class: "soft" }, app.t(any ? "unit.likes_other" : "unit.likes_none")),
      );
    }
    const tiles = patches.map((one, at) =>
      html(
        "li",
        {},
        html("img", {
          src: `data:image/jpeg;base64,${one.jpeg}`,
          alt: app.t("unit.patch", { number: at + 1, value: short(one.value) }),
        }),
        html("span", { class: "number" }, short(one.value)),
      ),
    );
    return html(
      "section",
      {},
      html("h2", {}, app.t("unit.likes")),
      html("ol", { class: "patches" }, tiles),
      html("p", { class: "soft" }, app.t("unit.likes_how")),
    );
  }
}
