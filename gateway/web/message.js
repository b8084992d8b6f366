// One message as an item of the thread. What was said is built once; its state whenever it moves.

import { el, icon } from "./dom.js";
import { clock, moment, statusOf, statusText, summary } from "./words.js";

const NOTES = {
  unsupported: "The provider cannot pass this kind of message on.",
  unknown: "A kind of message that the gateway does not know.",
  system: "A note of the network.",
  edit: "The person changed an earlier message.",
  deletion: "The person deleted an earlier message.",
  order: "An order; its contents are in the details.",
};

export class MessageItem {
  /** `shared`: files, find(providerId), details(id), retry, edit and discard of a send. */
  constructor(shared) {
    this.shared = shared;
    this.said = el("div", { class: "said" });
    this.meta = el("div", { class: "meta" });
    this.note = el("p", { class: "state-note small" });
    this.bubble = el("div", { class: "bubble" }, this.said, this.meta);
    this.node = el("li", { class: "message" }, this.bubble, this.note);
    this.bubble.addEventListener("click", (event) => this.clicked(event));
    this.end = new AbortController();
    this.built = "";
    this.message = null;
  }

  show(message) {
    if (message === this.message) return;
    this.message = message;
    this.node.dataset.direction = message.direction;
    this.node.dataset.tone = message.send ? sendTone(message.send) : statusOf(message.status).tone;
    const key = signature(message);
    if (key !== this.built) this.rebuild(key, message);
    this.meta.replaceChildren(...(message.send ? sendMeta(message) : this.stateOf(message)));
    this.note.replaceChildren(...(message.send ? this.sendNote(message.send) : noteOf(message)));
  }

  rebuild(key, message) {
    this.dispose();
    this.end = new AbortController();
    this.built = key;
    this.said.replaceChildren(...saidOf(message, this.shared, this.end.signal));
  }

  /** Frees pictures and ends what is being fetched. */
  dispose() {
    this.end.abort();
    this.built = "";
  }

  clicked(event) {
    const selecting = String(getSelection() ?? "") !== "";
    if (this.message.send || selecting || event.target.closest("a, button, audio, video")) return;
    this.shared.details(this.message.id, this.opener);
  }

  stateOf(message) {
    const state = statusOf(message.status);
    const inbound = message.direction === "inbound";
    const label = `${inbound ? "Received" : state.word} ${moment(message.created_at)}. Details`;
    const open = () => this.shared.details(message.id, this.opener);
    const parts = [
      message.segments > 1 ? el("span", {}, `${message.segments} segments`) : null,
      el("time", { datetime: message.created_at }, clock(message.created_at)),
      inbound ? null : el("span", { class: "status" }, state.icon ? icon(state.icon) : null, state.word),
    ];
    this.opener = el("button", { type: "button", class: "meta-button", "aria-label": label, title: statusText(message), on: { click: open } }, ...parts);
    return [this.opener];
  }

  sendNote(send) {
    if (send.state !== "failed" && send.state !== "refused") return [];
    const { retry, edit, discard, template } = this.shared;
    const act = (text, run) => el("button", { type: "button", class: "link", on: { click: () => run(send) } }, text);
    const parts = [
      el("span", {}, `${send.problem} `),
      send.windowClosed ? act("Send a template", template) : null,
      send.state === "failed" ? act("Try again", retry) : send.template ? null : act("Edit", edit),
      act("Discard", discard),
    ];
    return parts.filter(Boolean);
  }
}

/** What a bubble's contents depend on; the state is not among it. */
function signature({ id, type, subject, body, content, media, reply_to }) {
  return JSON.stringify([id, type, subject, body, content, media, reply_to]);
}

const sendTone = (send) => (send.state === "failed" ? "warn" : send.state === "refused" ? "bad" : "");

function sendMeta(message) {
  const { state } = message.send;
  const words = { sending: "Sending", waiting: "No answer yet, trying again", failed: "Not confirmed", refused: "Not accepted" };
  const signs = { sending: "clock", waiting: "clock", failed: "warning", refused: "cross" };
  return [el("span", { class: "status" }, icon(signs[state]), words[state])];
}

function noteOf(message) {
  if (message.direction === "inbound") return [];
  const { tone } = statusOf(message.status);
  if (!tone || tone === "seen") return [];
  if (!message.error) return [statusText(message)];
  const { code, message: why, provider } = message.error;
  return [`${provider ? `${provider}: ` : ""}${code}${why ? `. ${why}` : ""}`];
}

function saidOf(message, shared, signal) {
  const parts = [quoteOf(message, shared), referralOf(message.content)];
  if (message.subject) parts.push(el("p", { class: "subject" }, message.subject));
  for (const file of message.media ?? []) parts.push(shared.files.show(file, message.type, signal));
  parts.push(...contentOf(message));
  return parts.filter(Boolean);
}

function quoteOf(message, shared) {
  if (!message.reply_to || message.type === "reaction") return null;
  const answered = shared.find(message.reply_to);
  return el("blockquote", {}, answered ? summary(answered) : "An earlier message");
}

function referralOf(content) {
  const referral = content?.referral;
  if (!referral) return null;
  return el("p", { class: "aside" }, `Came from an advertisement${referral.headline ? `: ${referral.headline}` : ""}`);
}

function contentOf(message) {
  const { type, body } = message;
  const content = message.content ?? {};
  if (type === "reaction") return [reaction(message, content)];
  const parts = [];
  if ("latitude" in content && "longitude" in content) parts.push(place(content));
  if (Array.isArray(content.contacts)) parts.push(...content.contacts.slice(0, 20).map(contact));
  if (type === "button" || type === "interactive") parts.push(choice(body, content));
  else if (body) parts.push(el("p", { class: "body", dir: "auto" }, body));
  if (message.direction === "inbound" && type === "email") parts.push(...mailNotes(message.email ?? {}, content));
  if (content.decoded) parts.push(el("p", { class: "aside" }, "Reads: ", content.decoded));
  if (content.opt_out) parts.push(el("p", { class: "aside" }, optOut(content.opt_out)));
  if (message.template) parts.push(el("p", { class: "aside" }, `Template ${message.template.name}`));
  if (NOTES[type]) parts.push(el("p", { class: "aside" }, NOTES[type]));
  return parts.length ? parts : [el("p", { class: "aside" }, message.media?.length ? "" : "(nothing written)")];
}

function mailNotes({ dmarc }, content) {
  const notes = [
    dmarc === "pass" ? "The sender is who they say (DMARC: pass)" : null,
    dmarc && dmarc !== "pass" ? `Nobody proves who sent this (DMARC: ${dmarc})` : null,
    content.automatic ? "Written by a machine" : null,
    content.kept_at ? "The rest of it is kept elsewhere" : null,
    content.cut || content.html_left_out ? "The whole text is in a file" : null,
  ];
  return notes.filter(Boolean).map((note) => el("p", { class: "aside" }, note));
}

function reaction(message, content) {
  if (content.removed || !message.body) return el("p", { class: "aside" }, "Took a reaction back");
  return el("p", { class: "reaction" }, el("span", { class: "emoji" }, message.body), el("span", { class: "muted small" }, "reacted to a message"));
}

function place(content) {
  const { latitude, longitude, name, address } = content;
  const point = `${latitude}, ${longitude}`;
  const numbers = Number.isFinite(latitude) && Number.isFinite(longitude);
  return el(
    "div",
    { class: "block" },
    icon("pin"),
    el("div", {},
      name ? el("strong", {}, name) : null,
      address ? el("span", {}, address) : null,
      // A geo: address opens the device's own map; no map service learns of it from this page.
      numbers ? el("a", { href: `geo:${latitude},${longitude}`, class: "small" }, point) : null),
  );
}

function contact(value) {
  const person = value && typeof value === "object" ? value : {};
  const name = person.name?.formatted_name ?? (typeof person.name === "string" ? person.name : "") ?? "";
  const phones = (Array.isArray(person.phones) ? person.phones : []).map((p) => String(p?.phone ?? p)).join(", ");
  return el("div", { class: "block" }, icon("person"), el("div", {}, el("strong", {}, name || "Contact"), phones ? el("span", { class: "small" }, phones) : null));
}

function choice(body, content) {
  const title = body || content.title || content.id || "";
  const kind = content.kind === "list" ? "Chose from a list" : "Pressed a button";
  return el("div", { class: "choice-made" }, el("span", { class: "muted small" }, kind), el("strong", { dir: "auto" }, String(title)));
}

function optOut(wish) {
  const words = { stop: "Asked not to be written to any more", start: "Asked to be written to again", help: "Asked for help" };
  return words[wish] ?? `Opt-out keyword: ${wish}`;
}
