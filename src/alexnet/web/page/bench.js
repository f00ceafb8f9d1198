/**
 * The bench: a row of pixels and the windows on it, with W, F, P and S to change.
 *
 * @typedef {import("main").App} App
 * @typedef {{side: number, size: number, before: number, after: number, stride: number}} Numbers
 */

import { html, replace, svg } from "element";
import { formulaBox, sizeFormula } from "formula";

const MOST = { side: 512, size: 64, before: 32, after: 32, stride: 32 };
const SEEN = 400; // windows that are drawn at most
/** What programs of the time padded the first layer with. */
export const PADDINGS = [
  { key: "notes", side: 224, before: 1, after: 2 },
  { key: "code", side: 224, before: 0, after: 3 },
  { key: "caffe", side: 227, before: 0, after: 0 },
  { key: "torchvision", side: 224, before: 2, after: 2 },
];

/** How many windows fit, and how many pixels are left over. @param {Numbers} numbers */
export function fitting({ side, size, before, after, stride }) {
  const room = side + before + after - size;
  if (room < 0) return { count: 0, rest: 0 };
  return { count: Math.floor(room / stride) + 1, rest: room % stride };
}

export class Bench {
  /** @param {App} app @param {HTMLElement} root @param {Numbers} numbers where it begins */
  constructor(app, root, numbers) {
    this.app = app;
    this.numbers = { ...numbers };
    this.drawing = html("div", { class: "strip" });
    this.formula = html("div", { "data-role": "bench-formula" });
    this.verdict = html("p", { class: "verdict", role: "status" });
    /** @type {Record<string, HTMLInputElement>} */
    this.fields = {};
    const names = /** @type {[keyof Numbers, string][]} */ ([
      ["side", "W"],
      ["size", "F"],
      ["before", "P"],
      ["after", "P′"],
      ["stride", "S"],
    ]);
    const fields = names.map(([name, letter]) => this.field(name, letter));
    root.append(html("div", { class: "fields" }, fields), this.formula, this.drawing, this.verdict);
    this.show();
  }

  /** @param {keyof Numbers} name @param {string} letter */
  field(name, letter) {
    const least = name === "before" || name === "after" ? 0 : 1;
    const field = html("input", { type: "number", min: least, max: MOST[name], value: this.numbers[name], "data-name": name });
    field.addEventListener("input", () => {
      const value = Math.round(Number(field.value));
      if (field.value === "" || !(value >= least && value <= MOST[name])) return;
      this.numbers[name] = value;
      this.show();
    });
    this.fields[name] = field;
    return html("label", {}, html("span", {}, html("i", {}, letter), " ", this.app.t(`layer.bench_${name}`)), field);
  }

  /** @param {Partial<Numbers>} numbers */
  set(numbers) {
    Object.assign(this.numbers, numbers);
    for (const [name, field] of Object.entries(this.fields)) field.value = String(/** @type {any} */ (this.numbers)[name]);
    this.show();
  }

  show() {
    const { numbers, app } = this;
    const { side, size, before, after, stride } = numbers;
    const { count, rest } = fitting(numbers);
    replace(
      this.formula,
      count ? formulaBox(app.t("layer.formula"), {}, sizeFormula({ side, size, stride, padding: [before, after] })) : null,
    );
    const said = count === 0 ? "layer.bench_none" : rest ? "layer.bench_rest" : "layer.bench_fits";
    this.verdict.textContent = app.t(said, { count, rest, size, side: side + before + after });
    this.verdict.classList.toggle("bad", count === 0 || rest > 0);
    replace(this.drawing, strip(numbers));
  }
}

/** The pixels of one row, and the windows below each other like stairs. @param {Numbers} numbers */
export function strip(numbers) {
  const { side, size, before, after, stride } = numbers;
  const { count, rest } = fitting(numbers);
  const whole = side + before + after;
  const stairs = Math.max(1, Math.min(count, Math.ceil(size / stride), 12));
  const unit = whole / 110;
  const [tall, line] = [5 * unit, 1.7 * unit];
  const height = tall + (stairs + 1) * line;
  const drawing = svg("svg", { viewBox: `0 0 ${whole} ${height}`, "aria-hidden": "true", preserveAspectRatio: "none" });
  drawing.append(
    rectangle("pad", 0, 0, before, tall),
    rectangle("pixels", before, 0, side, tall),
    rectangle("pad", before + side, 0, after, tall),
  );
  if (whole <= 64) for (let at = 1; at < whole; at++) drawing.append(svg("path", { class: "tick", d: `M${at} 0V${tall}` }));
  for (let at = 0; at < Math.min(count, SEEN); at++) {
    const y = tall + line * (0.8 + (at % stairs));
    drawing.append(rectangle(at % 2 ? "odd" : "even", at * stride, y, size, line * 0.62));
  }
  if (rest) drawing.append(rectangle("rest", whole - rest, 0, rest, height));
  return drawing;
}

/** @param {string} name @param {number} x @param {number} y @param {number} width @param {number} height */
function rectangle(name, x, y, width, height) {
  return svg("rect", { class: name, x, y, width: Math.max(0, width), height });
}
