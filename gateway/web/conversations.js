// The list of conversations: pages by cursor, kept up by the feed, drawn once per frame.

import { byId, chips, el, icon, reconcile, setText, soon } from "./dom.js";
import { brief, channelWord, initials, titleOf } from "./words.js";

const PAGE = 50;
const WRITTEN = new Set(["queued", "scheduled"]); // the first status of what we write
const MOST = 400; // beyond this the list starts anew from its first page

export class ConversationList {
  /** `drawn` is told after every drawing. */
  constructor(api, drawn) {
    this.api = api;
    this.drawn = drawn;
    this.items = new Map();
    this.rows = new Map();
    this.fresh = new Set(); // what the feed told since the last load began
    this.cursor = null;
    this.loaded = false;
    this.problem = "";
    this.selected = null;
    this.filter = "";
    this.found = null; // what the gateway found for the filter
    this.find = pause(300, () => this.ask());
    this.run = 0;
    this.draw = soon(() => this.render());
    this.refresh = later(1000, () => this.load(false));
    this.parts = { list: byId("conversations"), note: byId("list-note"), more: byId("list-more") };
  }

  get(id) {
    return this.items.get(id);
  }

  get unread() {
    let sum = 0;
    for (const item of this.items.values()) sum += item.unread_count > 0 ? 1 : 0;
    return sum;
  }

  /** Reads the first page; `anew` forgets what was there. */
  async load(anew = true) {
    const run = ++this.run;
    this.fresh.clear();
    try {
      const page = await this.api.get(`/api/conversations?limit=${PAGE}`);
      if (run !== this.run) return;
      if (anew || !this.loaded) this.restart(page);
      this.loaded = true;
      this.problem = "";
      for (const item of page.items) this.put(item);
    } catch (error) {
      if (run === this.run) this.problem = error.message;
    }
    this.draw();
  }

  /** Forgets what was there, but for what the feed told meanwhile and what is open. */
  restart(page) {
    const there = new Set(page.items.map((item) => item.id));
    for (const id of this.items.keys()) {
      const open = id === this.selected && !there.has(id);
      if (!this.fresh.has(id) && !open) this.items.delete(id);
    }
    this.cursor = page.next_cursor;
  }

  async more() {
    const run = this.run;
    const { more } = this.parts;
    more.disabled = true;
    try {
      const page = await this.api.get(`/api/conversations?limit=${PAGE}&cursor=${encodeURIComponent(this.cursor)}`);
      if (run !== this.run) return;
      this.cursor = page.next_cursor;
      for (const item of page.items) this.put(item);
      this.problem = "";
    } catch (error) {
      this.problem = error.message;
    } finally {
      more.disabled = false;
      this.draw();
    }
  }

  /** Takes a conversation in, unless what is known is newer. */
  put(item) {
    if (!item || !item.channel) return;
    const known = this.items.get(item.id);
    if (known && known.updated_at > item.updated_at) return;
    const last = known && known.last_message_at > item.last_message_at ? known.last_message_at : item.last_message_at;
    this.items.set(item.id, { ...item, last_message_at: last });
    this.fresh.add(item.id);
    if (this.loaded && this.items.size > MOST && !this.growing) this.refreshAnew();
    this.draw();
  }

  /** Starts anew when live conversations made the list longer than a page should hold. */
  refreshAnew() {
    this.growing = true;
    this.load(true).finally(() => (this.growing = false));
  }

  /** A message moves its conversation up; of what we write the feed tells no more than this. */
  touch(message) {
    const known = this.items.get(message.conversation_id);
    if (!known) return void (WRITTEN.has(message.status) && this.refresh());
    if (known.last_message_at < message.created_at) {
      this.items.set(known.id, { ...known, last_message_at: message.created_at });
      this.draw();
    }
  }

  select(id) {
    this.selected = id;
    this.draw();
  }

  /** Looks at once through what is loaded, and asks the gateway for the rest. */
  search(text) {
    this.filter = text;
    this.found = null;
    this.draw();
    if (text.trim()) this.find();
  }

  /** Finds conversations by name, number and by what was said in them. */
  async ask() {
    const text = this.filter.trim().slice(0, 500);
    if (!text) return;
    try {
      const page = await this.api.get(`/api/conversations?limit=${PAGE}&q=${encodeURIComponent(text)}`);
      if (text !== this.filter.trim()) return;
      for (const item of page.items) this.put(item);
      this.found = new Set(page.items.map((item) => item.id));
    } catch (error) {
      this.problem = error.message;
    }
    this.draw();
  }

  render() {
    const matches = matching(this.filter);
    const wanted = [...this.items.values()].filter((item) => matches(item) || this.found?.has(item.id)).sort(newestFirst);
    for (const id of this.rows.keys()) if (!this.items.has(id)) this.rows.delete(id);
    reconcile(this.parts.list, wanted.map((item) => this.row(item)));
    setText(this.parts.note, this.note(wanted.length));
    this.parts.more.hidden = !this.cursor || Boolean(this.filter.trim());
    this.drawn();
  }

  note(shown) {
    if (this.problem) return this.problem;
    if (!this.loaded) return "Loading…";
    if (shown) return "";
    if (this.filter.trim() && !this.found) return "Searching…";
    return this.items.size ? "Nothing was found." : "No conversations yet.";
  }

  row(item) {
    let row = this.rows.get(item.id);
    if (!row) this.rows.set(item.id, (row = new Row(item)));
    row.show(item, item.id === this.selected);
    return row.node;
  }
}

class Row {
  constructor(item) {
    this.face = el("span", { class: "face", "aria-hidden": "true" });
    this.title = el("span", { class: "title" });
    this.time = el("time", { class: "when" });
    this.channel = el("span", { class: "chip" });
    this.sub = el("span", { class: "sub" });
    this.labels = el("ul", { class: "labels" });
    this.count = el("span", { class: "count" });
    this.link = el(
      "a",
      { href: `#/${encodeURIComponent(item.id)}` },
      this.face,
      el("span", { class: "lines" },
        el("span", { class: "line" }, this.title, this.time),
        el("span", { class: "line" }, this.channel, this.sub, this.labels, this.count)),
    );
    this.node = el("li", {}, this.link);
    this.shown = null;
  }

  show(item, selected) {
    this.link.toggleAttribute("data-selected", selected);
    if (selected) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
    setText(this.time, brief(item.last_message_at));
    if (item === this.shown) return;
    this.shown = item;
    const letters = initials(item.name);
    this.face.replaceChildren(letters || icon("person"));
    setText(this.title, titleOf(item));
    setText(this.channel, channelWord(item.channel));
    this.channel.dataset.channel = item.channel;
    setText(this.sub, item.name ? item.address : item.our_address ? `to ${item.our_address}` : "");
    if (item.last_message_at) this.time.dateTime = item.last_message_at;
    this.labels.replaceChildren(...chips(item.labels, 1));
    this.link.toggleAttribute("data-unread", item.unread_count > 0);
    this.link.toggleAttribute("data-closed", item.status === "closed");
    const unread = item.unread_count > 0 ? [shortCount(item.unread_count), el("span", { class: "hidden-label" }, " unread")] : [];
    this.count.replaceChildren(...unread);
  }
}

const shortCount = (number) => (number > 99 ? "99+" : String(number));

function newestFirst(a, b) {
  if (a.last_message_at !== b.last_message_at) return a.last_message_at < b.last_message_at ? 1 : -1;
  return a.id < b.id ? 1 : -1;
}

/** Finds names by their letters and addresses also by digits alone, however they are spaced. */
function matching(filter) {
  const text = filter.trim().toLowerCase();
  if (!text) return () => true;
  const digits = /^[\d\s+().-]+$/.test(text) ? text.replace(/\D/g, "") : "";
  return (item) =>
    `${item.name ?? ""} ${item.address}`.toLowerCase().includes(text) ||
    (digits !== "" && item.address.replace(/\D/g, "").includes(digits));
}

/** Runs something once nobody has asked for it for a while. */
function pause(milliseconds, run) {
  let timer = null;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  };
}

/** Runs something at most once in an interval, and not before it is over. */
function later(milliseconds, run) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      run();
    }, milliseconds);
  };
}
