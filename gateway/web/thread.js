// The open conversation: a window of at most a few hundred messages, pages of older ones, and what
// the feed brings. Its order is that of the ids, which sort as time does.

import { byId, chips, el, reconcile, setText, soon } from "./dom.js";
import { MessageItem } from "./message.js";
import { channelWord, dayKey, dayWord, optOutHint, titleOf, windowHint } from "./words.js";

const PAGE = 50;
const MOST = 300;
const NEAR = 60; // pixels from the end that still count as the end

export class Thread {
  /** `shared` is what messages need; `drawn` is told after every drawing. */
  constructor(api, outbox, shared, drawn) {
    this.api = api;
    this.outbox = outbox;
    this.shared = { ...shared, find: (id) => this.byProviderId(id) };
    this.drawn = drawn;
    this.conversation = null;
    this.run = 0;
    this.draw = soon(() => this.render());
    this.parts = {
      scroller: byId("scroller"),
      list: byId("messages"),
      older: byId("older"),
      note: byId("thread-note"),
      latest: byId("latest"),
      latestText: byId("latest-text"),
      hint: byId("composer-note"),
      templates: byId("composer-templates"),
    };
    this.forget();
  }

  get id() {
    return this.conversation?.id ?? null;
  }

  forget() {
    for (const item of this.items?.values() ?? []) item.dispose();
    this.messages = new Map();
    this.items = new Map();
    this.days = new Map();
    this.touched = new Map(); // what the feed told while a page was on its way
    this.held = []; // what may be a send of ours that is not answered yet
    this.cursor = null;
    this.problem = "";
    this.loaded = false;
    this.loading = false;
    this.detached = false; // the newest messages are not in the window
    this.missed = 0;
    this.stick = true; // the end is to be kept in view
  }

  open(conversation) {
    this.close();
    this.conversation = conversation;
    this.out = false; // whether the person has opted out
    this.head(conversation);
    this.ask(conversation);
    this.draw();
    return this.load();
  }

  /** Asks whether the person may be written to; later changes come with the feed. */
  async ask(conversation) {
    const { id, channel, address } = conversation;
    try {
      const page = await this.api.get(`/api/opt-outs?channel=${channel}&address=${encodeURIComponent(address)}`);
      if (this.id === id && page.items.length) this.heard(page.items[0], conversation);
    } catch {
      // An answer to somebody who is out is shown as rejected all the same.
    }
  }

  /** What is known of a person changed. `conversation` is theirs, where the feed knows it. */
  heard(contact, conversation) {
    const open = this.conversation;
    if (!open) return;
    const same = contact.channel === open.channel && contact.address === open.address;
    if (!same && conversation?.id !== open.id) return;
    this.out = contact.state === "out";
    this.head(open);
  }

  close() {
    this.run += 1;
    this.forget();
    this.conversation = null;
    this.parts.list.replaceChildren();
  }

  /** Shows what changed in the conversation itself. */
  head(conversation) {
    this.conversation = conversation;
    setText(byId("thread-title"), titleOf(conversation));
    const ours = conversation.our_address ? `with ${conversation.our_address}` : "";
    const theirs = conversation.name ? conversation.address : "";
    const whose = conversation.assignee ? `assigned to ${conversation.assignee}` : "";
    const closed = conversation.status === "closed";
    setText(byId("thread-sub"), [closed ? "Closed" : "", channelWord(conversation.channel), theirs, ours, whose].filter(Boolean).join(" · "));
    setText(byId("thread-close"), closed ? "Reopen" : "Close");
    byId("thread-labels").replaceChildren(...chips(conversation.labels, 3));
    const hint = this.out ? optOutHint(conversation) : windowHint(conversation);
    setText(this.parts.hint, hint);
    this.parts.hint.hidden = !hint;
    this.parts.templates.hidden = !hint || Boolean(this.out);
  }

  /** Reads the newest page, in place of what was there. */
  async load() {
    const run = ++this.run;
    this.loading = true;
    this.touched.clear();
    this.draw();
    try {
      const page = await this.page("");
      if (run !== this.run) return;
      this.messages = new Map(page.items.map((message) => [message.id, message]));
      for (const [id, message] of this.touched) this.messages.set(id, message);
      Object.assign(this, { cursor: page.next_cursor, detached: false, missed: 0, stick: true });
      Object.assign(this, { loaded: true, problem: "" });
    } catch (error) {
      if (run !== this.run) return;
      this.problem = error.message;
    }
    this.loading = false;
    this.draw();
  }

  async older() {
    if (this.loading || !this.cursor) return;
    const run = this.run;
    this.loading = true;
    this.draw();
    try {
      const page = await this.page(`&cursor=${encodeURIComponent(this.cursor)}`);
      if (run !== this.run) return;
      for (const message of page.items) if (!this.messages.has(message.id)) this.messages.set(message.id, message);
      this.cursor = page.next_cursor;
      this.stick = false;
      this.problem = "";
      this.dropNewest();
    } catch (error) {
      if (run !== this.run) return;
      this.problem = error.message;
    }
    this.loading = false;
    this.draw();
  }

  page(rest) {
    return this.api.get(`/api/conversations/${encodeURIComponent(this.id)}/messages?limit=${PAGE}${rest}`);
  }

  /** Who reads far back gives up the newest messages until they go to the end again. */
  dropNewest() {
    const ids = [...this.messages.keys()].sort();
    for (const id of ids.slice(MOST)) {
      this.messages.delete(id);
      this.detached = true;
    }
  }

  /** Takes in a message that the feed or an answer tells of. */
  apply(message) {
    if (message.conversation_id !== this.id) return;
    if (this.loading && !this.loaded) return void this.touched.set(message.id, message);
    const known = this.messages.has(message.id);
    if (!known && message.direction === "outbound" && this.outbox.mayBe(message)) {
      this.held.push(message);
      return;
    }
    if (!known && !this.fits(message)) return;
    if (this.loading) this.touched.set(message.id, message);
    this.messages.set(message.id, message);
    if (!known) this.grew(message);
    this.draw();
  }

  /** Whether a message that is not known belongs to the window. */
  fits(message) {
    if (this.cursor) {
      const oldest = least(this.messages.keys());
      if (oldest !== null && message.id < oldest) return false; // a part of what is not loaded
    }
    if (!this.detached) return true;
    if (isNew(message)) {
      this.missed += 1;
      this.draw();
    }
    return false;
  }

  grew(message) {
    if (message.direction === "outbound" || this.atEnd()) this.stick ||= this.atEnd();
    else if (isNew(message)) this.missed += 1;
    if (this.messages.size <= MOST) return;
    if (this.atEnd()) {
      this.load(); // the newest page, with a cursor of its own for what is older
    } else {
      this.messages.delete(message.id);
      this.detached = true;
    }
  }

  /** A send was answered, or given up: what was held back for it has its place now. */
  settled(send, message) {
    if (send.conversationId === this.id && message && !this.messages.has(message.id)) {
      if (this.loading) this.touched.set(message.id, message);
      if (!this.detached) this.messages.set(message.id, message);
    }
    const held = this.held;
    this.held = [];
    for (const one of held) this.apply(one);
    this.draw();
  }

  byProviderId(id) {
    for (const message of this.messages.values()) if (message.provider_message_id === id) return message;
    return null;
  }

  /** Shows a send of ours at the end, wherever the reader was. */
  toEnd() {
    if (this.detached) this.load();
    this.stick = true;
    this.missed = 0;
    this.draw();
  }

  atEnd() {
    const { scroller } = this.parts;
    return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
  }

  scrolled() {
    this.stick = this.atEnd();
    if (this.stick && !this.detached) this.missed = 0;
    this.showLatest();
  }

  /** What is to be seen, oldest first: messages, then sends without an answer. */
  shown() {
    const messages = [...this.messages.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    return this.detached ? messages : [...messages, ...this.outbox.of(this.id).map(draft)];
  }

  render() {
    if (!this.conversation) return;
    const { scroller, list, older, note } = this.parts;
    const fromEnd = scroller.scrollHeight - scroller.scrollTop;
    const shown = this.shown();
    reconcile(list, this.nodes(shown));
    this.cleared(shown);
    older.hidden = !this.cursor;
    older.disabled = this.loading;
    setText(note, this.problem || (this.loading && !this.loaded ? "Loading…" : ""));
    if (this.stick) scroller.scrollTop = scroller.scrollHeight;
    else if (this.grewAbove(shown)) scroller.scrollTop = scroller.scrollHeight - fromEnd;
    this.showLatest();
    this.drawn();
  }

  /** Whether older messages came in, so that the view has to be held where it was. */
  grewAbove(shown) {
    const first = shown[0]?.id ?? null;
    const grew = this.first !== null && first !== null && first < this.first;
    this.first = first;
    return grew;
  }

  nodes(shown) {
    const nodes = [];
    let before = null;
    for (const message of shown) {
      const day = dayKey(message.created_at);
      const joins = before && dayKey(before.created_at) === day && before.direction === message.direction;
      if (!before || dayKey(before.created_at) !== day) nodes.push(this.day(day, message.created_at));
      const item = this.item(message);
      item.node.toggleAttribute("data-joins", Boolean(joins));
      nodes.push(item.node);
      before = message;
    }
    return nodes;
  }

  day(key, text) {
    let node = this.days.get(key);
    if (!node) this.days.set(key, (node = el("li", { class: "day" }, el("span", {}))));
    setText(node.firstChild, dayWord(text));
    return node;
  }

  item(message) {
    let item = this.items.get(message.id);
    if (!item) this.items.set(message.id, (item = new MessageItem(this.shared)));
    item.show(message);
    return item;
  }

  cleared(shown) {
    if (this.items.size === shown.length) return;
    const there = new Set(shown.map((message) => message.id));
    for (const [id, item] of this.items) {
      if (there.has(id)) continue;
      item.dispose();
      this.items.delete(id);
    }
  }

  showLatest() {
    const { latest, latestText } = this.parts;
    latest.hidden = this.atEnd() && !this.detached;
    const words = this.missed === 1 ? "1 new message" : `${this.missed} new messages`;
    setText(latestText, this.missed ? words : "Newest messages");
  }
}

/** A message that was just said, not an old one whose status moves. */
const isNew = ({ status }) => status === "received" || status === "queued" || status === "scheduled";

function least(ids) {
  let found = null;
  for (const id of ids) if (found === null || id < found) found = id;
  return found;
}

/** A send without an answer, dressed as a message. */
function draft(send) {
  return {
    id: send.id,
    direction: "outbound",
    type: "text",
    body: send.body,
    media: send.media,
    template: send.template,
    created_at: send.createdAt,
    send: { ...send },
  };
}
