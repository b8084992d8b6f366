// Writing: the composer under a thread, and the form for a new conversation.

import { newKey } from "./api.js";
import { Attachments } from "./attach.js";
import { byId, setText } from "./dom.js";
import { counted } from "./segments.js";

const TALLEST = 180; // pixels

/** The composer. Each conversation keeps its own draft until it is sent. */
export class Composer {
  /** `write(conversationId, text, media)` sends; `upload` as `Attachments` want it. */
  constructor(write, upload) {
    this.write = write;
    this.files = new Attachments(upload, () => this.conversation && this.allow());
    this.drafts = new Map();
    this.conversation = null;
    this.field = byId("composer-body");
    this.button = byId("composer-send");
  }

  prepare() {
    this.files.prepare();
    this.field.addEventListener("paste", (event) => {
      const pasted = [...(event.clipboardData?.files ?? [])];
      if (!pasted.length) return;
      event.preventDefault();
      this.files.add(pasted);
    });
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => {
      // While an input method composes a character, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send();
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
  }

  open(conversation) {
    this.conversation = conversation;
    this.field.value = this.drafts.get(conversation.id) ?? "";
    this.files.open(conversation);
    this.changed();
  }

  /** Puts back what was not accepted, before what was written since. */
  restore(text, media) {
    this.field.value = this.field.value ? `${text}\n${this.field.value}` : text;
    this.files.restore(media);
    this.changed();
    this.field.focus();
  }

  forget() {
    this.drafts.clear();
    this.conversation = null;
    this.files.forget();
    this.field.value = "";
  }

  changed() {
    const { value, style } = this.field;
    if (value) this.drafts.set(this.conversation.id, value);
    else this.drafts.delete(this.conversation.id);
    this.allow();
    setText(byId("composer-count"), value ? counted(value, this.conversation.channel) : "");
    style.height = "auto";
    style.height = `${Math.min(this.field.scrollHeight + 2, TALLEST)}px`;
  }

  /** Whether there is something to send, and all of it is there. */
  get sendable() {
    return Boolean(this.conversation) && this.files.ready && Boolean(this.field.value.trim() || this.files.files.length);
  }

  allow() {
    this.button.disabled = !this.sendable;
  }

  send() {
    if (!this.sendable) return;
    const text = this.field.value;
    this.write(this.conversation.id, text.trim() ? text : "", this.files.take());
    this.field.value = "";
    this.changed();
  }
}

const FIELDS = ["channel", "to", "subject", "body"];
const EXAMPLES = { sms: "+1 202 555 0143", whatsapp: "+1 202 555 0143", email: "ada@example.com" };

/** The form for a new message. */
export class NewMessage {
  /** `accepted` gets the message that the gateway took. */
  constructor(accepted) {
    this.accepted = accepted;
    this.api = null;
    this.dialog = byId("new-message");
    this.form = byId("new-form");
    this.sent = null; // the last request and its Idempotency-Key
  }

  prepare() {
    byId("new-close").addEventListener("click", () => this.dialog.close());
    byId("new-cancel").addEventListener("click", () => this.dialog.close());
    this.form.addEventListener("input", () => this.counts());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
  }

  open() {
    this.problems([]);
    this.counts();
    this.dialog.showModal();
    byId("new-to").focus();
  }

  values() {
    const { channel, to, subject, body } = this.form.elements;
    const more = channel.value === "email" ? { subject: subject.value } : {};
    return { channel: channel.value, to: to.value.trim(), ...more, body: body.value };
  }

  counts() {
    const { body, channel } = this.values();
    const mail = channel === "email";
    setText(byId("new-count"), counted(body, channel));
    byId("new-subject-line").hidden = !mail;
    byId("new-to").placeholder = EXAMPLES[channel];
    byId("new-to").inputMode = mail ? "email" : "tel";
  }

  async submit() {
    const values = this.values();
    const missing = Object.keys(values).filter((name) => !values[name].trim());
    if (missing.length) return this.problems(missing.map((field) => ({ field, message: "is needed" })));
    const button = byId("new-submit");
    button.disabled = true;
    this.problems([]);
    try {
      const { api } = this;
      const message = await api.post("/api/messages", values, this.keyFor(values));
      if (api !== this.api) return;
      this.sent = null;
      this.form.reset();
      this.dialog.close();
      this.accepted(message);
    } catch (error) {
      this.failed(error);
    } finally {
      button.disabled = false;
    }
  }

  /** The same request keeps its key until it is accepted; another one gets another. */
  keyFor(values) {
    const text = JSON.stringify(values);
    if (this.sent?.text !== text) this.sent = { text, key: newKey() };
    return this.sent.key;
  }

  failed(error) {
    if (error.errors.length) return this.problems(error.errors);
    const again = error.repeatable ? " Sending it again unchanged cannot send it twice." : "";
    this.problems([{ field: "", message: `${error.message}${again}` }]);
  }

  /** Shows each problem beside its field, and the rest at the end. */
  problems(list) {
    const texts = { channel: [], to: [], subject: [], body: [], rest: [] };
    for (const { field, message } of list) {
      if (FIELDS.includes(field)) texts[field].push(message);
      else texts.rest.push(field ? `${field}: ${message}` : message);
    }
    for (const name of FIELDS) {
      setText(byId(`new-${name}-problem`), texts[name].map(sentence).join(" "));
      byId(`new-${name}`)?.setAttribute("aria-invalid", String(texts[name].length > 0));
    }
    setText(byId("new-problem"), texts.rest.join(" "));
    const first = FIELDS.find((name) => texts[name].length);
    if (first) (byId(`new-${first}`) ?? this.form.elements.channel[0]).focus();
  }
}

/** The gateway's problems go on after the field's name: "to" + "must be …". */
function sentence(text) {
  const words = `This ${text}`;
  return /^(must|is|has|needs|cannot|was)\b/.test(text) ? words : text;
}
