/**
 * The tour: chapters above the views.
 *
 * @typedef {import("main").App} App
 * @typedef {import("main").State} State
 */

/**
 * The state that a chapter shows, `step` kept.
 * @param {App} app @param {State} state with view "tour"
 * @returns {State}
 */
export function resolve(app, state) {
  return { view: "network", step: state.step ?? 0 };
}

/** The panel above the view, shown while the state has a step. */
export class TourPanel {
  /** @param {App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.root = root;
  }

  /** @param {State} state */
  update(state) {}
}
