// The event feed: server-sent events read by fetch, because EventSource cannot send a key in a
// header. Nothing is skipped: every connection goes on after the last number seen.

const LONGEST = 16 * 1024 * 1024; // characters of one event; more means that it is not our feed
const SILENCE = 45_000; // milliseconds; the gateway says something every 15 s
const STEADY = 10_000; // milliseconds after which a connection counts as good
const CAP = 30_000;

// A number that no feed has. The gateway answers it with feed.reset and the newest number, so
// that the state is loaded after a known point, also if the connection breaks before any event.
const BEYOND = "9223372036854775807";

/** Reads server-sent events from pieces of bytes, cut anywhere. */
export class SseParser {
  constructor(emit) {
    this.emit = emit;
    this.lastId = null;
    this.retry = null;
    this.decoder = new TextDecoder("utf-8");
    this.rest = "";
    this.skipFeed = false;
    this.clear();
  }

  clear() {
    this.data = [];
    this.type = "";
    this.size = 0;
  }

  push(bytes) {
    let text = this.decoder.decode(bytes, { stream: true });
    if (this.skipFeed && text) {
      if (text[0] === "\n") text = text.slice(1); // the second half of a CR LF that was cut
      this.skipFeed = false;
    }
    const lines = (this.rest + text).split(/\r\n|\r|\n/);
    if ((this.rest + text).endsWith("\r")) this.skipFeed = true;
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
    if (this.rest.length + this.size > LONGEST) throw new Error("an event is too long");
  }

  line(line) {
    if (line === "") return this.end();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the gateway is still there
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") {
      this.data.push(value);
      this.size += value.length;
    } else if (name === "event") this.type = value;
    else if (name === "id" && !value.includes("\0")) this.lastId = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }

  end() {
    const { data, type } = this;
    this.clear();
    if (data.length) this.emit({ id: this.lastId, type: type || "message", data: data.join("\n") });
  }
}

/** How long to wait before the next try: doubles, is capped, and differs between clients. */
export function backoff(tries, base = 1000, random = Math.random) {
  const most = Math.min(CAP, base * 2 ** Math.min(tries, 10));
  return Math.round(most / 2 + (most / 2) * random());
}

/** Follows the feed until it is stopped. `frame` gets each event, `state` each change of state. */
export class Feed {
  constructor(api, { frame, state }) {
    this.api = api;
    this.frame = frame;
    this.state = state;
    this.lastId = BEYOND;
    this.base = 1000;
    this.tries = 0;
    this.stopped = false;
    this.wake = () => {};
    this.online = () => this.now();
    this.offline = () => this.drop();
    addEventListener("online", this.online);
    addEventListener("offline", this.offline);
  }

  start() {
    this.run();
  }

  stop() {
    this.stopped = true;
    removeEventListener("online", this.online);
    removeEventListener("offline", this.offline);
    this.drop();
    this.wake();
  }

  /** Tries at once. */
  now() {
    this.tries = 0;
    this.wake();
  }

  drop() {
    this.connection?.abort();
  }

  async run() {
    this.state("connecting");
    while (!this.stopped) {
      const began = performance.now();
      const error = await this.connect();
      if (this.stopped || error?.status === 401) return;
      this.tries = performance.now() - began > STEADY ? 0 : this.tries + 1;
      const wait = Math.max(backoff(this.tries, this.base), (error?.retryAfter ?? 0) * 1000);
      this.state(navigator.onLine === false ? "offline" : "reconnecting");
      await this.pause(wait);
    }
  }

  /** One connection, until it ends; what ended it. */
  async connect() {
    const connection = new AbortController();
    this.connection = connection;
    let watch = setTimeout(() => connection.abort(), SILENCE);
    try {
      const answer = await this.api.events(this.lastId, connection.signal);
      const parser = new SseParser((event) => this.take(event));
      const reader = answer.body.getReader();
      this.state("live");
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.stopped) return null;
        clearTimeout(watch);
        watch = setTimeout(() => connection.abort(), SILENCE);
        parser.push(value);
        this.base = parser.retry ?? this.base;
      }
    } catch (error) {
      return error;
    } finally {
      clearTimeout(watch);
      connection.abort();
    }
  }

  take(event) {
    if (this.stopped) return;
    try {
      this.frame(event.type, JSON.parse(event.data), event.id);
    } catch (error) {
      console.error("an event was passed over", event.id, error); // one bad event ends no stream
    }
    if (event.id) this.lastId = event.id; // after it was taken in, never before
  }

  pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
