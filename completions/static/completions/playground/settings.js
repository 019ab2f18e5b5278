/** The system prompt and the parameters. What is left alone is not sent: then the model's own default holds. */

import { byId } from "./dom.js";
import { parsed } from "./requests.js";

const SELECTS = ["response_format", "reasoning_effort"];
const TEXTS = { schema: "schema", extra: "extra", stop: "p-stop" };
const NUMBERS = ["max_tokens", "seed"];
const MORE = ["frequency_penalty", "presence_penalty", "seed", "stop", "extra"]; // folded away unless one is set
const SCHEMA = `{
  "type": "object",
  "properties": {
    "answer": {"type": "string"}
  },
  "required": ["answer"],
  "additionalProperties": false
}`;

export class Settings {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    /** @type {any[]} */
    this.sliders = [...document.querySelectorAll(".slider")];
    byId("settings-form").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
    byId("settings-form").addEventListener("input", (/** @type {any} */ event) => this.take(event.target));
    byId("settings-form").addEventListener("change", (/** @type {any} */ event) => event.target.type === "number" && this.bind(event.target));
    byId("reset").addEventListener("click", () => this.reset());
    byId("open-settings").addEventListener("click", () => this.open(true));
    byId("close-settings").addEventListener("click", () => this.open(false));
    byId("settings").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || !document.body.classList.contains("settings-open")) return;
      event.stopPropagation();
      this.open(false);
    });
    this.show();
  }

  /** @param {boolean} shown on a phone, over the conversation */
  open(shown) {
    document.body.classList.toggle("settings-open", shown);
    byId("open-settings").setAttribute("aria-expanded", String(shown));
    byId(shown ? "close-settings" : "open-settings").focus();
  }

  /** Whether every setting can be sent; if not, the first that cannot has the focus. */
  check() {
    const wrong = ["schema", "extra"].filter((name) => this.judge(name));
    if (!wrong.length) return true;
    const field = byId(wrong[0]);
    field.closest("details")?.setAttribute("open", "");
    if (byId("open-settings").offsetParent) this.open(true);
    field.focus();
    return false;
  }

  /** @param {string} name of a field that takes JSON @returns {boolean} it is no JSON object */
  judge(name) {
    const field = byId(name), said = byId(`${name}-problem`);
    const matters = name === "extra" || this.store.state.settings.response_format === "json_schema";
    const wrong = Boolean(matters && field.value.trim() && parsed(field.value) === null);
    field.setAttribute("aria-invalid", String(wrong));
    said.hidden = !wrong;
    said.textContent = wrong ? "This is not a JSON object." : "";
    return wrong;
  }

  reset() {
    this.store.state.settings = {};
    this.store.state.system = "";
    this.show();
    this.store.changed();
  }

  /** The page as the state has it. */
  show() {
    const { settings, system } = this.store.state;
    byId("system").value = system;
    for (const row of this.sliders) this.slide(row, settings[row.dataset.parameter]);
    for (const name of NUMBERS) byId(`p-${name}`).value = settings[name] ?? "";
    for (const name of SELECTS) byId(`p-${name}`).value = settings[name] ?? "";
    for (const [name, id] of Object.entries(TEXTS)) byId(id).value = settings[name] ?? "";
    byId("p-stop").rows = Math.min(4, byId("p-stop").value.split("\n").length);
    byId("schema-field").hidden = settings.response_format !== "json_schema";
    if (MORE.some((name) => settings[name] !== undefined)) byId("more").open = true;
  }

  /** @param {any} row @param {number | undefined} value */
  slide(row, value) {
    const [number, range] = row.querySelectorAll("input");
    number.value = value ?? "";
    range.value = value ?? (Number(range.min) < 0 ? 0 : row.dataset.parameter === "temperature" ? 1 : range.max);
    row.classList.toggle("unset", value === undefined);
    range.setAttribute("aria-valuetext", value === undefined ? "default" : String(value));
    const part = (Number(range.value) - Number(range.min)) / (Number(range.max) - Number(range.min));
    range.style.setProperty("--part", `${part * 100}%`);
  }

  /** Something was typed, chosen or moved. @param {any} field */
  take(field) {
    const { state } = this.store;
    const row = field.closest(".slider");
    if (field.id === "system") state.system = field.value;
    else if (row) {
      this.set(row.dataset.parameter, bounded(field));
      const value = state.settings[row.dataset.parameter];
      if (field.type === "range" || field.value !== String(value ?? "")) this.slideAround(row, field, value);
      else this.slide(row, value);
    } else {
      const name = Object.entries(TEXTS).find(([, id]) => id === field.id)?.[0] ?? field.id.replace("p-", "");
      this.set(name, NUMBERS.includes(name) ? bounded(field) : field.value || undefined);
      if (name === "response_format" && field.value === "json_schema") this.set("schema", state.settings.schema ?? SCHEMA);
      if (name === "response_format") this.show();
      if (name === "stop") field.rows = Math.min(4, field.value.split("\n").length);
      if (name === "schema" || name === "extra") this.judge(name);
    }
    this.store.changed();
  }

  /** Show a slider's value without taking the text from under the typing hand. @param {any} row @param {any} field @param {number | undefined} value */
  slideAround(row, field, value) {
    const typed = field.value;
    this.slide(row, value);
    if (field.type === "number") field.value = typed;
  }

  /** What was typed becomes what is sent. @param {any} field of a number */
  bind(field) {
    field.value = bounded(field) ?? "";
    this.take(field);
  }

  /** @param {string} name @param {any} value undefined: the default */
  set(name, value) {
    if (value === undefined) delete this.store.state.settings[name];
    else this.store.state.settings[name] = value;
  }
}

/** A number within the field's bounds; undefined where there is none. @param {any} field @returns {number | undefined} */
function bounded(field) {
  if (field.value.trim() === "" || !Number.isFinite(Number(field.value))) return undefined;
  const number = Math.min(Number(field.max), Math.max(Number(field.min), Number(field.value)));
  return field.step === "1" ? Math.round(number) : number;
}
