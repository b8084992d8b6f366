// Builds elements. Text goes in as text nodes only: nothing from outside is ever read as markup.

export const byId = (id) => document.getElementById(id);

/** An element; `on` holds listeners, every other attribute is set as it is. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Labels as list items: the first few, then how many more there are. */
export function chips(labels, most) {
  const shown = (labels ?? []).slice(0, most).map((label) => el("li", { class: "chip label" }, label));
  const rest = (labels ?? []).length - shown.length;
  return rest > 0 ? [...shown, el("li", { class: "chip label" }, `+${rest}`)] : shown;
}

/** One of the symbols in index.html. Decoration: words stand beside it. */
export function icon(name) {
  const space = document.querySelector("svg.symbols").namespaceURI;
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", `icon i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Writes text only where it changed, so that nothing is announced or laid out twice. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Brings a parent's children into an order, moving only what is out of place. */
export function reconcile(parent, wanted) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let at = parent.firstChild;
  for (const node of wanted) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  if (focused && focused !== document.activeElement && parent.contains(focused)) {
    focused.focus({ preventScroll: true }); // moving an element takes its focus away
  }
}

/** Runs a function once, soon, however often it is asked for; also while the tab is hidden. */
export function soon(run) {
  let waiting = false;
  const go = () => {
    waiting = false;
    run();
  };
  return () => {
    if (waiting) return;
    waiting = true;
    if (document.hidden) setTimeout(go, 200); // animation frames stand still in a hidden tab
    else requestAnimationFrame(go);
  };
}
