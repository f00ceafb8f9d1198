/**
 * The tour: chapters above the views, in the order of the study notes, one for each of their
 * drawings; then what they leave out; then questions. A chapter is a state of the page and a few
 * sentences with the scene's own numbers. One whose layer is not there is left out.
 *
 * @typedef {import("main").App} App
 * @typedef {import("main").State} State
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {Record<string, string | number>} Values
 * @typedef {[key: string, values?: Values]} Said
 *
 * @typedef {object} Chapter
 * @property {string} id its title is tour.ID_title
 * @property {Record<string, string | number>} state
 * @property {Said[]} said
 * @property {Layer} [sized] the layer whose size is worked out
 * @property {boolean} [bench] with numbers to change
 * @property {boolean} [beyond] not in the notes
 * @property {boolean} [quiz]
 */

import { Bench } from "bench";
import { html, replace } from "element";
import { className } from "figure";
import { formulaBox, sizeFormula } from "formula";
import { sized } from "layer";
import { Quiz, slipped } from "quiz";

const KEYS = { ArrowLeft: -1, ArrowRight: 1 };
/** What takes the arrow keys for itself. */
const OWN_KEYS = "input, select, textarea, [role=application], [role=slider], [role=radiogroup]";

/**
 * The state that a chapter shows, `step` kept.
 * @param {App} app @param {State} state with view "tour"
 * @returns {State}
 */
export function resolve(app, state) {
  const list = chapters(app);
  const step = Math.min(Math.max(0, Math.trunc(state.step ?? 0) || 0), list.length - 1);
  return { view: "network", ...list[step].state, step };
}

/** @type {WeakMap<Scene, Record<string, Chapter[]>>} */
const made = new WeakMap();

/** The chapters of a scene. @param {App} app @returns {Chapter[]} */
export function chapters(app) {
  const scene = /** @type {Scene} */ (app.scene);
  const known = made.get(scene) ?? {};
  made.set(scene, known);
  known[app.words.language] ??= new Author(app, scene).chapters();
  return known[app.words.language];
}

/** 48·2 = 96, or 64 where there is one tower. @param {Scene} scene @param {Layer} layer */
export function kernels(scene, layer) {
  const [count] = layer.output;
  const towers = scene.split(layer, count);
  return towers > 1 ? together(`${count / towers}·${towers} = ${count}`) : `${count}`;
}

/** Words that stay on one line. @param {string} words */
function together(words) {
  return words.replaceAll(" ", "\u00a0");
}

/** Fills the chapters with a scene's numbers. */
class Author {
  /** @param {App} app @param {Scene} scene */
  constructor(app, scene) {
    this.app = app;
    this.scene = scene;
  }

  /** @returns {Chapter[]} */
  chapters() {
    const { scene } = this;
    /** @type {(Chapter | null)[]} */
    const list = [
      this.network(),
      this.about("conv1", (layer) => this.formula(layer)),
      this.about("conv1", (layer) => this.first(layer)),
      this.about("pool1", (layer) => this.pooling("pool1", layer, "layer")),
      this.about("conv2", (layer) => this.convolution("conv2", layer)),
      this.about("pool2", (layer) => this.pooling("pool2", layer, "number")),
      this.about("conv3", (layer) => this.convolution("conv3", layer)),
      this.about("conv3", (layer) => this.products("conv3_number", layer)),
      this.about("conv4", (layer) => this.convolution("conv4", layer)),
      this.about("conv4", (layer) => this.products("conv4_number", layer)),
      this.about("conv5", (layer) => this.convolution("conv5", layer)),
      this.about("pool5", (layer) => this.pooling("pool5", layer, "layer")),
      this.about(this.kind("relu", "tanh"), (layer) => this.activation(layer)),
      this.about(this.kind("lrn"), (layer) => this.normalisation(layer)),
      this.about(this.kind("linear"), (layer) => this.connected(layer)),
      this.about(this.kind("dropout"), (layer) => this.dropout(layer)),
      this.softmax(),
      { id: "quiz", state: { view: "network" }, said: [["tour.quiz_1"]], quiz: true },
    ];
    return /** @type {Chapter[]} */ (
      list.filter((one) => one && (!one.state.layer || one.state.layer === "softmax" || scene.has(String(one.state.layer))))
    );
  }

  /** @param {string} name @param {(layer: Layer) => Chapter | null} write */
  about(name, write) {
    const layer = this.scene.layer(name);
    return layer ? write(layer) : null;
  }

  /** Name of the first layer of a kind. @param {string[]} kinds */
  kind(...kinds) {
    return this.scene.layers.find((layer) => kinds.includes(layer.kind))?.name ?? "";
  }

  /** What most sentences name. @param {Layer} layer @returns {Values} */
  numbers(layer) {
    const { app, scene } = this;
    const [before, after] = layer.padding ?? [0, 0];
    const own = layer.input[0] / (layer.groups ?? 1);
    return {
      name: layer.name,
      kernels: kernels(scene, layer),
      size: layer.size ?? 1,
      area: (layer.size ?? 1) ** 2,
      window: together(`${layer.size} × ${layer.size} × ${own}`),
      stride: layer.stride ?? 1,
      before,
      after,
      side: layer.input[1],
      count: layer.output[1],
      input: together(sized(layer.input)),
      output: together(sized(layer.output)),
      all: layer.input[0],
      own,
      both: (layer.size ?? 1) - (layer.stride ?? 1),
      products: app.words.count((layer.size ?? 1) ** 2 * own),
      parameters: app.words.count(layer.parameters),
      multiply_adds: app.words.count(layer.multiply_adds),
      field: layer.receptive_field,
      jump: layer.jump,
    };
  }

  network() {
    const { app, scene } = this;
    const conv1 = scene.layers[0];
    const total = scene.layers.reduce((sum, layer) => sum + layer.parameters, 0);
    const { language } = app.words;
    /** @type {Said[]} */
    const said = [
      [
        "tour.network_1",
        {
          learned: scene.learned[language],
          input: together(sized(conv1.input)),
          classes: app.words.count(scene.classes.count),
          parameters: app.words.count(total),
        },
      ],
    ];
    if (scene.towers > 1) said.push(["tour.network_towers", { towers: scene.towers, kernels: kernels(scene, conv1) }]);
    return { id: "network", state: { view: "network" }, said };
  }

  /** @param {Layer} layer @returns {Chapter} */
  formula(layer) {
    const numbers = this.numbers(layer);
    return {
      id: "formula",
      state: { view: "layer", layer: layer.name },
      said: [
        ["tour.formula_1", numbers],
        ["tour.formula_2", numbers],
      ],
      sized: layer,
      bench: true,
    };
  }

  /** @param {Layer} layer @returns {Chapter} */
  first(layer) {
    const numbers = this.numbers(layer);
    return {
      id: "conv1",
      state: { view: "number", layer: layer.name },
      said: [
        ["tour.conv_1", numbers],
        ["tour.conv1_2", numbers],
      ],
      sized: layer,
    };
  }

  /** @param {string} id @param {Layer} layer @returns {Chapter} */
  convolution(id, layer) {
    const { scene } = this;
    const numbers = this.numbers(layer);
    const crossing = (layer.groups ?? 1) === 1;
    const reads = scene.towers === 1 ? "tour.reads_all" : crossing ? "tour.reads_both" : "tour.reads_own";
    /** @type {Said[]} */
    const said = [
      ["tour.conv_1", numbers],
      [reads, numbers],
    ];
    const third = scene.layer("conv3");
    if (id === "conv4" && third && third.parameters > layer.parameters)
      said.push(["tour.conv4_fewer", { ...numbers, other: this.app.words.count(third.parameters) }]);
    else if (id === "conv5") said.push(["tour.field", numbers]);
    else said.push(["tour.cost", numbers]);
    return { id, state: { view: "layer", layer: layer.name }, said, sized: layer };
  }

  /** @param {string} id @param {Layer} layer @returns {Chapter} */
  products(id, layer) {
    const { scene } = this;
    const numbers = this.numbers(layer);
    const towers = scene.towers > 1 && (layer.groups ?? 1) === 1;
    /** @type {Said[]} */
    const said = [
      ["tour.products_1", numbers],
      [towers ? "tour.products_towers" : "tour.products_bars", numbers],
    ];
    if (id === "conv4_number") said.push(["tour.products_field", numbers]);
    return { id, state: { view: "number", layer: layer.name }, said };
  }

  /** @param {string} id @param {Layer} layer @param {string} view @returns {Chapter} */
  pooling(id, layer, view) {
    const { app, scene } = this;
    const numbers = this.numbers(layer);
    /** @type {Said[]} */
    const said = [["tour.pool_1", numbers]];
    if (id === "pool2") said.push(["tour.pool2_2", numbers]);
    else if (id === "pool1")
      said.push([(layer.stride ?? 0) < (layer.size ?? 0) ? "tour.pool_overlap" : "tour.pool_apart", numbers]);
    if (id === "pool5") {
      const values = app.words.count(layer.output.reduce((a, b) => a * b));
      said.push(["tour.pool5_values", { ...numbers, values }]);
      if (slipped(layer))
        said.push([
          "tour.pool5_slip",
          {
            wrong: together(`${layer.input[1]} × ${layer.input[2]} × ${layer.output[0]}`),
            right: together(sized(layer.output)),
          },
        ]);
    }
    if (view === "number" && !scene.has(layer.name)) return { id, state: { view: "layer", layer: layer.name }, said };
    return { id, state: { view, layer: layer.name }, said, sized: layer };
  }

  /** @param {Layer} layer @returns {Chapter | null} */
  activation(layer) {
    const { app, scene } = this;
    const stage = scene.stage(scene.before(layer.name));
    if (!stage) return null;
    const positive = stage.data.reduce((count, value) => count + (value > 0 ? 1 : 0), 0);
    const share = app.words.percent(positive / stage.data.length);
    const key = layer.kind === "tanh" ? "tour.tanh" : "tour.relu";
    return {
      id: layer.kind === "tanh" ? "tanh" : "relu",
      state: { view: "number", layer: layer.name },
      said: [[`${key}_1`], [`${key}_2`, { name: scene.before(layer.name), share }]],
      beyond: true,
    };
  }

  /** @param {Layer} layer @returns {Chapter} */
  normalisation(layer) {
    const { scene } = this;
    const numbers = { name: layer.name, size: layer.size ?? 5 };
    const seam = scene.towers > 1;
    const channel = seam ? layer.output[0] / scene.towers - 1 : Math.floor(layer.output[0] / 2);
    /** @type {Said[]} */
    const said = [["tour.norm_1", numbers]];
    if (seam) said.push([(layer.towers ?? 1) > 1 ? "tour.norm_own" : "tour.norm_both", { ...numbers, channel }]);
    return { id: "norm", state: { view: "number", layer: layer.name, channel }, said, beyond: true };
  }

  /** @param {Layer} layer @returns {Chapter} */
  connected(layer) {
    const { app, scene } = this;
    const inputs = layer.input.reduce((a, b) => a * b);
    const total = scene.layers.reduce((sum, one) => sum + one.parameters, 0);
    /** @type {Values} */
    const values = {
      name: layer.name,
      shape: together(sized(layer.input)),
      inputs: app.words.count(inputs),
      units: app.words.count(layer.output[0]),
      parameters: app.words.count(layer.parameters),
      share: app.words.percent(layer.parameters / total),
    };
    return {
      id: "connected",
      state: { view: "number", layer: layer.name },
      said: [
        ["tour.connected_1", values],
        ["tour.connected_2", values],
      ],
      beyond: true,
    };
  }

  /** @param {Layer} layer @returns {Chapter} */
  dropout(layer) {
    const { app } = this;
    const { rate = 0.5 } = layer;
    const values = { name: layer.name, rate: app.words.percent(rate), kept: String(1 - rate) };
    return {
      id: "dropout",
      state: { view: "number", layer: layer.name },
      said: [
        ["tour.dropout_1", values],
        [layer.inverted ? "tour.dropout_inverted" : "tour.dropout_test", values],
      ],
      beyond: true,
    };
  }

  /** @returns {Chapter | null} */
  softmax() {
    const { app, scene } = this;
    const [best] = scene.classes.top;
    if (!best || !scene.array("probabilities")) return null;
    const values = {
      count: app.words.count(scene.classes.count),
      name: className(app, best.name),
      share: app.words.percent(best.probability),
    };
    return {
      id: "softmax",
      state: { view: "number", layer: "softmax" },
      said: [
        ["tour.softmax_1", values],
        ["tour.softmax_2", values],
      ],
      beyond: true,
    };
  }
}

/** The panel above the view, shown while the state has a step. */
export class TourPanel {
  /** @param {App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.root = root;
    /** @type {number | undefined} */
    this.step = undefined;
    this.list = chapters(app);
    this.build();
    TourPanel.listening?.abort();
    TourPanel.listening = new AbortController();
    addEventListener("keydown", (event) => this.key(event), { signal: TourPanel.listening.signal });
  }

  build() {
    const { app, list } = this;
    this.place = html("p", { class: "place soft" });
    this.title = html("h2", { tabindex: "-1" });
    this.text = html("div", { class: "said" });
    this.extra = html("div", { class: "extra" });
    this.back = html(
      "button",
      { type: "button", class: "tool", "data-role": "back", onclick: () => this.turn(-1) },
      `← ${app.t("tour.back")}`,
    );
    this.next = html(
      "button",
      { type: "button", class: "tool primary", "data-role": "next", onclick: () => this.turn(1) },
      `${app.t("tour.next")} →`,
    );
    const options = list.map((chapter, at) => html("option", { value: at }, `${at + 1}. ${app.t(`tour.${chapter.id}_title`)}`));
    this.choice = html(
      "select",
      { "aria-label": app.t("tour.chapters"), onchange: () => this.open(Number(this.choice?.value)) },
      options,
    );
    this.projector = html("button", { type: "button", class: "tool", "data-role": "projector", onclick: () => this.project() });
    const close = html(
      "button",
      { type: "button", class: "tool", "data-role": "close", onclick: () => this.leave() },
      app.t("tour.close"),
    );
    this.shown();
    replace(
      this.root,
      html("div", { class: "tour-bar" }, this.place, html("div", { class: "tools" }, this.projector, close)),
      html("div", { "aria-live": "polite", class: "chapter" }, this.title, this.text),
      this.extra,
      html("nav", { class: "tour-turn", "aria-label": app.t("tour.chapters") }, this.back, this.choice, this.next),
    );
  }

  /** @param {State} state */
  update(state) {
    if (state.step === this.step) return;
    this.step = state.step;
    if (state.step === undefined) return void document.documentElement.removeAttribute("data-projector");
    const { app, list } = this;
    const at = Math.min(Math.max(0, Math.trunc(state.step) || 0), list.length - 1);
    const chapter = list[at];
    const parts = /** @type {Record<"place" | "title" | "text" | "extra", HTMLElement>} */ (/** @type {any} */ (this));
    parts.place.textContent = app.t(chapter.quiz ? "tour.place_quiz" : chapter.beyond ? "tour.place_beyond" : "tour.place", {
      number: at + 1,
      count: list.length,
    });
    parts.title.textContent = app.t(`tour.${chapter.id}_title`);
    replace(
      parts.text,
      chapter.said.map(([key, values]) => html("p", {}, app.t(key, values))),
    );
    replace(parts.extra, this.working(chapter));
    parts.extra.classList.toggle("wide", Boolean(chapter.bench || chapter.quiz));
    if (chapter.bench && chapter.sized) this.bench(parts.extra, chapter.sized);
    if (chapter.quiz) parts.extra.append(new Quiz(app).root);
    /** @type {HTMLButtonElement} */ (this.back).disabled = at === 0;
    /** @type {HTMLButtonElement} */ (this.next).disabled = at === list.length - 1;
    /** @type {HTMLSelectElement} */ (this.choice).value = String(at);
    this.at = at;
  }

  /** The size of the chapter's layer, worked out. @param {Chapter} chapter */
  working(chapter) {
    if (!chapter.sized || chapter.bench) return null;
    const { size = 1, stride = 1, padding = null, input } = chapter.sized;
    return formulaBox(this.app.t("layer.formula"), {}, sizeFormula({ side: input[1], size, padding, stride }));
  }

  /** @param {HTMLElement} root @param {Layer} layer */
  bench(root, layer) {
    const room = html("div", { class: "bench" });
    root.append(room);
    const [before, after] = layer.padding ?? [0, 0];
    new Bench(this.app, room, { side: layer.input[1], size: layer.size ?? 1, before, after, stride: layer.stride ?? 1 });
  }

  /** @param {number} by */
  turn(by) {
    const to = (this.at ?? 0) + by;
    if (to < 0 || to >= this.list.length) return;
    this.open(to);
  }

  /** @param {number} step */
  open(step) {
    this.app.goto({ view: "tour", step });
    if (this.root.getBoundingClientRect().top < 0) this.root.scrollIntoView({ block: "start" });
    if (document.activeElement instanceof HTMLButtonElement && document.activeElement.disabled) this.title?.focus();
  }

  leave() {
    this.app.goto({ step: null });
    /** @type {HTMLElement | null} */ (document.querySelector("nav.views .touring"))?.focus();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (
      this.app.state.step === undefined ||
      event.defaultPrevented ||
      event.altKey ||
      event.ctrlKey ||
      event.metaKey ||
      event.shiftKey
    )
      return;
    const focused = event.target instanceof Element ? event.target.closest(OWN_KEYS) : null;
    const by = KEYS[/** @type {keyof typeof KEYS} */ (event.key)];
    if (by && !focused) {
      event.preventDefault();
      this.turn(by);
    } else if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.leave();
  }

  /** Larger, for a room that looks at a projector. */
  project() {
    const { dataset } = document.documentElement;
    if ("projector" in dataset) delete dataset.projector;
    else dataset.projector = "";
    this.app.rebuild();
    /** @type {HTMLElement | null} */ (document.querySelector("#tour [data-role=projector]"))?.focus();
  }

  shown() {
    const on = "projector" in document.documentElement.dataset;
    this.projector?.setAttribute("aria-pressed", String(on));
    if (this.projector) this.projector.textContent = this.app.t("tour.projector");
  }
}

/** @type {AbortController | undefined} */
TourPanel.listening = undefined;
