// Templates: what may be said to a person whose window is closed, as the vendors list it.

import { byId, el, setText } from "./dom.js";

const MOST = 100;
const GAP = /\{\{\s*([\w.]+)\s*\}\}/g;

/** The form in which a template is chosen and filled in. */
export class Templates {
  /** `write(conversationId, template)` sends; a template's `body` is only what it reads like. */
  constructor(write) {
    this.write = write;
    this.api = null;
    this.items = [];
    this.dialog = byId("template");
    this.name = byId("template-name");
  }

  /** `current` gives the conversation that is open. */
  prepare(current) {
    byId("templates-open").addEventListener("click", () => current() && this.open(current()));
    byId("template-close").addEventListener("click", () => this.dialog.close());
    byId("template-cancel").addEventListener("click", () => this.dialog.close());
    this.name.addEventListener("change", () => this.choose());
    byId("template-values").addEventListener("input", () => this.preview());
    byId("template-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
  }

  async open(conversation) {
    this.conversation = conversation;
    this.show([], "Loading…");
    this.dialog.showModal();
    const { api } = this;
    try {
      const channel = encodeURIComponent(conversation.channel);
      const page = await api.get(`/api/templates?channel=${channel}&status=approved&limit=${MOST}`);
      if (api !== this.api || conversation !== this.conversation) return;
      this.show(page.items, page.items.length ? "" : "The provider lists no approved template. Make one there, and look again.");
      if (page.items.length) this.name.focus();
    } catch (error) {
      if (api === this.api && conversation === this.conversation) this.show([], error.message);
    }
  }

  show(items, note) {
    this.items = items;
    setText(byId("template-note"), note);
    byId("template-note").hidden = !note;
    setText(byId("template-problem"), "");
    byId("template-choice").hidden = !items.length;
    byId("template-submit").disabled = !items.length;
    this.name.replaceChildren(...items.map((item, at) => el("option", { value: at }, titleOf(item))));
    this.choose();
  }

  get chosen() {
    return this.items[Number(this.name.value)] ?? null;
  }

  choose() {
    const { chosen } = this;
    const fields = !chosen ? [] : unknown(chosen) ? [lines()] : chosen.variables.map(field);
    byId("template-values").replaceChildren(...fields.flat());
    this.preview();
  }

  /** What was filled in: by name, or in order where the provider does not tell the names. */
  get values() {
    const fields = [...byId("template-values").querySelectorAll("input, textarea")];
    if (this.chosen && unknown(this.chosen)) return fields[0].value.split("\n").map((line) => line.trim()).filter(Boolean);
    return Object.fromEntries(fields.map((input) => [input.name, input.value.trim()]));
  }

  preview() {
    const { chosen } = this;
    const values = chosen ? this.values : {};
    const said = chosen ? chosen.body.replace(GAP, (gap, name) => values[name] || gap) : "";
    setText(byId("template-body"), said);
    byId("template-body").hidden = !said;
  }

  submit() {
    const { chosen, values } = this;
    if (!chosen) return;
    const missing = Object.entries(values).filter(([, value]) => !value).map(([name]) => name);
    if (missing.length) {
      setText(byId("template-problem"), `Fill in ${missing.join(", ")}.`);
      return byId("template-values").querySelector(`[name="${CSS.escape(missing[0])}"]`).focus();
    }
    this.dialog.close();
    const { name, language } = chosen;
    this.write(this.conversation.id, { name, variables: values, ...(language ? { language } : {}) });
  }
}

/** Whether the provider tells neither the words nor the gaps of a template. */
const unknown = (template) => !template.body && !template.variables.length;

const titleOf = ({ title, name, language }) => `${title || name}${language ? ` (${language})` : ""}`;

const field = (name) => [
  el("label", { for: `template-value-${name}` }, `Value of ${name}`),
  el("input", { id: `template-value-${name}`, name, autocomplete: "off", maxlength: 1000 }),
];

const lines = () => [
  el("label", { for: "template-lines" }, "Values, one on each line, in their order"),
  el("textarea", { id: "template-lines", name: "lines", rows: 3, maxlength: 5000 }),
  el("p", { class: "muted small" }, "The provider does not say which values this template needs."),
];
