/** Elements, made of nodes and text alone: nothing here takes HTML, so no text can become any. */

/**
 * @param {string} tag
 * @param {Record<string, any> | null} [facts] attributes; `class`, `on: {click: …}`, and true, false or null for flags
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {any}
 */
export function h(tag, facts, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(facts ?? {})) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

const PATHS = /** @type {Record<string, string>} */ ({
  copy: "M9 9h10v11H9zM5 15V4h10",
  done: "M5 12.5l4.5 4.5L19 7.5",
  again: "M19 8a7.5 7.5 0 1 0 .6 6.5M19 4v4.5h-4.5",
  code: "M8.5 7l-5 5 5 5M15.5 7l5 5-5 5",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  remove: "M6 7h12M9.5 7V5h5v2M7.5 7l.8 12h7.4l.8-12",
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  sliders: "M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  wrong: "M12 8v5M12 16.2v.3M12 3.5l9 16H3z",
  down: "M6 10l6 6 6-6",
  columns: "M4 5h7v14H4zM13 5h7v14h-7z",
  new: "M5 5h9M5 5v14h14v-9M19 4l-8 8",
});

/** A small drawing, silent for screen readers. @param {string} name @returns {SVGElement} */
export function icon(name) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" })) {
    drawing.setAttribute(key, value);
  }
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  drawing.append(path);
  return drawing;
}

/**
 * A quiet button with a drawing; without `text` its `title` is its name.
 * @param {string} name @param {string} title @param {() => void} act @param {string} [text]
 */
export function iconButton(name, title, act, text = "") {
  const facts = { type: "button", class: text ? "tool" : "tool bare", title, on: { click: act } };
  return h("button", text ? facts : { ...facts, "aria-label": title }, icon(name), text || null);
}

/** A button that copies what `give` gives, and says so. @param {() => string} give @param {string} title */
export function copyButton(give, title, text = "") {
  const button = iconButton("copy", title, () => copy(give(), button), text);
  return button;
}

/** @param {string} text @param {any} button */
export async function copy(text, button) {
  const said = await written(text);
  button.classList.add("said");
  button.replaceChildren(icon(said ? "done" : "wrong"), said ? "Copied" : "Copying is not allowed here");
  clearTimeout(Number(button.dataset.timer));
  const name = button.getAttribute("aria-label") === null ? "Copy" : "";
  button.dataset.timer = setTimeout(() => {
    button.classList.remove("said");
    button.replaceChildren(icon("copy"), name);
  }, 1800);
}

/** @param {string} text */
async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // no clipboard without TLS: the old way
    const field = h("textarea", { class: "unseen" });
    field.value = text;
    document.body.append(field);
    field.select();
    const worked = document.execCommand("copy");
    field.remove();
    return worked;
  }
}
