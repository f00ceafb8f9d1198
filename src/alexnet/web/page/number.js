/** A number. */

export class NumberView {
  /** @param {import("main").App} app @param {HTMLElement} root */
  constructor(app, root) {
    this.app = app;
    this.root = root;
  }

  /** @param {import("main").State} state */
  update(state) {
    this.root.textContent = `${state.layer}`;
  }
}
