/**
 * Kernels as pictures: the first layer's in colour, the others' slice by slice.
 *
 * @typedef {import("scene").Scene} Scene
 * @typedef {import("scene").Layer} Layer
 */

import { draw, grid } from "maps";

/**
 * One kernel of the first layer in colour: grey is zero, every kernel stretched to its own largest
 * weight.
 * @param {Scene} scene @param {Layer} layer @param {number} channel
 */
export function coloured(scene, layer, channel) {
  const weight = scene.array(`${layer.name}.weight`);
  if (!weight) return null;
  const [, depth, side] = weight.shape;
  const area = side * side;
  const kernel = weight.data.subarray(channel * depth * area, (channel + 1) * depth * area);
  let most = 0;
  for (const value of kernel) most = Math.max(most, Math.abs(value));
  const order = scene.preprocessing.order === "BGR" ? [2, 1, 0] : [0, 1, 2];
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(side, side);
  for (let at = 0; at < area; at++) {
    for (let colour = 0; colour < 3; colour++)
      image.data[at * 4 + colour] = 128 + (127 * kernel[order[colour] * area + at]) / (most || 1);
    image.data[at * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * All slices of one kernel side by side: one for each map that it reads.
 * @param {Scene} scene @param {Layer} layer @param {number} channel @param {number} hue
 */
export function slices(scene, layer, channel, hue) {
  const weight = scene.array(`${layer.name}.weight`);
  if (!weight) return null;
  const [, depth, side] = weight.shape;
  const area = side * side;
  const kernel = weight.data.subarray(channel * depth * area, (channel + 1) * depth * area);
  const { columns, rows } = grid(depth);
  const [width, height] = [columns * (side + 1) - 1, rows * (side + 1) - 1];
  const values = new Float32Array(width * height);
  let most = 0;
  for (let k = 0; k < depth; k++) {
    const corner = Math.floor(k / columns) * (side + 1) * width + (k % columns) * (side + 1);
    for (let at = 0; at < area; at++) {
      const value = kernel[k * area + at];
      values[corner + Math.floor(at / side) * width + (at % side)] = value;
      most = Math.max(most, Math.abs(value));
    }
  }
  const canvas = document.createElement("canvas");
  draw(canvas, values, width, height, hue, most || 1);
  return canvas;
}
