/**
 * Formulas in MathML.
 *
 * @typedef {import("element").Children} Children
 * @typedef {string | number | Element} Token a letter, a number, an operator or a part
 */

import { html, math } from "element";

/** A token as MathML: letters are names, digits numbers, the rest operators. @param {Token} token */
function part(token) {
  if (token instanceof Element) return token;
  const text = typeof token === "number" ? String(token).replace("-", "−") : token;
  if (/^[−\d.,]*\d[\d.,]*(e[−\d]+)?$/.test(text)) return math("mn", {}, text);
  if (/^[\p{L}][\p{L}\d]*$/u.test(text)) return math(text.length > 1 ? "mtext" : "mi", {}, text);
  return math("mo", {}, text);
}

/** @param {Token[]} tokens */
export function row(...tokens) {
  return math("mrow", {}, tokens.map(part));
}

/** @param {Token} top @param {Token} bottom */
export function fraction(top, bottom) {
  return math("mfrac", {}, row(top), row(bottom));
}

/** @param {Token} base @param {Token} exponent */
export function power(base, exponent) {
  return math("msup", {}, row(base), row(exponent));
}

/** @param {Token} base @param {Token} index */
export function index(base, index) {
  return math("msub", {}, row(base), row(index));
}

/** @param {Token} under @param {Token} [over] */
export function sum(under, over) {
  if (over === undefined) return math("munder", {}, math("mo", {}, "∑"), row(under));
  return math("munderover", {}, math("mo", {}, "∑"), row(under), row(over));
}

/**
 * The box of a formula. One that is wider than the page can be scrolled, by keys too.
 * @param {string} label @param {Record<string, string>} attributes @param {Children[]} children
 */
export function formulaBox(label, attributes, ...children) {
  const box = html("div", { class: "formula", ...attributes }, ...children);
  requestAnimationFrame(() => {
    if (box.scrollWidth <= box.clientWidth) return;
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", label);
  });
  return box;
}

/** A formula on a line of its own. @param {Token[]} tokens */
export function formula(...tokens) {
  return math("math", { display: "block" }, tokens.map(part));
}

/**
 * N = (W − F + 2P) / S + 1 with its numbers, as the study notes write it.
 * @param {{side: number, size: number, padding: [number, number] | null, stride: number}} numbers
 */
export function sizeFormula({ side, size, padding, stride }) {
  const [before, after] = padding ?? [0, 0];
  const exact = (side - size + before + after) / stride + 1;
  const count = Math.floor(exact);
  const padded = padding ? [row("(", before, "+", after, ")")] : [0];
  const share = fraction(row(side, "−", size, "+", ...padded), stride);
  const rounded = exact === count ? [count] : [Number(exact.toFixed(2)), "→", count];
  return formula("N", "=", fraction(row("W", "−", "F", "+", row(2, "P")), "S"), "+", 1, "=", share, "+", 1, "=", ...rounded);
}
