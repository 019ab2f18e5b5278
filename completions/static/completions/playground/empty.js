/** What the page shows before there is a conversation. */

import { h } from "./dom.js";

const EXAMPLES = [
  ["What are you?", "The hub introduces itself"],
  ["Write a Python function that finds the longest word in a text, with one example.", "See code as it comes"],
  ["Compare SQLite and PostgreSQL in a small table.", "See a table"],
  ["Name three uses of a local language model, one line each.", "See a list"],
];

/** The person is not signed in any more. @param {any} element @param {string} signInUrl */
export function signedOut(element, signInUrl) {
  element.replaceChildren(
    h("h2", null, "You are signed out"),
    h("p", null, "It was done in another tab. The conversation in this browser is forgotten."),
    h("p", null, h("a", { class: "button", href: signInUrl }, "Sign in")),
  );
}

/** @param {any} element @param {boolean} hasModels @param {string | null} addUrl @param {(text: string) => void} ask */
export function empty(element, hasModels, addUrl, ask) {
  if (!hasModels) {
    element.replaceChildren(
      h("h2", null, "No model can be called yet"),
      h("p", null, addUrl ? "Add a provider and enable one of its models; then come back here." : "Staff must add a provider first, and enable one of its models."),
      addUrl ? h("p", null, h("a", { class: "button", href: addUrl }, "Add a provider")) : "",
    );
    return;
  }
  element.replaceChildren(
    h("h2", null, "Ask a model"),
    h("p", null, "Answers come word by word, survive a lost connection and a reload, and are in the ledger with their cost."),
    h("ul", { class: "examples" }, ...EXAMPLES.map(([text, meaning]) => h("li", null,
      h("button", { type: "button", on: { click: () => ask(text) } }, h("span", null, text), h("small", null, meaning))))),
  );
}
