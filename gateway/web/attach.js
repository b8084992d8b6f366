// Files beside a text that is being written: uploaded as soon as they are chosen, shown as chips,
// and sent with the text. Each conversation keeps its own until it is sent.

import { byId, el, icon } from "./dom.js";

const MOST = 10; // files of one message
const ONE = new Set(["whatsapp"]); // channels whose messages hold one file

export class Attachments {
  /** `upload(file, channel, signal)` gives the file as the gateway keeps it; `changed` is told. */
  constructor(upload, changed) {
    this.upload = upload;
    this.changed = changed;
    this.kept = new Map(); // by conversation
    this.conversation = null;
    this.input = byId("composer-files");
    this.button = byId("composer-attach");
    this.tray = byId("composer-tray");
  }

  prepare() {
    this.button.addEventListener("click", () => this.input.click());
    this.input.addEventListener("change", () => {
      this.add([...this.input.files]);
      this.input.value = "";
    });
  }

  open(conversation) {
    this.conversation = conversation;
    this.input.multiple = !ONE.has(conversation.channel);
    this.draw();
  }

  forget() {
    for (const files of this.kept.values()) for (const file of files) file.end.abort();
    this.kept.clear();
    this.conversation = null;
    this.tray.replaceChildren();
  }

  get files() {
    return this.kept.get(this.conversation?.id) ?? [];
  }

  /** Whether every file that was chosen is there; one with a problem has to be removed first. */
  get ready() {
    return this.files.every((file) => file.media);
  }

  get room() {
    return ONE.has(this.conversation?.channel) ? 1 : MOST;
  }

  add(chosen) {
    if (!this.conversation) return;
    const { id, channel } = this.conversation;
    const added = chosen.slice(0, Math.max(0, this.room - this.files.length)).map((file) => ({ name: file.name, media: null, problem: "", end: new AbortController(), file }));
    this.kept.set(id, [...this.files, ...added]);
    this.draw();
    for (const one of added) this.bring(one, channel);
  }

  async bring(one, channel) {
    try {
      const { url, content_type, filename } = await this.upload(one.file, channel, one.end.signal);
      one.media = { url, content_type, filename };
    } catch (error) {
      one.problem = error.errors?.[0] ? `This ${error.errors[0].field} ${error.errors[0].message}` : error.message;
    }
    one.file = null;
    this.draw();
  }

  remove(one) {
    one.end.abort();
    this.kept.set(this.conversation.id, this.files.filter((other) => other !== one));
    this.draw();
    this.button.focus();
  }

  /** What is to be sent, which is then here no more. */
  take() {
    const media = this.files.map((file) => file.media);
    this.kept.delete(this.conversation.id);
    this.draw();
    return media;
  }

  /** Puts files back that were not accepted. */
  restore(media) {
    const files = media.map((file) => ({ name: file.filename ?? file.url, media: file, problem: "", end: new AbortController() }));
    this.kept.set(this.conversation.id, [...files, ...this.files].slice(0, this.room));
    this.draw();
  }

  draw() {
    this.tray.replaceChildren(...this.files.map((file) => this.chip(file)));
    this.tray.hidden = !this.files.length;
    this.button.disabled = this.files.length >= this.room;
    this.changed();
  }

  chip(file) {
    const state = file.problem || (file.media ? "" : "Uploading…");
    const tone = file.problem ? "problem" : "muted";
    const remove = () => this.remove(file);
    return el(
      "li",
      { class: "file" },
      icon("file"),
      el("span", { class: "name" }, file.name || "A file"),
      state ? el("span", { class: `small ${tone}` }, state) : null,
      el("button", { type: "button", class: "icon-button chip-button", "aria-label": `Remove ${file.name}`, on: { click: remove } }, icon("cross")),
    );
  }
}
