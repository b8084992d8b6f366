// Everything about one message, with each attempt to send it.

import { byId, el, icon, setText } from "./dom.js";
import { channelWord, moment, statusOf, statusText } from "./words.js";

const CANCELABLE = new Set(["scheduled", "queued", "held"]);
const RETRYABLE = new Set(["failed", "undelivered", "bounced", "expired", "rejected"]);

export class Details {
  constructor(api) {
    this.api = api;
    this.id = null;
    this.opener = null;
    this.timer = null;
    this.showing = null; // who has the pane
    this.pane = byId("details");
    this.body = byId("details-body");
  }

  open(id, opener) {
    this.lend(this, "Message details", opener);
    this.id = id;
    this.body.replaceChildren(el("p", { class: "note" }, "Loading…"));
    return this.load();
  }

  /** Gives the pane to somebody. */
  lend(whom, title, opener) {
    this.id = null;
    clearTimeout(this.timer);
    this.showing = whom;
    this.opener = opener;
    this.pane.hidden = false;
    setText(byId("details-title"), title);
    byId("details-title").focus({ preventScroll: true });
  }

  close() {
    if (this.pane.hidden) return;
    this.id = null;
    this.showing = null;
    clearTimeout(this.timer);
    this.pane.hidden = true;
    if (this.opener?.isConnected) this.opener.focus({ preventScroll: true });
  }

  /** The feed told of a message; if it is this one its attempts may have changed. */
  changed(message) {
    if (message.id !== this.id) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), 250);
  }

  async load() {
    const { id } = this;
    try {
      const message = await this.api.get(`/api/messages/${encodeURIComponent(id)}`);
      if (id === this.id) this.show(message);
    } catch (error) {
      if (id === this.id) this.body.replaceChildren(el("p", { class: "problem" }, error.message));
    }
  }

  show(message) {
    const state = statusOf(message.status);
    this.body.replaceChildren(
      el("p", { class: "state", "data-tone": state.tone }, state.icon ? icon(state.icon) : null, el("strong", {}, state.word)),
      el("p", { class: "muted" }, statusText(message)),
      ...this.errorOf(message),
      ...this.actions(message),
      facts(message),
      ...attemptsOf(message),
      ...metadataOf(message),
    );
  }

  errorOf({ error }) {
    if (!error) return [];
    return [el("p", { class: "problem" }, [error.code, error.message].filter(Boolean).join(": "))];
  }

  actions(message) {
    if (message.direction !== "outbound") return [];
    const id = encodeURIComponent(message.id);
    if (CANCELABLE.has(message.status)) {
      return this.action(message, "Cancel this message", () => this.api.post(`/api/messages/${id}/cancel`));
    }
    if (RETRYABLE.has(message.status)) {
      return this.action(message, "Send again", () => this.api.post(`/api/messages/${id}/retry`));
    }
    if (message.status !== "unknown") return [];
    const sure = { even_if_sent: true };
    return this.action(message, "Send again, though it may have arrived", () => this.api.post(`/api/messages/${id}/retry`, sure));
  }

  action(message, word, request) {
    const problem = el("p", { class: "problem", role: "alert" });
    const act = async () => {
      button.disabled = true;
      try {
        await request();
        if (message.id === this.id) await this.load();
      } catch (error) {
        problem.textContent = error.message;
        button.disabled = false;
      }
    };
    const button = el("button", { type: "button", class: "quiet", on: { click: act } }, word);
    return [button, problem];
  }
}

function list(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, ...known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value instanceof Node ? value : String(value))]));
}

const code = (text) => (text ? el("code", {}, text) : null);
const money = (cost) => cost ? `${cost.estimated ? "≈ " : ""}${cost.amount} ${cost.currency}` : null;

function facts(message) {
  const outbound = message.direction === "outbound";
  return list([
    ["Direction", outbound ? "Sent by us" : "Received"],
    ["Channel", channelWord(message.channel)],
    ["From", message.from],
    ["To", message.to],
    ["Kind", message.type],
    ["Segments", message.segments],
    ["Cost", money(message.cost)],
    ["Provider", message.provider],
    ["Provider's id", code(message.provider_message_id)],
    [outbound ? "Accepted here" : "Received", moment(message.created_at)],
    ["To be sent at", moment(message.send_at)],
    ["Sent", moment(message.sent_at)],
    ["Delivered", moment(message.delivered_at)],
    ["Read", moment(message.read_at)],
    ["Priority", outbound ? message.priority : null],
    ["If the outcome is unknown", outbound ? (message.on_unknown === "resend" ? "Send again" : "Hold, never send twice") : null],
    ["Id", code(message.id)],
  ]);
}

function attemptsOf(message) {
  if (message.direction !== "outbound") return [];
  const attempts = message.attempts ?? [];
  if (!attempts.length) return [el("h3", {}, "Attempts"), el("p", { class: "muted" }, "None yet.")];
  return [el("h3", {}, `Attempts (${attempts.length})`), el("ol", { class: "attempts" }, ...attempts.map(attempt))];
}

function attempt(one) {
  const state = statusOf(one.status);
  return el(
    "li",
    { "data-tone": state.tone },
    el("p", {}, el("strong", {}, `${one.number}. ${one.provider}`), el("span", { class: "status" }, state.icon ? icon(state.icon) : null, state.word)),
    list([
      ["From", one.from],
      ["Error", one.error ? [one.error.class, one.error.code, one.error.message].filter(Boolean).join(" · ") : null],
      ["Started", moment(one.started_at)],
      ["Finished", moment(one.finished_at)],
      ["Delivered", moment(one.delivered_at)],
      ["Cost", money(one.cost)],
      ["Provider's id", code(one.provider_message_id)],
      ["Network's id", code(one.network_id)],
      ["Id", code(one.id)],
    ]),
  );
}

function metadataOf(message) {
  const parts = [];
  for (const [title, value] of [["Content", message.content], ["Metadata", message.metadata]]) {
    if (!value || !Object.keys(value).length) continue;
    parts.push(el("h3", {}, title), el("pre", { tabindex: "0" }, JSON.stringify(value, null, 2)));
  }
  return parts;
}
