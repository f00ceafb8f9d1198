/** A unit. */

export class UnitView {
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
