/**
 * The page: what is shown, and how it changes.
 *
 * A state says which view is open and at what it looks (layer, channel, row, column); it is in the
 * address behind the #, so that a link opens it. `goto` is the only way to change it.
 *
 * @typedef {object} State
 * @property {string} view network, layer, number, unit, picture or tour
 * @property {string} [layer]
 * @property {number} [channel] counted over all towers; of a fully connected layer: the unit
 * @property {number} [row]
 * @property {number} [column]
 * @property {number} [source] channel of the input that is looked at
 * @property {number} [step] chapter of the tour, shown above the view
 *
 * @typedef {Record<string, string | number | null | undefined>} Changes
 *
 * @typedef {object} View
 * @property {(state: State, before: State | null) => void} update show a state
 * @property {() => void} [close]
 */

import { html, replace } from "element";
import { NetworkView, labelled } from "figure";
import { LayerView } from "layer";
import { isDark } from "maps";
import { NumberView } from "number";
import { Scene, SceneError, fromBase64, unpack } from "scene";
import { TourPanel, resolve } from "tour";
import { UnitView } from "unit";
import { Upload } from "upload";
import { Words, firstLanguage, keepLanguage } from "words";

const NUMBERS = ["channel", "row", "column", "source", "step"];
const THEMES = ["auto", "light", "dark"];
const SETTLED = 150; // ms without a change until the address is written

export class App {
  constructor() {
    const catalogue = JSON.parse(text("words"));
    this.page = JSON.parse(text("page"));
    /** @type {Words} */
    this.words = new Words(catalogue, firstLanguage(this.page.lang));
    /** @type {Scene | null} */
    this.scene = null;
    /** @type {State} */
    this.state = { view: "network" };
    /** @type {Record<string, new (app: App, root: HTMLElement) => View>} */
    this.views = { network: NetworkView, layer: LayerView, number: NumberView, unit: UnitView };
    /** @type {View | null} */
    this.view = null;
    /** @type {State | null} */
    this.shown = null;
    this.upload = this.page.mode === "served" ? new Upload(this) : null;
    this.theme = "auto";
    this.pending = 0;
    /** @type {SceneError | null} why there is no scene */
    this.problem = null;
    addEventListener("hashchange", () => this.follow());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    addEventListener("beforeprint", () => this.paper("light"));
    addEventListener("afterprint", () => this.paper(this.theme));
    this.rebuild();
  }

  /** A sentence. @param {string} key @param {Record<string, string | number>} [values] */
  t(key, values) {
    return this.words.of(key, values);
  }

  /**
   * Change what is shown.
   * @param {Changes} changes null or undefined take a part of the state away. Another layer
   *   without a channel begins at its strongest one; another channel without a cell at its largest.
   */
  goto(changes) {
    const next = /** @type {any} */ ({ ...this.state });
    if ("layer" in changes && changes.layer !== this.state.layer) {
      for (const name of ["channel", "row", "column", "source"]) delete next[name];
    }
    if ("channel" in changes && changes.channel !== this.state.channel && !("row" in changes)) {
      delete next.row;
      delete next.column;
    }
    Object.assign(next, changes);
    for (const name of Object.keys(next)) if (next[name] === null || next[name] === undefined) delete next[name];
    this.apply(next);
    this.write();
  }

  /** Show a state. @param {State} wanted */
  apply(wanted) {
    let state = wanted.view === "tour" && this.scene ? resolve(this, wanted) : wanted;
    if (!Object.hasOwn(this.views, state.view)) state = { ...state, view: "network" };
    this.state = this.complete(state);
    this.show();
  }

  /**
   * The state with its blanks filled in from the scene, and what does not exist left out.
   * @param {State} state @returns {State}
   */
  complete(state) {
    const scene = this.scene;
    if (!scene || state.view === "network") return state;
    const softmax = state.layer === "softmax" && scene.array("probabilities") && state.view === "number";
    const layer = softmax ? "softmax" : (scene.layer(state.layer ?? "")?.name ?? scene.layers[0].name);
    const stage = scene.stage(softmax ? "probabilities" : layer);
    if (!stage) return { ...state, layer };
    const [channels, height, width] = stage.shape;
    const channel = inside(state.channel, channels) ?? this.first(layer);
    const [row, column] = [inside(state.row, height), inside(state.column, width)];
    const peak = row === undefined || column === undefined ? scene.peak(stage.name, channel) : [row, column];
    return { ...state, layer, channel, row: row ?? peak[0], column: column ?? peak[1] };
  }

  /** The channel to begin with. @param {string} layer */
  first(layer) {
    const scene = /** @type {Scene} */ (this.scene);
    if (layer === "softmax" || layer === "fc8") return scene.classes.top[0]?.index ?? 0;
    const rows = scene.array(`${layer}.rows`);
    return rows ? rows.data[0] : scene.ranked(layer)[0];
  }

  /**
   * Address of a state; the tour's chapter stays open.
   * @param {Changes} changes
   */
  link(changes) {
    const kept = this.state.step === undefined ? {} : { step: this.state.step };
    return `${location.href.split("#")[0]}#${written({ ...kept, ...changes })}`;
  }

  /** The address follows the state, once it has come to rest. */
  write() {
    clearTimeout(this.pending);
    this.pending = setTimeout(() => {
      const hash = `#${written(/** @type {any} */ (this.state))}`;
      if (hash === location.hash) return;
      const before = read(location.hash);
      const moved = before.view === this.state.view && before.layer === this.state.layer && before.step === this.state.step;
      try {
        history[moved ? "replaceState" : "pushState"](null, "", hash);
      } catch {
        location.hash = hash;
      }
    }, SETTLED);
  }

  /** The state follows the address. */
  follow() {
    clearTimeout(this.pending);
    this.apply(read(location.hash));
  }

  /** @param {Scene} scene */
  open(scene) {
    this.scene = scene;
    this.problem = null;
    this.frame();
    this.follow();
  }

  /** Draw the page anew: at the start, in another language, in another theme. */
  rebuild() {
    this.frame();
    this.show();
  }

  /** What is around the views. */
  frame() {
    document.documentElement.lang = this.words.tag;
    const main = html("main", { id: "main", tabindex: "-1" });
    const tour = html("aside", { id: "tour", "aria-label": this.t("tour.title"), hidden: true });
    this.main = main;
    this.tourRoot = tour;
    this.about = html("p", { class: "about" }, this.identity());
    this.nav = html("nav", { class: "views", "aria-label": this.t("page.views") });
    /** @type {HTMLAnchorElement[]} */
    this.links = [];
    const frame = /** @type {HTMLElement} */ (document.getElementById("app"));
    replace(
      frame,
      html(
        "a",
        { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => (event.preventDefault(), main.focus()) },
        this.t("page.skip"),
      ),
      html(
        "header",
        { class: "top" },
        html("a", { class: "brand", href: this.link({ view: "network" }) }, "AlexNet"),
        this.nav,
        this.about,
        this.tools(),
      ),
      this.upload?.panel(),
      tour,
      main,
      html("footer", { class: "foot" }, html("p", {}, this.t("page.foot"))),
    );
    this.tour = this.scene ? new TourPanel(this, tour) : null;
    this.view?.close?.();
    this.view = null;
    this.shown = null;
    if (this.problem) this.fail(this.problem);
  }

  /** Which picture and network this is, in a line for the views that do not say so at length. */
  identity() {
    const { scene } = this;
    if (!scene) return [];
    const { note, missing } = scene.network;
    const noted = note
      ? html(
          "span",
          { class: "note", title: this.t(`network.${note}`, { missing: missing.join(", ") }) },
          this.t(`page.${note}`),
        )
      : null;
    return [
      html("bdi", {}, this.pictureName()),
      " · ",
      html("bdi", { title: scene.network.name }, labelled(this, scene.network)),
      " ",
      noted,
    ];
  }

  tools() {
    const language = this.words.language === "en" ? "zh" : "en";
    return html(
      "div",
      { class: "tools" },
      html(
        "button",
        {
          type: "button",
          class: "tool",
          lang: language === "zh" ? "zh-Hans" : "en",
          onclick: () => this.speak(language),
          "data-role": "language",
        },
        language === "zh" ? "中文" : "English",
      ),
      html(
        "button",
        {
          type: "button",
          class: "tool",
          onclick: () => this.dress(THEMES[(THEMES.indexOf(this.theme) + 1) % 3]),
          "data-role": "theme",
        },
        this.t(`page.theme_${this.theme}`),
      ),
    );
  }

  /** @param {import("words").Language} language */
  speak(language) {
    this.words = new Words(this.words.catalogue, language);
    keepLanguage(language);
    this.rebuild();
    /** @type {HTMLElement | null} */ (document.querySelector("[data-role=language]"))?.focus();
  }

  /** @param {string} theme */
  dress(theme) {
    this.theme = theme;
    this.paper(theme);
    /** @type {HTMLElement | null} */ (document.querySelector("[data-role=theme]"))?.focus();
  }

  /** Draw everything on another paper: print is light. @param {string} theme */
  paper(theme) {
    const was = isDark();
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    if (was !== isDark() || this.theme === theme) this.rebuild();
  }

  show() {
    const { state, scene } = this;
    this.tabs();
    if (!scene || !this.main) return;
    if (this.about) this.about.hidden = state.view === "network";
    if (this.tour && this.tourRoot) {
      this.tourRoot.hidden = state.step === undefined;
      this.tour.update(state);
    }
    if (this.shown?.view !== state.view || !this.view) {
      this.view?.close?.();
      replace(this.main);
      this.main.className = `view-${state.view}`;
      this.view = new this.views[state.view](this, this.main);
      this.shown = null;
    }
    this.view.update(state, this.shown);
    if (this.shown?.layer !== state.layer || !this.shown) document.title = this.title();
    this.shown = state;
  }

  /** What the picture is called; one from the camera has no name. */
  pictureName() {
    if (this.upload?.isSample) return this.t("upload.sample");
    return this.scene?.picture.name || this.t("network.unnamed");
  }

  title() {
    const { state, scene } = this;
    const place = state.view === "network" ? "" : `${state.layer} · `;
    return `${place}${this.t(`page.view_${state.view}`)} · ${scene ? `${this.pictureName()} · ` : ""}AlexNet`;
  }

  tabs() {
    if (!this.nav || !this.scene) return;
    if (!this.links.length) {
      this.links = [...Object.keys(this.views), "tour"].map((name) =>
        html("a", { class: name === "tour" ? "touring" : null }, this.t(`page.view_${name}`)),
      );
      replace(this.nav, this.links);
    }
    const { layer, channel, row, column, view, step } = /** @type {any} */ (this.state);
    const kept = view === "network" ? {} : { layer: layer === "softmax" ? "fc8" : layer, channel, row, column };
    this.links.forEach((link, at) => {
      const name = Object.keys(this.views)[at] ?? "tour";
      link.href =
        name === "tour"
          ? this.link({ view: "tour", step: 0 })
          : this.link(name === "network" ? { view: name } : { view: name, ...kept });
      const current = name === "tour" ? step !== undefined : name === view;
      if (current) link.setAttribute("aria-current", name === "tour" ? "true" : "page");
      else link.removeAttribute("aria-current");
    });
  }

  /** Say in the page that something failed. @param {unknown} problem */
  fail(problem) {
    const known = problem instanceof SceneError ? problem : new SceneError("error.scene");
    if (!(problem instanceof SceneError)) console.error(problem);
    const sentence = known.text ?? this.t(known.key);
    this.problem = known;
    if (this.upload) this.upload.fail(known);
    else if (this.main) replace(this.main, html("p", { class: "problem", role: "alert" }, sentence));
  }
}

/** @param {string} id */
function text(id) {
  return document.getElementById(id)?.textContent ?? "";
}

/** @param {number | undefined} value @param {number} count */
function inside(value, count) {
  return value !== undefined && Number.isInteger(value) && value >= 0 && value < count ? value : undefined;
}

/** @param {string} hash @returns {State} */
function read(hash) {
  const state = /** @type {any} */ ({ view: "network" });
  for (const [name, value] of new URLSearchParams(hash.slice(1))) state[name] = NUMBERS.includes(name) ? Number(value) : value;
  return state;
}

/** @param {Record<string, any>} state */
function written(state) {
  const pairs = ["view", "layer", "channel", "row", "column", "source", "step"].filter(
    (name) => state[name] !== undefined && state[name] !== null,
  );
  return pairs.map((name) => `${name}=${encodeURIComponent(state[name])}`).join("&");
}

async function start() {
  const app = new App();
  /** @type {any} */ (window).alexnet = app;
  try {
    if (app.upload) await app.upload.sample();
    else app.open(await unpack(fromBase64(text("scene"))));
  } catch (problem) {
    app.fail(problem);
  }
}

start();
