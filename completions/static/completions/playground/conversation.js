/** The messages on the page, in their order, each with its answers beside one another. */

import { copyButton, h, iconButton } from "./dom.js";
import { Following } from "./following.js";
import { ReplyView } from "./reply.js";

/**
 * @typedef {import("./store.js").Turn} Turn
 * @typedef {import("./store.js").Reply} Reply
 * @typedef {import("./reply.js").Acts & {edit: (turn: Turn, role: string, content: string, ask: boolean) => boolean, remove: (turn: Turn) => void}} Acts
 *   `edit` gives whether the change was taken.
 */

export const ROLES = /** @type {Record<string, string>} */ ({ user: "You", assistant: "Assistant", system: "System", developer: "Developer" });

export class Conversation {
  /** @param {any} element @param {any} scroller @param {any} latest @param {Acts} acts */
  constructor(element, scroller, latest, acts) {
    this.element = element;
    this.acts = acts;
    this.following = new Following(scroller, latest);
    /** @type {Map<string, TurnView>} */
    this.views = new Map();
    /** @type {Set<string>} */
    this.dirty = new Set();
    this.frame = 0;
    setInterval(() => this.eachReply((view) => view.tick()), 200);
  }

  /** Show these turns. @param {Turn[]} turns */
  show(turns) {
    const fresh = new Map(turns.map((turn) => [turn.id, this.views.get(turn.id) ?? new TurnView(turn, this.acts)]));
    for (const [id, view] of this.views) if (!fresh.has(id)) view.element.remove();
    this.views = fresh;
    [...fresh.values()].forEach((view, at) => {
      view.update();
      if (this.element.children[at] !== view.element) this.element.insertBefore(view.element, this.element.children[at] ?? null);
    });
    this.following.settle();
  }

  /** A reply changed: show it with the next picture. @param {Reply} reply */
  touch(reply) {
    this.dirty.add(reply.id);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.eachReply((view) => this.dirty.has(view.reply.id) && view.update());
      this.dirty.clear();
      this.following.settle();
    });
  }

  /** @param {(view: ReplyView) => void} act */
  eachReply(act) {
    for (const turn of this.views.values()) for (const view of turn.replies.values()) act(view);
  }

  follow() {
    this.following.follow();
  }
}

class TurnView {
  /** @param {Turn} turn @param {Acts} acts */
  constructor(turn, acts) {
    this.turn = turn;
    this.acts = acts;
    /** @type {Map<string, ReplyView>} */
    this.replies = new Map();
    this.message = h("div", { class: "message" });
    this.grid = h("div", { class: "replies" });
    this.element = h("div", { class: "turn" }, this.message, this.grid);
    this.shown = "";
  }

  update() {
    const { turn } = this;
    const shown = `${turn.role} ${turn.content}`;
    if (shown !== this.shown) this.read();
    this.shown = shown;
    const fresh = new Map(turn.replies.map((reply) => [reply.id, this.replies.get(reply.id) ?? new ReplyView(reply, this.acts)]));
    this.replies = fresh;
    this.grid.dataset.columns = String(fresh.size);
    this.grid.hidden = !fresh.size;
    for (const view of fresh.values()) view.update();
    const elements = [...fresh.values()].map((view) => view.element);
    if (elements.some((one, at) => this.grid.children[at] !== one) || this.grid.children.length !== elements.length) {
      this.grid.replaceChildren(...elements);
    }
  }

  /** The message, to be read. */
  read() {
    const { turn, acts } = this;
    this.message.dataset.role = turn.role;
    const edit = iconButton("edit", "Edit the message", () => this.write());
    this.message.replaceChildren(
      h("header", null, h("h3", null, ROLES[turn.role] ?? turn.role), h("div", { class: "acts" },
        copyButton(() => turn.content, "Copy the message"), edit,
        iconButton("remove", "Remove the message and its answers", () => acts.remove(turn)))),
      h("div", { class: "said-text", dir: "auto" }, turn.content),
    );
    this.edit = edit;
  }

  /** The message, to be changed. */
  write() {
    const { turn, acts } = this;
    const role = h("select", { "aria-label": "Role of the message" }, ...Object.entries({ ...ROLES, user: "User" }).map(
      ([value, name]) => h("option", { value, selected: value === turn.role }, name)));
    const text = h("textarea", { "aria-label": "Message", rows: Math.min(12, turn.content.split("\n").length + 1) });
    text.value = turn.content;
    const save = (/** @type {boolean} */ ask) => {
      if (acts.edit(turn, role.value, text.value, ask)) close();
    };
    const close = () => {
      this.read();
      this.edit.focus();
    };
    text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" && !(event.key === "Enter" && (event.ctrlKey || event.metaKey))) return;
      event.stopPropagation();
      event.preventDefault();
      if (event.key === "Escape") close();
      else save(true);
    });
    this.message.replaceChildren(h("div", { class: "editor" }, role, text, h("div", { class: "row" },
      h("button", { type: "button", class: "button small", on: { click: () => save(true) } }, "Save and ask again"),
      h("button", { type: "button", class: "tool", on: { click: () => save(false) } }, "Save"),
      h("button", { type: "button", class: "tool", on: { click: close } }, "Cancel"))));
    text.focus();
  }
}
