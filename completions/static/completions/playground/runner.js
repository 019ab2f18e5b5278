/** Asking, stopping, and going on after a reload: what happens to a reply between the first click and its end. */

import { LLMHub } from "../llmhub-client.js";
import { requestFor } from "./requests.js";
import { isRunning, newId } from "./store.js";

/**
 * @typedef {import("./store.js").Reply} Reply
 * @typedef {import("./store.js").Turn} Turn
 * @typedef {import("../llmhub-client.js").Running} Running
 * @typedef {import("../llmhub-client.js").Connection} Connection
 */

export class Runner {
  /**
   * @param {import("./store.js").Store} store
   * @param {(reply: Reply) => void} changed
   * @param {(reply: Reply) => void} ended
   * @param {(connection: Connection) => void} connected
   */
  constructor(store, changed, ended, connected) {
    this.store = store;
    this.changed = changed;
    this.ended = ended;
    this.connected = connected;
    /** @type {Map<string, LLMHub>} by project: a socket is one project's */
    this.hubs = new Map();
    /** @type {Map<string, Running>} by reply */
    this.running = new Map();
  }

  /** @param {string} project */
  hub(project) {
    const known = this.hubs.get(project) ?? new LLMHub({ project, onConnection: this.connected });
    this.hubs.set(project, known);
    return known;
  }

  /**
   * Ask a model to answer a turn, in place of one of its replies, else of what the pane had answered before.
   * @param {Turn} turn @param {number} pane -1 if it was closed @param {string} model
   * @param {Reply} [before] @param {"refresh"} [cache]
   */
  ask(turn, pane, model, before = turn.replies.find((one) => one.pane === pane), cache) {
    const { state } = this.store;
    /** @type {Reply} */
    const reply = {
      id: newId(), pane, model, project: state.project, state: "waiting", text: "", reasoning: "", toolCalls: [],
      request: requestFor(state, turn, pane, model), askedAt: Date.now(), firstAt: null, lastAt: null, place: null,
      usage: null, finishReason: null, started: null, problem: null,
    };
    turn.replies = before
      ? turn.replies.map((one) => (one === before ? reply : one))
      : [...turn.replies, reply].sort((one, other) => one.pane - other.pane);
    this.running.set(reply.id, this.hub(reply.project).stream(reply.request, { ...this.handlers(reply), cache }));
    this.changed(reply);
    this.store.save();
  }

  /** Go on with what ran when the page was left. */
  resume() {
    for (const reply of this.store.replies.filter(isRunning)) {
      if (reply.place === null) {
        const message = "The page was left before the hub confirmed the request. It may have run.";
        this.end(reply, "failed", { code: "stream_lost", message });
        continue;
      }
      const place = { ...reply.place, text: reply.text, reasoning: reply.reasoning, tool_calls: reply.toolCalls };
      this.running.set(reply.id, this.hub(reply.project).resume(place, this.handlers(reply)));
      this.changed(reply);
    }
  }

  /** @param {Reply} reply */
  stop(reply) {
    this.running.get(reply.id)?.cancel();
  }

  stopAll() {
    for (const reply of this.store.replies.filter(isRunning)) this.stop(reply);
  }

  /** @param {Reply} reply @returns {import("../llmhub-client.js").Handlers} */
  handlers(reply) {
    return {
      onAccepted: () => this.came(reply),
      onStarted: ({ model, provider, cache }) => {
        reply.started = { model, provider, cache };
        this.came(reply);
      },
      onToken: (_, whole) => {
        reply.text = whole;
        this.came(reply, true);
      },
      onReasoning: (_, whole) => {
        reply.reasoning = whole;
        this.came(reply, true);
      },
      onToolCalls: (calls) => {
        reply.toolCalls = calls;
        this.came(reply, true);
      },
      onUsage: (usage) => {
        reply.usage = usage;
        this.came(reply);
      },
      onDone: ({ finish_reason }) => {
        reply.finishReason = finish_reason;
        this.end(reply, "done");
      },
      onCancelled: () => this.end(reply, "stopped"),
      onError: ({ code, message, retryAfter, param }) => this.end(reply, "failed", { code, message, retryAfter, param }),
    };
  }

  /** @param {Reply} reply @param {boolean} [tokens] */
  came(reply, tokens = false) {
    const place = this.running.get(reply.id)?.place();
    if (place) reply.place = { id: place.id, stream: place.stream, seq: place.seq };
    if (tokens) {
      reply.state = "streaming";
      reply.lastAt = Date.now();
      reply.firstAt ??= reply.lastAt;
    }
    this.changed(reply);
    this.store.changed();
  }

  /** @param {Reply} reply @param {Reply["state"]} state @param {import("./words.js").Problem | null} [problem] */
  end(reply, state, problem = null) {
    const place = this.running.get(reply.id)?.place();
    if (place) reply.place = { id: place.id, stream: place.stream, seq: place.seq };
    this.running.delete(reply.id);
    Object.assign(reply, { state, problem });
    this.changed(reply);
    this.store.save();
    this.ended(reply);
  }
}
