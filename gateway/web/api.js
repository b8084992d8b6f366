// Requests to the gateway. The key travels in the Authorization header and nowhere else.

const UPLOAD = 600_000; // milliseconds, as long as the gateway waits
const PATIENCE = 20_000; // milliseconds until a request counts as unanswered

/** What went wrong. `status` 0: no answer came. `errors`: problems by field. */
export class ApiError extends Error {
  constructor(status, detail, { errors = [], retryAfter = null, type = "" } = {}) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.retryAfter = retryAfter; // seconds
    this.type = type; // the problem's, as docs/api.md lists them
  }

  /** Whether the same request may succeed later. With an Idempotency-Key repeating it is safe. */
  get repeatable() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export class Api {
  /** `unauthorized` is called when the key no longer holds. */
  constructor(key, unauthorized = () => {}) {
    this.key = key;
    this.unauthorized = unauthorized;
  }

  get(path) {
    return this.json("GET", path);
  }

  post(path, body, idempotencyKey = null) {
    return this.json("POST", path, body, idempotencyKey);
  }

  remove(path) {
    return this.json("DELETE", path);
  }

  async json(method, path, body, idempotencyKey) {
    const headers = { accept: "application/json" };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (idempotencyKey) headers["idempotency-key"] = idempotencyKey;
    const text = body === undefined ? undefined : JSON.stringify(body);
    const init = { method, headers, body: text, signal: AbortSignal.timeout(PATIENCE) };
    const answer = await this.request(path, init);
    if (answer.status === 204) return null;
    try {
      return await answer.json();
    } catch {
      throw new ApiError(0, "The answer did not arrive whole.");
    }
  }

  /** Gives a file to the gateway, to be sent on a channel. */
  async upload(file, channel, signal) {
    const query = new URLSearchParams({ filename: file.name, channel });
    const headers = { accept: "application/json", "content-type": file.type || "application/octet-stream" };
    const ends = AbortSignal.any([signal, AbortSignal.timeout(UPLOAD)]);
    const answer = await this.request(`/api/media?${query}`, { method: "POST", headers, body: file, signal: ends });
    return answer.json();
  }

  /** The bytes of a file. */
  async file(path, signal) {
    const answer = await this.request(path, { signal });
    try {
      return await answer.blob();
    } catch {
      throw new ApiError(0, "The file did not arrive whole.");
    }
  }

  /** The feed, as a response whose body goes on for ever. */
  events(lastId, signal) {
    const headers = { accept: "text/event-stream", "last-event-id": lastId };
    return this.request("/api/events", { headers, signal });
  }

  async request(path, init) {
    const headers = { ...init.headers, authorization: `Bearer ${this.key}` };
    let answer;
    try {
      // Relative to the page, which may be served under a path of its own.
      answer = await fetch(new URL(`.${path}`, document.baseURI), {
        ...init,
        headers,
        credentials: "omit",
        redirect: "error",
        referrerPolicy: "no-referrer",
      });
    } catch (error) {
      throw new ApiError(0, "The gateway does not answer.");
    }
    if (answer.ok) return answer;
    const error = await problemOf(answer);
    if (error.status === 401) this.unauthorized(error);
    throw error;
  }
}

async function problemOf(answer) {
  const after = Number(answer.headers.get("retry-after"));
  const retryAfter = Number.isFinite(after) && after > 0 ? after : null;
  try {
    const body = await answer.json();
    const errors = Array.isArray(body.errors) ? body.errors : [];
    return new ApiError(answer.status, String(body.detail || body.title), { errors, retryAfter, type: body.type });
  } catch {
    return new ApiError(answer.status, `The gateway answered ${answer.status}.`, { retryAfter });
  }
}

/** A random name for one send. Not randomUUID: that exists only on https and localhost. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A key can stand in a header. */
export const sendable = (key) => /^[\x21-\x7e]{1,512}$/.test(key);
