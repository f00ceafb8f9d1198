/**
 * A square of numbers: each cell in the colour of its value, with the value in it.
 */

import { html, svg } from "element";
import { colour } from "maps";
import { short } from "words";

const SIDE = 10; // units of a cell's side

export class Cells {
  /**
   * @param {number} size cells of a side @param {string} title
   */
  constructor(size, title) {
    this.size = size;
    this.title = html("figcaption", {}, title);
    const whole = size * SIDE;
    const drawing = svg("svg", { viewBox: `-0.5 -0.5 ${whole + 1} ${whole + 1}`, "aria-hidden": "true" });
    this.cells = Array.from({ length: size * size }, (_, at) => {
      const [x, y] = [(at % size) * SIDE, Math.floor(at / size) * SIDE];
      const box = svg("rect", { x, y, width: SIDE, height: SIDE });
      const text = svg("text", { x: x + SIDE / 2, y: y + SIDE / 2 + 1.1 });
      const node = document.createTextNode("");
      text.append(node);
      drawing.append(box, text);
      return { box, text, node, shown: "" };
    });
    this.marks = svg("g");
    drawing.append(this.marks);
    this.root = html("figure", { class: `cells size-${size}` }, this.title, drawing);
  }

  /**
   * @param {ArrayLike<number | null>} values null: padding
   * @param {number} hue @param {number} [scale] value of the full colour; the largest if left out
   */
  show(values, hue, scale) {
    let most = scale ?? 0;
    if (scale === undefined) for (let at = 0; at < values.length; at++) most = Math.max(most, Math.abs(values[at] ?? 0));
    this.cells.forEach((cell, at) => {
      const value = values[at];
      if (value === null || value === undefined) return put(cell, "0", "none", "currentColor", "absent");
      const { fill, text } = colour(value, most || 1, hue);
      put(cell, brief(value, this.size), fill, text, "");
    });
  }

  /** Frame some cells. @param {number[]} places @param {string} name */
  mark(places, name) {
    this.marks.replaceChildren(
      ...places.map((at) =>
        svg("rect", {
          class: name,
          x: (at % this.size) * SIDE,
          y: Math.floor(at / this.size) * SIDE,
          width: SIDE,
          height: SIDE,
        }),
      ),
    );
  }
}

/**
 * Write a cell, if it is to change: the layout of a hundred texts takes longer than their sums.
 * @param {{box: Element, text: Element, node: Text, shown: string}} cell
 * @param {string} said @param {string} fill @param {string} ink @param {string} name
 */
function put(cell, said, fill, ink, name) {
  const key = `${said} ${fill} ${ink} ${name}`;
  if (key === cell.shown) return;
  cell.shown = key;
  cell.box.setAttribute("fill", fill);
  cell.box.setAttribute("class", name);
  cell.text.setAttribute("fill", ink);
  if (cell.node.data !== said) cell.node.data = said;
}

/** A number in the room of a cell. @param {number} value @param {number} size */
function brief(value, size) {
  const most = Math.abs(value);
  if (size === 1) return short(value);
  if (Number.isInteger(value) && most < 1000) return String(value).replace("-", "−");
  if (size <= 5) return value.toFixed(most >= 100 ? 0 : most >= 10 ? 1 : most >= 1 ? 2 : 3).replace("-", "−");
  const digits = most >= 100 ? 0 : most >= 10 ? 1 : most >= 0.995 ? 2 : 3;
  return value
    .toFixed(digits)
    .replace("-", "−")
    .replace(/^(−?)0\./, "$1.");
}
