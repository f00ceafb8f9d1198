/**
 * Questions at the end of the tour, made of the network that is shown. An answer is checked here:
 * a known mistake is named, and the solution is worked out.
 *
 * @typedef {import("main").App} App
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 * @typedef {Record<string, string | number>} Values
 *
 * @typedef {object} Question
 * @property {string} id
 * @property {Values} values what the question and its solution name
 * @property {number | string} right
 * @property {{value: number, key: string}[]} [mistakes] wrong answers that are recognised
 * @property {{value: string, text: string}[]} [choices] instead of a number
 */

import { html, replace } from "element";
import { sized } from "layer";

/** Answers given, which outlive a change of language. @type {Map<string, string>} */
const given = new Map();

/** The questions that a network allows. @param {App} app @returns {Question[]} */
export function questions(app) {
  const scene = /** @type {Scene} */ (app.scene);
  const layer = (/** @type {string} */ name) => scene.layer(name);
  const last = [...scene.layers].reverse().find((one) => one.kind === "maxpool");
  const grouped = scene.layers.find((one) => one.kind === "conv" && (one.groups ?? 1) > 1);
  return /** @type {Question[]} */ (
    [
      placesOf("places_first", app, layer("conv1")),
      placesOf("places_pool", app, layer("pool1")),
      weightsOf("weights_first", app, layer("conv1")),
      weightsOf("weights_own", app, grouped),
      meetingOf(app, scene),
      slipOf(app, last),
    ].filter(Boolean)
  );
}

/** How many windows fit. @param {string} id @param {App} app @param {Layer | undefined} layer @returns {Question | null} */
function placesOf(id, app, layer) {
  if (!layer?.size || !layer.stride) return null;
  const { size, stride } = layer;
  const side = layer.input[1];
  const [before, after] = layer.padding ?? [0, 0];
  const right = layer.output[1];
  const exact = (side - size + before + after) / stride + 1;
  const values = {
    name: layer.name,
    side,
    size,
    stride,
    before,
    after,
    exact: exact === right ? `${right}` : `${Number(exact.toFixed(2))} → ${right}`,
  };
  const unpadded = Math.floor((side - size) / stride) + 1;
  const mistakes = [
    { value: right - 1, key: before + after && unpadded === right - 1 ? "quiz.no_padding_or_one" : "quiz.no_one" },
    { value: unpadded, key: "quiz.no_padding" },
  ];
  return { id, values, right, mistakes: mistakes.filter(({ value }) => value !== right) };
}

/** How many parameters. @param {string} id @param {App} app @param {Layer | undefined} layer @returns {Question | null} */
function weightsOf(id, app, layer) {
  if (!layer) return null;
  const [count] = layer.output;
  const own = layer.input[0] / (layer.groups ?? 1);
  const { size = 1 } = layer;
  const values = { name: layer.name, kernels: count, size, all: layer.input[0], own, right: app.words.count(layer.parameters) };
  const mistakes = [
    { value: layer.parameters - count, key: "quiz.no_biases" },
    { value: count * size * size * layer.input[0] + count, key: "quiz.both_towers" },
    { value: count * size * size * layer.input[0], key: "quiz.both_towers" },
    { value: count * size * size + count, key: "quiz.one_map" },
  ];
  return { id, values, right: layer.parameters, mistakes: mistakes.filter(({ value }) => value !== layer.parameters) };
}

/** Where the towers meet first. @param {App} app @param {Scene} scene @returns {Question | null} */
function meetingOf(app, scene) {
  const layers = scene.layers.filter((one) => ["conv", "linear"].includes(one.kind)).slice(1);
  const right = layers.find((one) => (one.groups ?? 1) === 1)?.name;
  if (scene.towers === 1 || !right || right === layers[0].name) return null;
  return {
    id: "meeting",
    values: { right },
    right,
    choices: layers.slice(0, 5).map(({ name }) => ({ value: name, text: name })),
  };
}

/** Which line is wrong. @param {App} app @param {Layer | undefined} layer @returns {Question | null} */
function slipOf(app, layer) {
  if (!layer) return null;
  const { size = 1, stride = 1, input, output } = layer;
  if (input[1] === output[1]) return null;
  const shape = (/** @type {number[]} */ [c, h, w]) => `[${h},${w},${c}]`;
  const lines = {
    kernel_size: size,
    padding: 0,
    stride,
    input_size: shape(input),
    output_size: shape([output[0], input[1], input[2]]),
  };
  const choices = Object.entries(lines).map(([key, value]) => ({
    value: key,
    text: `${app.t(key === "kernel_size" ? "window_size" : key)}${app.t("colon")}${value}`,
  }));
  const values = {
    name: layer.name,
    side: input[1],
    size,
    stride,
    count: output[1],
    right: sized(output),
    wrong: shape([output[0], input[1], input[2]]),
  };
  return { id: slipped(layer) ? "slip_notes" : "slip", values, right: "output_size", choices };
}

/** Whether a pooling is the one whose output the study notes give once as its input. @param {Layer} layer */
export function slipped(layer) {
  return layer.name === "pool5" && layer.input.join() === "256,13,13" && layer.size === 3 && layer.stride === 2;
}

export class Quiz {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.list = questions(app);
    this.score = html("p", { class: "score", role: "status" });
    /** @type {Set<string>} */
    this.solved = new Set();
    this.root = html(
      "div",
      { class: "quiz" },
      html(
        "ol",
        {},
        this.list.map((one) => this.item(one)),
      ),
      this.score,
    );
    this.count();
  }

  /** Answers belong to one network. @param {Question} question */
  key(question) {
    return `${question.id} ${JSON.stringify(question.values.name ?? "")} ${question.right}`;
  }

  /** @param {Question} question */
  item(question) {
    const { app } = this;
    const reply = html("div", { class: "reply", role: "status" });
    const earlier = given.get(this.key(question)) ?? "";
    const { field, read } = question.choices ? this.choices(question, earlier) : this.number(question, earlier);
    const check = () => this.check(question, read(), reply);
    const form = html(
      "form",
      { onsubmit: (/** @type {Event} */ event) => (event.preventDefault(), check()) },
      field,
      html(
        "div",
        { class: "turns" },
        html("button", { type: "submit", class: "tool primary" }, app.t("quiz.check")),
        html("button", { type: "button", class: "tool", onclick: () => this.reveal(question, reply) }, app.t("quiz.show")),
      ),
      reply,
    );
    if (earlier) this.check(question, earlier, reply);
    return html("li", { "data-question": question.id }, form);
  }

  /** @param {Question} question @param {string} earlier */
  number(question, earlier) {
    const input = html("input", { type: "text", inputmode: "numeric", autocomplete: "off", value: earlier, size: 12 });
    return { field: html("label", {}, html("span", {}, this.asked(question)), " ", input), read: () => input.value };
  }

  /** @param {Question} question @param {string} earlier */
  choices(question, earlier) {
    const inputs = (question.choices ?? []).map(({ value, text }) => {
      const input = html("input", { type: "radio", name: question.id, value, checked: value === earlier });
      return { input, label: html("label", {}, input, " ", text) };
    });
    const field = html(
      "fieldset",
      {},
      html("legend", {}, this.asked(question)),
      inputs.map(({ label }) => label),
    );
    return { field, read: () => inputs.find(({ input }) => input.checked)?.input.value ?? "" };
  }

  /** @param {Question} question */
  asked(question) {
    return this.app.t(`quiz.${question.id}`, question.values);
  }

  /** @param {Question} question @param {string} text @param {HTMLElement} reply */
  check(question, text, reply) {
    const { app } = this;
    if (!text.trim()) return replace(reply, html("p", {}, app.t("quiz.empty")));
    given.set(this.key(question), text);
    const answer = question.choices ? text : whole(text);
    const right = answer === question.right;
    if (right) this.solved.add(question.id);
    else this.solved.delete(question.id);
    reply.className = `reply ${right ? "right" : "wrong"}`;
    const known = question.mistakes?.find(({ value }) => value === answer);
    const said = right ? "quiz.right" : known ? known.key : Number.isNaN(answer) ? "quiz.not_a_number" : "quiz.wrong";
    replace(reply, html("p", {}, app.t(said, question.values)), right ? this.solution(question) : null);
    this.count();
  }

  /** @param {Question} question @param {HTMLElement} reply */
  reveal(question, reply) {
    reply.className = "reply";
    replace(reply, this.solution(question));
  }

  /** @param {Question} question */
  solution(question) {
    return html("p", { class: "solution" }, this.app.t(`quiz.${question.id}_solved`, question.values));
  }

  count() {
    const [solved, count] = [this.solved?.size ?? 0, this.list.length];
    if (!this.score) return;
    this.score.textContent = this.app.t(solved === count ? "quiz.all" : "quiz.score", { solved, count });
  }
}

/** A whole number as people write it: 307,456 or 307 456. @param {string} text */
function whole(text) {
  const digits = text.trim().replace(/[\s,，.'’_]/g, "");
  return /^\d+$/.test(digits) ? Number(digits) : NaN;
}
