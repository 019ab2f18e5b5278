/** One call as JSON and as code. */

import { callId } from "./api.js";
import { byId, copyButton, h, icon } from "./dom.js";
import { responseOf } from "./requests.js";
import * as snippets from "./snippets.js";

/** @typedef {import("./store.js").Reply} Reply */

const VIEWS = /** @type {Record<string, (reply: Reply) => string>} */ ({
  Request: (reply) => JSON.stringify(reply.request, null, 2),
  Response: (reply) => JSON.stringify(responseOf(reply), null, 2),
  curl: (reply) => snippets.curl(reply.request, location.origin),
  Python: (reply) => snippets.python(reply.request, location.origin),
  JavaScript: (reply) => snippets.javascript(reply.request, location.origin),
  Browser: (reply) => snippets.browser(reply.request, location.origin),
});

export class Inspector {
  /** @param {string | null} callUrl where a call is in the admin, with an id of zeros */
  constructor(callUrl) {
    this.callUrl = callUrl;
    /** @type {Reply | null} */
    this.reply = null;
    this.dialog = byId("inspector");
    this.text = byId("inspector-text");
    this.tabs = Object.keys(VIEWS).map((name) => h("button", { type: "button", role: "tab", "aria-controls": "inspector-panel", on: { click: () => this.choose(name) } }, name));
    byId("inspector-tabs").append(...this.tabs);
    byId("inspector-tabs").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.move(event));
    byId("inspector-copy").replaceWith(copyButton(() => this.text.textContent, "Copy what is shown", "Copy"));
    const close = byId("inspector-close");
    close.append(icon("close"));
    close.setAttribute("aria-label", "Close");
    close.addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (/** @type {Event} */ event) => event.target === this.dialog && this.dialog.close());
  }

  /** @param {Reply} reply */
  open(reply) {
    this.reply = reply;
    byId("inspector-title").textContent = reply.model;
    const link = byId("inspector-call"), stream = reply.place?.stream;
    link.hidden = !this.callUrl || !stream;
    if (this.callUrl && stream) {
      link.href = this.callUrl.replace("00000000-0000-0000-0000-000000000000", callId(stream));
    }
    this.choose("Request");
    this.dialog.showModal();
    this.tabs[0].focus();
  }

  /** @param {string} name */
  choose(name) {
    if (this.reply === null) return;
    for (const tab of this.tabs) {
      const chosen = tab.textContent === name;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    this.text.textContent = VIEWS[name](this.reply);
    byId("inspector-panel").scrollTop = 0;
  }

  /** @param {KeyboardEvent} event */
  move({ key }) {
    const step = key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    const at = this.tabs.findIndex((tab) => tab.tabIndex === 0);
    const next = this.tabs[(at + step + this.tabs.length) % this.tabs.length];
    this.choose(next.textContent);
    next.focus();
  }
}
