// Files of messages. The gateway gives them only with the key, so they are fetched and shown from
// memory; pictures when they come into view, everything else when somebody asks for it.

import { byId, el, icon } from "./dom.js";

const PICTURES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const TRIES = 6;
const OURS = /^\/api\/media\/[A-Za-z0-9_]+$/;

export class Files {
  constructor(api) {
    this.api = api;
    this.watcher = new IntersectionObserver((seen) => this.see(seen), { rootMargin: "300px" });
    this.waiting = new Map();
  }

  see(entries) {
    for (const { target, isIntersecting } of entries) {
      const load = this.waiting.get(target);
      if (!isIntersecting || !load) continue;
      this.forget(target);
      load();
    }
  }

  forget(target) {
    this.watcher.unobserve(target);
    this.waiting.delete(target);
  }

  /** A file as a node; `signal` ends what it fetches and frees what it holds. */
  show(file, type, signal) {
    const url = String(file.url ?? "");
    if (!OURS.test(url)) return foreign(file, url);
    const declared = String(file.content_type ?? "");
    if (declared.startsWith("image/") || type === "image" || type === "sticker") {
      return this.picture(file, url, signal);
    }
    if (/^(audio|video)\//.test(declared)) return this.player(file, url, declared.slice(0, 5), signal);
    return this.download(file, url, signal);
  }

  picture(file, url, signal) {
    const box = el("div", { class: "picture-box" }, el("span", { class: "muted small" }, "Picture"));
    const load = async () => {
      const small = await this.small(url, signal);
      const blob = small ?? (await this.fetched(url, signal, box));
      if (!blob) return;
      if (!PICTURES.has(blob.type)) return box.replaceWith(this.download(file, url, signal));
      const address = held(blob, signal);
      const alt = file.filename ? `Picture ${file.filename}` : "Picture";
      const image = el("img", { src: address, alt, decoding: "async" });
      let whole = small ? null : address;
      const open = async () => {
        if (!whole) {
          const all = await this.fetched(url, signal, el("span"));
          whole = all && PICTURES.has(all.type) ? held(all, signal) : address;
        }
        openPicture(whole, alt);
      };
      box.replaceChildren(el("button", { type: "button", class: "plain-button", "aria-label": `Enlarge: ${alt}`, on: { click: open } }, image));
    };
    this.waiting.set(box, load);
    this.watcher.observe(box);
    signal.addEventListener("abort", () => this.forget(box), { once: true });
    return box;
  }

  /** The thumbnail of a picture; null where there is none, or not yet. */
  async small(url, signal) {
    try {
      return await this.api.file(`${url}/thumbnail`, signal);
    } catch {
      return null;
    }
  }

  player(file, url, kind, signal) {
    const box = el("div", { class: "file" });
    const play = async () => {
      const blob = await this.fetched(url, signal, box);
      if (!blob) return;
      if (!blob.type.startsWith(`${kind}/`)) return box.replaceWith(this.download(file, url, signal));
      const player = el(kind, { controls: true, src: held(blob, signal) });
      box.replaceChildren(player);
      player.play().catch(() => {}); // a browser may want another click first
    };
    box.append(icon("file"), el("button", { type: "button", class: "link", on: { click: play } }, `Play ${kind}`), label(file));
    return box;
  }

  download(file, url, signal) {
    const box = el("div", { class: "file" });
    const name = file.filename || url.slice(url.lastIndexOf("/") + 1);
    const save = async () => {
      const state = el("span", { class: "small" });
      box.replaceChildren(state);
      const blob = await this.fetched(url, signal, state);
      if (!blob) return state.replaceWith(el("span", { class: "problem" }, state.textContent), button);
      // Its type is taken away: a saved file is never opened as a part of this page.
      const address = URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" }));
      el("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
      box.replaceChildren(icon("file"), button, label(file));
    };
    const button = el("button", { type: "button", class: "link", on: { click: save } }, "Download");
    box.append(icon("file"), button, label(file));
    return box;
  }

  /** The bytes, or null after saying in `place` why not. What is still being fetched is awaited. */
  async fetched(url, signal, place) {
    place.textContent = "Loading…";
    for (let tries = 1; !signal.aborted; tries += 1) {
      try {
        return await this.api.file(url, signal);
      } catch (error) {
        if (signal.aborted) return null;
        if (!error.repeatable || tries >= TRIES) {
          place.textContent = error.message;
          return null;
        }
        if (error.status === 503) place.textContent = "Waiting for the file…";
        await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 1) * 1000 * tries));
      }
    }
    return null;
  }
}

/** An address for bytes, as long as their message is on the page. */
function held(blob, signal) {
  const address = URL.createObjectURL(blob);
  signal.addEventListener("abort", () => URL.revokeObjectURL(address), { once: true });
  return address;
}

function label(file) {
  const words = [file.filename, file.content_type].filter(Boolean).join(" · ");
  return words ? el("span", { class: "muted small" }, words) : null;
}

/** A file elsewhere is never loaded by this page; it can be opened by a click. */
function foreign(file, url) {
  const text = file.filename || url;
  const open = /^https:\/\//.test(url)
    ? el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, text)
    : el("span", {}, text);
  return el("div", { class: "file" }, icon("file"), open, file.content_type ? el("span", { class: "muted small" }, file.content_type) : null);
}

function openPicture(address, alt) {
  const image = byId("picture-image");
  image.src = address;
  image.alt = alt;
  byId("picture").showModal();
}

/** Wires the enlarged picture's closing. */
export function preparePicture() {
  const dialog = byId("picture");
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => byId("picture-image").removeAttribute("src"));
}
