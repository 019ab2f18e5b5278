/** Which models are asked: one, or two or three beside one another. */

import * as api from "./api.js";
import { h, iconButton } from "./dom.js";
import { money, size } from "./format.js";
import { MOST_PANES } from "./store.js";

/** @typedef {import("./api.js").Model} Model */

const UNHEALTHY = /** @type {Record<string, string>} */ ({ auth_failed: "its key is refused", failing: "failing" });

export class Panes {
  /** @param {any} element @param {any} compare @param {import("./store.js").Store} store @param {(closed?: boolean) => void} changed */
  constructor(element, compare, store, changed) {
    this.element = element;
    this.compare = compare;
    this.store = store;
    this.changed = changed;
    /** @type {import("./api.js").Provider[] | null} */
    this.providers = null; // null: they are being asked for
    compare.addEventListener("click", () => this.add());
    this.show();
  }

  get all() {
    return (this.providers ?? []).flatMap((provider) => provider.models);
  }

  /** @param {string} id @returns {Model | undefined} */
  model(id) {
    return this.all.find((one) => one.id === id);
  }

  /** What may be called, by the project that pays now. Rejects with a Problem. */
  async load() {
    this.providers = null;
    this.show();
    try {
      this.providers = await api.providers(this.store.state.project);
    } catch (problem) {
      this.providers = [];
      throw problem;
    } finally {
      const { panes } = this.store.state;
      panes.forEach((id, at) => { if (!id) panes[at] = this.unused() ?? ""; });
      this.show();
    }
  }

  /** Nobody would pay: none may be called. */
  none() {
    this.providers = [];
    this.show();
  }

  /** The model one would try next: a default of a provider that works, else the first that no pane has. */
  unused() {
    const { panes } = this.store.state;
    const sound = (this.providers ?? []).filter(({ health }) => !UNHEALTHY[health]);
    const names = sound.flatMap((one) => one.models.filter(({ name }) => name === one.isDefault));
    return [...names, ...sound.flatMap((one) => one.models), ...this.all].find(({ id }) => !panes.includes(id))?.id;
  }

  add() {
    const { panes } = this.store.state;
    if (panes.length >= MOST_PANES) return;
    panes.push(this.unused() ?? panes[0]);
    this.show();
    this.changed();
    this.element.querySelector(".pane:last-child select")?.focus();
  }

  /** @param {number} at */
  remove(at) {
    this.store.state.panes.splice(at, 1);
    for (const reply of this.store.replies) {
      if (reply.pane === at) reply.pane = -1;
      else if (reply.pane > at) reply.pane--;
    }
    this.show();
    this.changed(true);
    this.element.querySelector("select")?.focus();
  }

  show() {
    const { panes } = this.store.state;
    this.element.dataset.columns = String(panes.length);
    this.element.replaceChildren(...panes.map((id, at) => this.pane(id, at)));
    this.compare.hidden = panes.length >= MOST_PANES || this.all.length === 0;
  }

  /** @param {string} id @param {number} at */
  pane(id, at) {
    const { panes } = this.store.state;
    const name = panes.length > 1 ? `Model ${at + 1}` : "Model";
    const select = h("select", { "aria-label": name, disabled: this.providers === null }, ...this.options(id));
    const about = h("p", { class: "about" });
    select.addEventListener("change", () => {
      panes[at] = select.value;
      this.describe(select.value, about);
      this.changed();
    });
    this.describe(id, about);
    const close = panes.length > 1 && iconButton("close", `Ask ${id} no more`, () => this.remove(at));
    return h("div", { class: "pane" }, h("div", { class: "pane-row" }, select, close), about);
  }

  /** @param {string} chosen */
  options(chosen) {
    if (this.providers === null) return [h("option", { value: chosen }, chosen || "Looking for models …")];
    if (!this.all.length) return [h("option", { value: "" }, "No model")];
    const gone = chosen && !this.model(chosen) && h("option", { value: chosen, selected: true }, `${chosen} (gone)`);
    const groups = this.providers.map(({ name, health, models }) => h(
      "optgroup", { label: UNHEALTHY[health] ? `${name} (${UNHEALTHY[health]})` : name },
      ...models.map((one) => h("option", { value: one.id, selected: one.id === chosen }, one.name))));
    return gone ? [gone, ...groups] : groups;
  }

  /** @param {string} id @param {any} about */
  describe(id, about) {
    const model = this.model(id);
    if (!model) {
      about.replaceChildren(this.providers?.length && id ? "Nobody offers this model now." : "");
      return;
    }
    const { window: context, most, price } = model;
    const cost = !price ? "no price known" : price.prompt || price.completion
      ? `${money(price.prompt * 1e6)} in, ${money(price.completion * 1e6)} out / 1M` : "free";
    about.title = [cost, context && `${size(context)} context`, most && `answers up to ${size(most)}`].filter(Boolean).join(" · ");
    about.replaceChildren(h("span", null, cost), context ? h("span", null, `${size(context)} context`) : "");
  }
}
