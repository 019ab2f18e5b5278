/** Passing news, with a way back for as long as there is one. */

import { byId, h } from "./dom.js";

const SHOWN_MS = 8000;

export class Toast {
  constructor() {
    this.element = byId("toast");
    this.timer = 0;
  }

  /** @param {string} text @param {() => void} [undo] */
  show(text, undo) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.hide(), SHOWN_MS);
    this.element.hidden = false;
    const back = () => {
      this.hide();
      undo?.();
    };
    this.element.replaceChildren(text, undo ? h("button", { type: "button", on: { click: back } }, "Undo") : "");
  }

  hide() {
    this.element.hidden = true;
  }

  /** The conversation went on: what was done before stands. */
  close() {
    if (this.element.querySelector("button")) this.hide();
  }
}
