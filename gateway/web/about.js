// What we keep about a conversation for ourselves: whose it is, labels, notes. Never sent.

import { byId, el, setText } from "./dom.js";
import { moment } from "./words.js";

const NOTES = 50;

export class About {
  /** `details` lends its pane; `changed` is told of the conversation after each change. */
  constructor(api, details, changed) {
    this.api = api;
    this.details = details;
    this.told = changed;
    this.conversation = null;
    this.notes = [];
    this.cursor = null;
  }

  get id() {
    return this.details.showing === this ? this.conversation?.id ?? null : null;
  }

  open(conversation, opener) {
    this.conversation = conversation;
    this.notes = [];
    this.cursor = null;
    this.details.lend(this, "Conversation", opener);
    this.draw();
    return this.load();
  }

  /** The feed told of the conversation. What is being written stays as it is. */
  changed(conversation) {
    if (conversation.id !== this.id) return;
    this.conversation = conversation;
    this.showState();
    if (conversation.note_id) this.load();
  }

  async load(cursor = null) {
    const { id } = this;
    const more = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    await this.attempt(async () => {
      const page = await this.api.get(`/api/conversations/${encodeURIComponent(id)}/notes?limit=${NOTES}${more}`);
      if (id !== this.id) return;
      this.notes = cursor ? [...this.notes, ...page.items] : page.items;
      this.cursor = page.next_cursor;
      this.showNotes();
    });
  }

  /** Runs a request; what goes wrong stands in the pane. */
  async attempt(request) {
    const { id, problem } = this;
    try {
      await request();
      if (id === this.id) setText(problem, "");
      return true;
    } catch (error) {
      if (id === this.id) setText(problem, error.message);
      return false;
    }
  }

  /** Takes a changed conversation as the gateway answered it. */
  async change(request) {
    const { id } = this;
    return this.attempt(async () => {
      const conversation = await request(encodeURIComponent(id));
      this.told(conversation);
      this.changed(conversation);
    });
  }

  draw() {
    this.problem = el("p", { class: "problem", role: "alert" });
    this.assignee = el("input", { id: "about-assignee", maxlength: 100, autocomplete: "off", spellcheck: "false", placeholder: "Nobody" });
    this.label = el("input", { id: "about-label", maxlength: 50, autocomplete: "off", placeholder: "Add a label" });
    this.body = el("textarea", { id: "about-note", rows: 3, maxlength: 10000, placeholder: "Write a note for your team" });
    this.labels = el("ul", { class: "labels" });
    this.list = el("ol", { class: "notes" });
    this.details.body.replaceChildren(
      this.problem,
      this.form("about-assignee", "Assigned to", this.assignee, "Assign", () => this.assign()),
      this.form("about-label", "Labels", this.label, "Add", () => this.addLabel(), this.labels),
      this.form("about-note", "Notes", this.body, "Add note", () => this.addNote()),
      this.list,
    );
    this.assignee.value = this.conversation.assignee ?? "";
    this.showState();
    this.showNotes();
  }

  form(name, title, field, word, submit, ...before) {
    const send = (event) => {
      event.preventDefault();
      submit();
    };
    return el(
      "form",
      { class: "about", on: { submit: send } },
      el("h3", {}, el("label", { for: name }, title)),
      ...before,
      el("div", { class: "about-line" }, field, el("button", { type: "submit", class: "quiet" }, word)),
    );
  }

  showState() {
    if (document.activeElement !== this.assignee) this.assignee.value = this.conversation.assignee ?? "";
    const labels = this.conversation.labels ?? [];
    this.labels.replaceChildren(...labels.map((label) => this.chip(label)));
  }

  chip(label) {
    const remove = () => this.change((id) => this.api.remove(`/api/conversations/${id}/labels/${encodeURIComponent(label)}`));
    const button = el("button", { type: "button", class: "chip-button", "aria-label": `Remove the label ${label}`, on: { click: remove } }, "×");
    return el("li", { class: "chip" }, label, button);
  }

  assign() {
    const assignee = this.assignee.value.trim() || null;
    this.assignee.blur();
    return this.change((id) => this.api.post(`/api/conversations/${id}/assign`, { assignee }));
  }

  async addLabel() {
    const label = this.label.value.trim();
    if (!label) return;
    const done = await this.change((id) => this.api.post(`/api/conversations/${id}/labels`, { label }));
    if (done) this.label.value = "";
  }

  async addNote() {
    const body = this.body.value.trim();
    const id = encodeURIComponent(this.id);
    if (!body) return;
    if (await this.attempt(() => this.api.post(`/api/conversations/${id}/notes`, { body }))) {
      this.body.value = "";
      await this.load();
    }
  }

  showNotes() {
    const more = this.cursor
      ? [el("li", {}, el("button", { type: "button", class: "quiet wide", on: { click: () => this.load(this.cursor) } }, "Older notes"))]
      : [];
    this.list.replaceChildren(...this.notes.map((note) => this.note(note)), ...more);
  }

  note(note) {
    const remove = async () => {
      const id = encodeURIComponent(this.id);
      await this.attempt(() => this.api.remove(`/api/conversations/${id}/notes/${encodeURIComponent(note.id)}`));
      await this.load();
    };
    const when = [note.author, moment(note.created_at)].filter(Boolean).join(" · ");
    return el(
      "li",
      {},
      el("p", { class: "body" }, note.body),
      el("p", { class: "muted small" }, el("span", {}, when), el("button", { type: "button", class: "link", on: { click: remove } }, "Remove")),
    );
  }
}
