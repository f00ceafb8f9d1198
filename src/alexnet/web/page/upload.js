/**
 * Served: a picture of the reader's, dropped, pasted, chosen or taken with the camera.
 *
 * @typedef {import("main").App} App
 */

import { html, replace } from "element";
import { Scene, SceneError, unpack } from "scene";
import { shortPath } from "words";

const QUALITY = 0.92; // of a JPEG from the camera
const PACKED = 0x1f; // first byte of gzip

export class Upload {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.network = app.page.networks?.[0]?.id ?? "";
    /** @type {File | Blob | null} null: the server's own picture */
    this.picture = null;
    this.turn = 0;
    /** @type {SceneError | null} */
    this.problem = null;
    this.busy = false;
    addEventListener("dragover", (event) => this.drag(event, true));
    addEventListener("dragleave", (event) => event.relatedTarget || this.drag(event, false));
    addEventListener("drop", (event) => {
      this.drag(event, false);
      this.take(event.dataTransfer?.files);
    });
    addEventListener("paste", (event) => this.take(/** @type {ClipboardEvent} */ (event).clipboardData?.files));
  }

  /** Whether the picture is the server's own. */
  get isSample() {
    return this.picture === null;
  }

  /** @param {DragEvent} event @param {boolean} over */
  drag(event, over) {
    event.preventDefault();
    document.documentElement.classList.toggle("dropping", over);
  }

  /** @param {FileList | null | undefined} files */
  take(files) {
    if (files?.length) this.send(files[0]);
  }

  /** The bar above the views. */
  panel() {
    const { app } = this;
    if (this.problem?.text) this.problem = null; // it is in the language that was chosen then
    this.message = html("p", { class: "message", role: "status" });
    const chosen = html("input", { type: "file", accept: "image/*", class: "spoken", onchange: () => this.take(chosen.files) });
    const networks = app.page.networks ?? [];
    const select = html(
      "select",
      { "aria-label": app.t("upload.network"), onchange: () => ((this.network = select.value), this.send(this.picture)) },
      networks.map((/** @type {any} */ one) =>
        html(
          "option",
          { value: one.id, selected: one.id === this.network },
          one.source === "fresh" ? app.t("upload.fresh", { name: one.label }) : shortPath(one.label),
        ),
      ),
    );
    const panel = html(
      "section",
      { class: "upload", "aria-label": app.t("upload.title") },
      html("label", { class: "tool primary" }, chosen, app.t("upload.choose")),
      this.camera(),
      networks.length > 1 ? select : null,
      html("span", { class: "soft" }, app.t("upload.hint")),
      this.message,
    );
    this.tell();
    return panel;
  }

  /** A button for the camera: a live picture where the browser has one, else the system's camera. */
  camera() {
    const { app } = this;
    if (navigator.mediaDevices)
      return html("button", { type: "button", class: "tool", onclick: () => this.film() }, app.t("upload.camera"));
    const taken = html("input", {
      type: "file",
      accept: "image/*",
      capture: "environment",
      class: "spoken",
      onchange: () => this.take(taken.files),
    });
    return html("label", { class: "tool" }, taken, app.t("upload.camera"));
  }

  async film() {
    const { app } = this;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      return this.fail(new SceneError("upload.no_camera"));
    }
    const video = html("video", { autoplay: true, playsinline: true, muted: true });
    video.srcObject = stream;
    const dialog = html(
      "dialog",
      { class: "camera", "aria-label": app.t("upload.camera") },
      video,
      html(
        "p",
        {},
        html("button", { type: "button", class: "tool primary", onclick: () => shoot() }, app.t("upload.shoot")),
        " ",
        html("button", { type: "button", class: "tool", onclick: () => dialog.close() }, app.t("upload.cancel")),
      ),
    );
    const shoot = () => {
      const canvas = html("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d")?.drawImage(video, 0, 0);
      canvas.toBlob((blob) => blob && this.send(blob), "image/jpeg", QUALITY);
      dialog.close();
    };
    dialog.addEventListener("close", () => {
      stream.getTracks().forEach((track) => track.stop());
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  /** The server's own picture. */
  sample() {
    return this.send(null);
  }

  /**
   * Have a scene made. Only the answer to the latest request is shown.
   * @param {Blob | null} picture
   */
  async send(picture) {
    const turn = ++this.turn;
    this.busy = true;
    this.problem = null;
    this.tell();
    try {
      const scene = await this.request(picture);
      if (turn !== this.turn) return;
      this.picture = picture;
      this.busy = false;
      this.app.open(scene);
    } catch (problem) {
      if (turn === this.turn) this.fail(problem);
    }
  }

  /** @param {Blob | null} picture */
  async request(picture) {
    const most = this.app.page.limits?.bytes ?? Infinity;
    if (picture && picture.size > most)
      throw new SceneError("error.server", this.app.t("error_bytes", { limit: Math.floor(most / 1e6) }));
    const query = new URLSearchParams({ network: this.network, lang: this.app.words.language });
    if (!picture) query.set("sample", "1");
    else if (picture instanceof File && picture.name) query.set("name", picture.name);
    /** @type {Record<string, string>} */
    const headers = this.app.page.token ? { "X-AlexNet-Token": this.app.page.token } : {};
    const answer = await fetch(`/scene?${query}`, { method: "POST", body: picture, headers }).catch(() => null);
    if (!answer) throw new SceneError("error.server");
    if (!answer.ok) throw new SceneError("error.server", (await answer.json().catch(() => ({}))).error?.text);
    const bytes = await answer.arrayBuffer();
    return new Uint8Array(bytes)[0] === PACKED ? unpack(new Uint8Array(bytes)) : new Scene(bytes);
  }

  /** @param {unknown} problem */
  fail(problem) {
    this.busy = false;
    this.problem = problem instanceof SceneError ? problem : new SceneError("error.scene");
    this.tell();
  }

  /** The line about what is going on. */
  tell() {
    const { app, message, problem, busy } = this;
    if (!message) return;
    message.classList.toggle("problem", Boolean(problem));
    replace(message, problem ? (problem.text ?? app.t(problem.key)) : busy ? app.t("upload.busy") : null);
  }
}
