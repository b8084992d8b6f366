// What was written and is not yet known to be accepted. One send has one Idempotency-Key for all
// its tries, so that trying again can never make a second message.

import { newKey } from "./api.js";

const WINDOW_CLOSED = "/problems/window-closed";
const TRIES = 4; // without being asked; after that a person decides

export class Outbox {
  /** `changed(send)` after every step; `accepted(send, message)` once the gateway has it. */
  constructor(api, { changed, accepted }) {
    this.api = api;
    this.changed = changed;
    this.accepted = accepted;
    this.sends = new Map();
    this.turns = new Map();
  }

  /** Sends in a conversation, after what was written there before. */
  write(conversationId, body, media = [], template = null) {
    const key = newKey();
    const send = { id: `local-${key}`, key, conversationId, body, media, template, state: "sending", problem: "", asked: new Set(), createdAt: new Date().toISOString() };
    this.sends.set(send.id, send);
    this.changed(send);
    this.queue(send);
    return send;
  }

  retry(send) {
    if (send.state !== "failed") return;
    this.set(send, "sending", "");
    this.queue(send);
  }

  discard(send) {
    this.sends.delete(send.id);
    this.changed(send);
  }

  of(conversationId) {
    return [...this.sends.values()].filter((send) => send.conversationId === conversationId);
  }

  /** Whether a message of ours that the feed shows may be one of these. One that was given up is
      then asked for once more: its key finds out, and cannot send it twice. */
  mayBe(message) {
    const same = this.of(message.conversation_id).filter((send) => alike(send, message));
    for (const send of same) {
      if (send.state !== "failed" || send.asked.has(message.id)) continue;
      send.asked.add(message.id);
      this.retry(send);
    }
    return same.some((send) => this.busy(send));
  }

  busy(send) {
    return send.state === "sending" || send.state === "waiting";
  }

  get unsettled() {
    return [...this.sends.values()].some((send) => this.busy(send));
  }

  stop() {
    this.stopped = true;
    this.sends.clear();
  }

  /** One at a time in a conversation: what was written first is accepted first. */
  queue(send) {
    const before = this.turns.get(send.conversationId) ?? Promise.resolve();
    const turn = before.then(() => this.deliver(send));
    this.turns.set(send.conversationId, turn);
    turn.then(() => {
      if (this.turns.get(send.conversationId) === turn) this.turns.delete(send.conversationId);
    });
  }

  async deliver(send) {
    const path = `/api/conversations/${encodeURIComponent(send.conversationId)}/messages`;
    for (let tries = 1; !this.stopped && this.sends.has(send.id); tries += 1) {
      try {
        const message = await this.api.post(path, said(send), send.key);
        this.sends.delete(send.id);
        if (!this.stopped) this.accepted(send, message);
        return;
      } catch (error) {
        send.windowClosed = error.type === WINDOW_CLOSED;
        if (send.windowClosed) return this.set(send, "refused", "WhatsApp delivers only templates to this person until they write.");
        if (!error.repeatable) return this.set(send, "refused", error.message);
        if (tries >= TRIES) return this.set(send, "failed", `${error.message} Trying again cannot send it twice.`);
        this.set(send, "waiting", error.message);
        await pause(Math.max(2 ** (tries - 1), error.retryAfter ?? 0) * (800 + 400 * Math.random()));
      }
    }
  }

  set(send, state, problem) {
    send.state = state;
    send.problem = problem;
    if (!this.stopped) this.changed(send);
  }
}

/** What the gateway is asked to send. It knows the type of its files. */
const said = ({ body, media, template }) => {
  if (template) return { template };
  return media.length ? { body, media: media.map(({ url, filename }) => ({ url, filename })) } : { body };
};

/** Whether a message of the feed reads like what was written. */
function alike({ body, media, template }, message) {
  if (template) return template.name === message.template?.name;
  return body === message.body && media.length === (message.media ?? []).length;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
