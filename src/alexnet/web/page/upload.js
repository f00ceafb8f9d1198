/**
 * Served: a picture from the reader, by drop, paste, choice or camera.
 */

import { html } from "element";
import { Scene, SceneError } from "scene";

export class Upload {
  /** @param {import("main").App} app */
  constructor(app) {
    this.app = app;
    this.network = app.page.networks?.[0]?.id ?? "";
    this.message = html("p", { class: "message", role: "status" });
  }

  panel() {
    return html("section", { class: "upload" }, this.message);
  }

  /** The server's own picture. */
  async sample() {
    await this.send(null);
  }

  /** @param {Blob | null} picture */
  async send(picture) {
    const query = `network=${encodeURIComponent(this.network)}${picture ? "" : "&sample=1"}`;
    const headers = this.app.page.token ? { "X-AlexNet-Token": this.app.page.token } : {};
    const answer = await fetch(`/scene?${query}`, { method: "POST", body: picture, headers: /** @type {any} */ (headers) });
    if (!answer.ok) throw new SceneError("error.server", (await answer.json()).error?.text);
    this.app.open(new Scene(await answer.arrayBuffer()));
  }

  /** @param {string} sentence @param {boolean} bad */
  say(sentence, bad) {
    this.message.textContent = sentence;
    this.message.classList.toggle("problem", bad);
  }
}
