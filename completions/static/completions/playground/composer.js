/** Where messages are written. */

import { byId, icon } from "./dom.js";
import { roughTokens } from "./format.js";

const TALLEST = 0.4; // of the window

export class Composer {
  /**
   * @param {import("./store.js").Store} store
   * @param {{send: (role: string, content: string, ask: boolean) => void, stop: () => void, canAsk: () => boolean, check: () => boolean}} acts
   */
  constructor(store, acts) {
    this.store = store;
    this.acts = acts;
    this.running = false;
    this.ready = false;
    this.isClosed = false;
    this.field = byId("draft");
    this.role = byId("role");
    this.button = byId("send");
    if (this.field.value) store.state.draft = this.field.value; // written before this script was there
    else this.field.value = store.state.draft;
    this.field.addEventListener("input", () => {
      store.state.draft = this.field.value;
      store.changed();
      this.fit();
    });
    byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      if (this.running) acts.stop();
      else this.send(true);
    });
    byId("add").addEventListener("click", () => this.send(false));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.defaultPrevented || byId("inspector").open) return;
      event.preventDefault();
      if (!this.running) this.send(true);
    });
    this.fit();
  }

  focus() {
    this.field.focus();
  }

  /** Nobody can be asked from here. */
  close() {
    this.isClosed = this.field.disabled = this.role.disabled = true;
    this.fit();
  }

  /** @param {boolean} ask */
  send(ask) {
    const text = this.field.value;
    if (ask ? !this.canSend : !text.trim()) return this.focus();
    if (ask && !this.acts.check()) return;
    this.field.value = this.store.state.draft = "";
    this.acts.send(this.role.value, text, ask);
    this.role.value = "user";
    this.fit();
    this.focus();
  }

  get canSend() {
    return this.ready && !this.isClosed && (Boolean(this.field.value.trim()) || this.acts.canAsk());
  }

  /** @param {boolean} running @param {boolean} ready there is a model to ask */
  refresh(running, ready) {
    const changed = running !== this.running || !this.button.firstChild;
    Object.assign(this, { running, ready });
    if (changed) {
      this.button.replaceChildren(icon(running ? "stop" : "send"), running ? "Stop" : "Send");
      this.button.classList.toggle("stop", running);
      this.button.title = running ? "Stop (Esc)" : "Send (Ctrl+Enter)";
    }
    this.fit();
  }

  fit() {
    const { field } = this;
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight * TALLEST)}px`;
    this.button.disabled = !this.running && !this.canSend;
    byId("add").disabled = this.isClosed || !field.value.trim();
    if (this.isClosed) return byId("hint").replaceChildren();
    const key = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
    byId("hint").textContent = this.running ? "Esc stops" : field.value ? `≈ ${roughTokens(field.value)} tokens · ${key}+Enter sends` : `${key}+Enter sends`;
  }
}
