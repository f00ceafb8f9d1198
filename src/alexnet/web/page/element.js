/**
 * Elements by one short call. Text is always a text node: names of classes and files are data.
 *
 * @typedef {string | number | Node | null | undefined | false} Child
 * @typedef {Child | Child[]} Children
 */

const SVG = "http://www.w3.org/2000/svg";
const MATH = "http://www.w3.org/1998/Math/MathML";

/**
 * @param {Element} node
 * @param {Record<string, any>} attributes `on…` are listeners, `style` an object of CSS properties,
 *   null and false leave an attribute out.
 * @param {Children[]} children
 */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.entries(value).forEach(([key, one]) => styled(node).setProperty(key, String(one)));
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

/** @param {Element} node @returns {CSSStyleDeclaration} */
function styled(node) {
  return /** @type {HTMLElement} */ (node).style;
}

/** @param {Element} node @param {Children[]} children */
function append(node, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/**
 * An HTML element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, any>} [attributes] @param {Children[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function html(tag, attributes = {}, ...children) {
  return /** @type {HTMLElementTagNameMap[Tag]} */ (fill(document.createElement(tag), attributes, children));
}

/**
 * An SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, any>} [attributes] @param {Children[]} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, attributes = {}, ...children) {
  return /** @type {SVGElementTagNameMap[Tag]} */ (fill(document.createElementNS(SVG, tag), attributes, children));
}

/**
 * A MathML element.
 * @param {string} tag @param {Record<string, any>} [attributes] @param {Children[]} children
 */
export function math(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(MATH, tag), attributes, children);
}

/**
 * The head of a table; an empty name gives an empty cell.
 * @param {string[]} names
 */
export function heads(names) {
  const cells = names.map((one) => (one ? html("th", { scope: "col" }, one) : html("td", {})));
  return html("thead", {}, html("tr", {}, cells));
}

/**
 * What scrolls sideways where it is wider than the page.
 * @param {string} label @param {Children[]} children
 */
export function scrolling(label, ...children) {
  return html("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, ...children);
}

/**
 * Replace what an element holds.
 * @param {Element} node @param {Children[]} children
 */
export function replace(node, ...children) {
  node.replaceChildren();
  append(node, children);
}
