// The page: asks for a key, then holds the list, the thread and the feed together.

import { About } from "./about.js";
import { Api, ApiError, sendable } from "./api.js";
import { Composer, NewMessage } from "./compose.js";
import { ConversationList } from "./conversations.js";
import { Details } from "./details.js";
import { byId, setText } from "./dom.js";
import { Files, preparePicture } from "./files.js";
import { stored } from "./kept.js";
import { Outbox } from "./outbox.js";
import { Feed } from "./stream.js";
import { Templates } from "./templates.js";
import { Thread } from "./thread.js";
import { summary, titleOf } from "./words.js";

const NAME = "Messaging Gateway";
const LIVE = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", offline: "Offline" };
const HINTS = {
  connecting: "Opening the event feed",
  live: "Events arrive as they happen",
  reconnecting: "The feed is interrupted and goes on where it stopped. Click to try now.",
  offline: "This device has no network. Click to try now.",
};
const FIRST_WORD = 1500; // milliseconds until the state is loaded even without a word of the feed
const HEALTH = 30_000;

/** What lives from a key's acceptance to its end. */
class Session {
  constructor(api, composer, newMessage) {
    this.api = api;
    this.composer = composer;
    this.newMessage = newMessage;
    this.seen = 0;
    this.ended = false;
    this.reading = false;
    this.news = [];
    this.list = new ConversationList(api, () => this.listDrawn());
    this.details = new Details(api);
    this.about = new About(api, this.details, (conversation) => this.conversation(conversation));
    this.outbox = new Outbox(api, {
      changed: (send) => this.thread.settled(send, null),
      accepted: (send, message) => this.accepted(send, message),
    });
    this.thread = new Thread(api, this.outbox, this.shared(), () => this.markRead());
    this.feed = new Feed(api, {
      frame: (type, frame) => this.frame(type, frame),
      state: (state) => this.showLive(state),
    });
  }

  shared() {
    return {
      files: new Files(this.api),
      details: (id, opener) => this.details.open(id, opener),
      retry: (send) => this.outbox.retry(send),
      discard: (send) => this.outbox.discard(send),
      template: (send) => {
        const conversation = this.list.get(send.conversationId);
        if (conversation) templates.open(conversation);
      },
      edit: (send) => {
        this.outbox.discard(send);
        this.composer.restore(send.body, send.media);
      },
    };
  }

  start() {
    this.feed.start();
    this.health();
    this.healthTimer = setInterval(() => document.hidden || this.health(), HEALTH);
    this.firstTimer = setTimeout(() => this.list.loaded || this.reload(), FIRST_WORD);
    this.list.draw();
    this.route();
  }

  stop() {
    this.ended = true;
    clearInterval(this.healthTimer);
    clearTimeout(this.firstTimer);
    this.feed.stop();
    this.outbox.stop();
    this.details.close();
    this.thread.close();
    this.composer.forget();
    this.list.items.clear();
    this.list.render();
  }

  /** Everything anew: at the start, and when the feed cannot tell what was missed. */
  reload() {
    this.list.load(true);
    if (this.thread.id) this.thread.load();
  }

  frame(type, frame) {
    this.seen += 1;
    setText(byId("seen"), `${this.seen} ${this.seen === 1 ? "event" : "events"}`);
    if (type === "feed.reset") return this.reload();
    const { message, conversation, contact } = frame.data ?? {};
    if (message?.conversation_id) this.message(type, message);
    if (contact) this.thread.heard(contact, conversation);
    if (conversation?.channel) this.conversation(conversation);
    if (conversation) this.about.changed(conversation);
  }

  /** A conversation as it is now. */
  conversation(conversation) {
    this.list.put(conversation);
    if (conversation.id === this.thread.id) this.thread.head(this.list.get(conversation.id));
  }

  /** Closes the conversation that is open, or opens it again. */
  async toggle() {
    const { conversation } = this.thread;
    if (!conversation) return;
    const id = encodeURIComponent(conversation.id);
    try {
      this.conversation(await (conversation.status === "closed"
        ? this.api.post(`/api/conversations/${id}/reopen`)
        : this.api.post(`/api/conversations/${id}/close`)));
    } catch (error) {
      setText(byId("thread-note"), error.message);
    }
  }

  message(type, message) {
    this.list.touch(message);
    this.thread.apply(message);
    this.details.changed(message);
    if (type === "message.received") this.announce(message);
  }

  accepted(send, message) {
    this.thread.settled(send, message);
    this.list.touch(message);
  }

  /** Tells screen readers of what came in; many at once in one sentence. */
  announce(message) {
    this.news.push(message);
    this.newsTimer ??= setTimeout(() => {
      const { news } = this;
      const from = this.list.get(news[0].conversation_id);
      const text = news.length > 1
        ? `${news.length} new messages`
        : `New message from ${from ? titleOf(from) : news[0].from}: ${summary(news[0])}`;
      Object.assign(this, { news: [], newsTimer: null });
      if (!this.ended) byId("announcer").replaceChildren(text);
    }, 600);
  }

  listDrawn() {
    const empty = this.list.loaded && !this.list.items.size;
    byId("welcome-empty").hidden = !empty;
    byId("welcome-pick").hidden = empty || !this.list.loaded;
    const { unread } = this.list;
    const title = unread && !this.ended ? `(${unread}) ${NAME}` : NAME;
    if (document.title !== title) document.title = title;
    this.markRead();
  }

  /** Opens what the address names after its #; an id there, never a key. */
  async route() {
    const id = named(location.hash);
    if (id === (this.thread.id ?? "")) return;
    this.details.close();
    this.thread.close();
    this.list.select(id || null);
    this.show(Boolean(id));
    if (!id) return;
    try {
      const conversation = this.list.get(id) ?? (await this.api.get(`/api/conversations/${encodeURIComponent(id)}`));
      if (this.ended || this.list.selected !== id) return;
      this.list.put(conversation);
      this.composer.open(conversation);
      this.show(true);
      const loading = this.thread.open(this.list.get(id));
      if (matchMedia("(pointer: fine)").matches) this.composer.field.focus({ preventScroll: true });
      else byId("thread-title").focus({ preventScroll: true });
      await loading;
    } catch (error) {
      if (this.list.selected === id && error instanceof ApiError && error.status === 404) location.hash = "";
      else setText(byId("thread-note"), error.message);
    }
  }

  show(open) {
    byId("panes").toggleAttribute("data-open", open);
    byId("welcome").hidden = open;
    byId("open-thread").hidden = !open;
    if (open) return;
    setText(byId("thread-title"), "");
    setText(byId("thread-sub"), "");
    byId("thread-labels").replaceChildren();
  }

  /** What is open in a window that somebody looks at is read. */
  async markRead() {
    const { thread } = this;
    const open = thread.id ? this.list.get(thread.id) : null;
    const looking = !document.hidden && document.hasFocus() && thread.loaded && !thread.detached;
    if (!open?.unread_count || !looking || this.reading || this.ended) return;
    this.reading = true;
    try {
      this.list.put(await this.api.post(`/api/conversations/${encodeURIComponent(open.id)}/read`));
    } catch (error) {
      console.warn("the conversation could not be marked as read", error.message);
      await new Promise((resolve) => setTimeout(resolve, 5000)); // it is asked again after the next drawing
    } finally {
      this.reading = false;
    }
  }

  showLive(state) {
    if (this.ended) return;
    byId("live").dataset.state = state;
    byId("live").title = HINTS[state];
    setText(byId("live-text"), LIVE[state]);
    if (state !== "connecting") setText(byId("live-said"), `Connection: ${LIVE[state]}`);
    this.health();
  }

  async health() {
    let ready;
    try {
      ready = (await this.api.get("/health/ready")).status === "ready";
    } catch {
      ready = false;
    }
    if (this.ended) return;
    byId("health").dataset.state = ready ? "ready" : "away";
    setText(byId("health-text"), ready ? "Gateway ready" : "Gateway not ready");
  }
}

/** The conversation that an address names after its #. */
function named(hash) {
  try {
    return decodeURIComponent(hash.replace(/^#\/?/, ""));
  } catch {
    return "";
  }
}

let session = null;
const composer = new Composer(
  (id, text, media) => {
    session?.outbox.write(id, text, media);
    session?.thread.toEnd();
  },
  (file, channel, signal) => session.api.upload(file, channel, signal),
);
const templates = new Templates((id, template) => {
  session?.outbox.write(id, "", [], template);
  session?.thread.toEnd();
});
const newMessage = new NewMessage((message) => {
  session?.list.refresh();
  location.hash = `#/${encodeURIComponent(message.conversation_id)}`;
});

function showGate(problem = "") {
  byId("console").hidden = true;
  byId("gate").hidden = false;
  setText(byId("gate-error"), problem.replaceAll("`", "")); // they mark commands in the API's texts
  byId("gate-key").setAttribute("aria-invalid", String(Boolean(problem)));
  byId("gate-key").focus();
}

/** Ends the session and forgets the key and everything that was read with it. */
function leave(problem = "") {
  stored.clear();
  session?.stop();
  session = null;
  newMessage.api = null;
  templates.api = null;
  byId("new-form").reset();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  byId("announcer").replaceChildren();
  document.title = NAME;
  showGate(problem);
}

function enter(api) {
  api.unauthorized = (error) => {
    if (session?.api === api) leave(error.message);
  };
  byId("gate").hidden = true;
  byId("gate-form").reset();
  byId("console").hidden = false;
  session?.stop();
  newMessage.api = api;
  templates.api = api;
  session = new Session(api, composer, newMessage);
  session.start();
}

async function signIn() {
  const key = byId("gate-key").value.trim();
  const remember = byId("gate-remember").checked;
  if (!key) return showGate("Enter a key.");
  if (!sendable(key)) return showGate("A key has no spaces and only plain characters.");
  const button = byId("gate-submit");
  button.disabled = true;
  setText(byId("gate-error"), "");
  try {
    const api = new Api(key);
    await api.get("/api/conversations?limit=1");
    stored.write(key, remember);
    enter(api);
  } catch (error) {
    showGate(error.message);
  } finally {
    button.disabled = false;
  }
}

async function copy(id, button) {
  const text = byId(id).textContent;
  try {
    await navigator.clipboard.writeText(text);
    setText(button, "Copied");
    setTimeout(() => setText(button, "Copy"), 1500);
  } catch {
    getSelection().selectAllChildren(byId(id)); // without https there is no clipboard; Ctrl+C works
  }
}

function example() {
  return [
    `curl ${new URL("api/messages", document.baseURI)}`,
    '-H "Authorization: Bearer $GATEWAY_API_KEY"',
    '-H "Content-Type: application/json"',
    `-d '{"to": "+12025550143", "body": "Hello"}'`,
  ].join(" \\\n  ");
}

/** Arrow keys go up and down the list. */
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const links = [...byId("conversations").querySelectorAll("a")];
  const next = links[links.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

function escape(event) {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  session?.details.close();
}

function wire() {
  byId("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    signIn();
  });
  byId("sign-out").addEventListener("click", () => {
    history.replaceState(null, "", location.pathname);
    leave();
  });
  byId("live").addEventListener("click", () => session?.feed.now());
  byId("filter").addEventListener("input", (event) => session?.list.search(event.target.value));
  byId("list").addEventListener("keydown", walk);
  byId("list-more").addEventListener("click", () => session?.list.more());
  byId("older").addEventListener("click", () => session?.thread.older());
  byId("latest").addEventListener("click", () => session?.thread.toEnd());
  byId("scroller").addEventListener("scroll", () => session?.thread.scrolled(), { passive: true });
  byId("thread-close").addEventListener("click", () => session?.toggle());
  byId("thread-about").addEventListener("click", (event) => {
    if (session?.thread.conversation) session.about.open(session.thread.conversation, event.currentTarget);
  });
  byId("details-close").addEventListener("click", () => session?.details.close());
  byId("command-out").textContent = example();
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", () => copy(button.dataset.copies, button));
  }
  for (const button of document.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => newMessage.open());
  }
  composer.prepare();
  newMessage.prepare();
  templates.prepare(() => session?.thread.conversation);
  preparePicture();
}

function watch() {
  addEventListener("hashchange", () => session?.route());
  addEventListener("focus", () => session?.markRead());
  addEventListener("keydown", escape);
  // A smaller view, by the details or a phone's keyboard, must not hide the newest message.
  new ResizeObserver(() => session?.thread.draw()).observe(byId("scroller"));
  addEventListener("beforeunload", (event) => {
    if (session?.outbox.unsettled) event.preventDefault(); // something written is not accepted yet
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !session) return;
    session.markRead();
    if (byId("live").dataset.state !== "live") session.feed.now();
  });
}

wire();
watch();
const key = stored.read();
if (key && sendable(key)) enter(new Api(key));
else showGate();
