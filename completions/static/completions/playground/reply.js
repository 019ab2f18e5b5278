/** An answer on the page: who gave it, what came, how fast, and what it cost. */

import { copyButton, h, icon, iconButton } from "./dom.js";
import { count, money, roughTokens, seconds, span } from "./format.js";
import { Markdown } from "./markdown.js";
import { isRunning } from "./store.js";
import { ending, explained, readable, waitOf } from "./words.js";

/**
 * @typedef {import("./store.js").Reply} Reply
 * @typedef {object} Acts
 * @property {(reply: Reply) => void} retry
 * @property {(reply: Reply) => void} inspect
 * @property {(reply: Reply) => void} stop
 * @property {(model: string) => {prompt: number, completion: number} | null} price
 * @property {(slug: string) => string} provider its name
 * @property {string} signIn
 */

/** @type {Record<string, string>} */
const CACHE = { HIT: "from the cache", STALE: "from the cache", SEMANTIC: "of a like question", COALESCED: "shared" };
const STATES = { waiting: "waiting", streaming: "answering", done: "", stopped: "stopped", failed: "failed" };

export class ReplyView {
  /** @param {Reply} reply @param {Acts} acts */
  constructor(reply, acts) {
    this.reply = reply;
    this.acts = acts;
    this.shown = { text: "", reasoning: "", calls: "", problem: /** @type {any} */ (null) };
    this.folded = false; // the reasoning was, once, when the answer began
    this.name = h("h3", { class: "reply-name" }, reply.model);
    this.provider = h("span", { class: "reply-provider" });
    this.state = h("span", { class: "reply-state" });
    this.thoughts = h("div", { class: "md" });
    this.thinking = h("summary", null, "Reasoning");
    this.reasoning = h("details", { class: "reasoning", hidden: true }, this.thinking, this.thoughts);
    this.text = h("div", { class: "md" });
    this.calls = h("div", { class: "calls", hidden: true });
    this.waiting = h("p", { class: "waiting" });
    this.problem = h("div", { class: "problem-card", hidden: true });
    this.ending = h("p", { class: "ending", hidden: true });
    this.facts = h("dl", { class: "facts" });
    this.cells = new Map();
    this.acting = h("div", { class: "acts" });
    this.element = h(
      "article", { class: "reply", "aria-label": `Answer of ${reply.model}` },
      h("header", null, this.name, this.provider, this.state),
      this.reasoning, this.waiting, this.text, this.calls, this.ending, this.problem,
      h("footer", null, this.facts, this.acting),
    );
    this.body = new Markdown(this.text);
    this.mind = new Markdown(this.thoughts);
    this.update();
  }

  update() {
    const { reply, shown } = this;
    const running = isRunning(reply);
    if (this.element.dataset.state !== reply.state) {
      this.element.dataset.state = reply.state;
      this.state.textContent = STATES[reply.state];
      this.actions(running);
      this.body.show(shown.text = reply.text, running);
    }
    this.element.setAttribute("aria-busy", String(running));
    this.provider.textContent = reply.started ? this.acts.provider(reply.started.provider) : "";
    if (shown.text !== reply.text) this.body.show(shown.text = reply.text, running);
    this.think();
    this.call();
    this.wait();
    this.fail();
    const said = ending(reply.finishReason) || (reply.state === "done" && !reply.text && !reply.toolCalls.length ? "The model answered nothing." : "");
    this.ending.hidden = !said;
    this.ending.textContent = said;
    this.measure();
  }

  /** What changes by the clock alone. */
  tick() {
    if (!isRunning(this.reply)) return;
    this.wait();
    this.measure();
  }

  think() {
    const { reasoning, text } = this.reply;
    if (reasoning && text && !this.folded) this.reasoning.open = !(this.folded = true);
    if (this.shown.reasoning === reasoning) return;
    if (!this.shown.reasoning) this.reasoning.open = !text;
    this.reasoning.hidden = !reasoning;
    this.mind.show(this.shown.reasoning = reasoning, isRunning(this.reply));
  }

  call() {
    const { toolCalls } = this.reply;
    const text = JSON.stringify(toolCalls);
    if (!toolCalls.length || this.shown.calls === text) return;
    this.shown.calls = text;
    this.calls.hidden = false;
    this.calls.replaceChildren(...toolCalls.map((one) => h(
      "figure", { class: "block" },
      h("figcaption", null, h("span", null, `Calls ${one.function.name || "a tool"}`)),
      h("pre", { tabindex: 0, role: "group", "aria-label": "Arguments" }, h("code", null, indented(one.function.arguments))),
    )));
  }

  wait() {
    const { state, askedAt } = this.reply;
    this.waiting.hidden = state !== "waiting";
    if (state !== "waiting") return;
    const time = Date.now() - askedAt;
    this.waiting.textContent = time > 1500 ? `Waiting for the first token, ${span(time / 1000)}` : "Waiting for the first token";
  }

  fail() {
    const { problem } = this.reply;
    if (problem === this.shown.problem) return;
    this.shown.problem = problem;
    this.problem.hidden = problem === null;
    if (problem === null) return;
    const { title, hint, retry, signIn } = explained(problem);
    const again = retry && iconButton("again", "Ask again", () => this.acts.retry(this.reply), "Ask again");
    const wait = h("span", { class: "meaning" });
    this.problem.replaceChildren(
      icon("wrong"),
      h("div", null, h("strong", null, title), problem.message && h("p", null, readable(problem.message)), hint && h("p", { class: "hint-text" }, hint),
        h("div", { class: "row" }, signIn && h("a", { href: this.acts.signIn }, "Sign in"), again, wait)),
    );
    if (again) countdown(waitOf(problem), again, wait);
  }

  /** @param {boolean} running */
  actions(running) {
    const { acts, reply } = this;
    const again = reply.state !== "failed" && iconButton("again", "Ask again", () => acts.retry(reply));
    this.acting.replaceChildren(...(running
      ? [iconButton("stop", `Stop ${reply.model}`, () => acts.stop(reply), "Stop")]
      : [
        ...(reply.text ? [copyButton(() => reply.text, "Copy the answer")] : []),
        ...(again ? [again] : []),
        iconButton("code", "Request, response and code", () => acts.inspect(reply)),
      ]));
  }

  measure() {
    const { reply } = this;
    const { usage, firstAt, lastAt, askedAt } = reply;
    const running = isRunning(reply);
    const came = usage?.completion_tokens ?? roughTokens(reply.text + reply.reasoning);
    const about = usage ? "" : "≈ ";
    const time = firstAt && lastAt ? lastAt - firstAt : 0;
    this.fact("First token", firstAt && seconds(firstAt - askedAt), "From the click to the first token");
    this.fact("Speed", time > 150 && came > 1 && `${about}${count(came / (time / 1000))} tokens/s`, "Tokens a second, from the first to the last");
    const prompt = usage?.prompt_tokens;
    const tokens = prompt !== undefined ? `${count(prompt)} in, ${count(came)} out` : came ? `${about}${count(came)} out` : null;
    this.fact("Tokens", tokens, usage ? "As they are paid for" : "An estimate, until the hub has counted");
    this.fact("Cost", this.cost(came, about), usage ? "As it is in the ledger" : "An estimate, until the hub has counted");
    this.fact("Cache", CACHE[reply.started?.cache ?? ""], "No provider was asked for this answer");
  }

  /** @param {number} came @param {string} about */
  cost(came, about) {
    const { usage, request, model, state } = this.reply;
    if (usage) return usage.cost_usd === null ? "no price known" : money(usage.cost_usd);
    const price = this.acts.price(model);
    if (price === null || !came || state === "failed") return null;
    const prompt = roughTokens(request.messages.map((/** @type {any} */ one) => one.content).join(" "));
    return `${about}${money(prompt * price.prompt + came * price.completion)}`;
  }

  /** @param {string} name @param {any} value @param {string} meaning */
  fact(name, value, meaning) {
    let cell = this.cells.get(name);
    if (!cell) {
      cell = h("dd");
      this.cells.set(name, cell);
      this.facts.append(h("div", { title: meaning }, h("dt", null, name), cell));
    }
    const row = cell.parentElement;
    row.hidden = !value;
    if (row.title !== meaning) row.title = meaning;
    if (value && cell.textContent !== value) cell.textContent = value;
  }
}

/** @param {number | null} wait seconds @param {any} button @param {any} said */
function countdown(wait, button, said) {
  if (wait === null) return;
  const until = Date.now() + wait * 1000;
  const show = () => {
    const left = (until - Date.now()) / 1000;
    button.disabled = left > 0;
    said.textContent = left > 0 ? `in ${span(left)}` : "";
    if (left > 0 && (button.isConnected || left > wait - 1)) setTimeout(show, 500);
  };
  show();
}

/** @param {string} text JSON, as far as it came */
function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
