/**
 * The conversation, kept in this browser: in the tab's own memory, so that a reload goes on where it was, and for
 * the next tab in localStorage. Running answers are kept with the place up to which their text came.
 */

const KEY = "llmhub.playground";
const VERSION = 1;
const PAUSE_MS = 300; // between two writes while an answer comes in
export const MOST_PANES = 3;

/**
 * @typedef {object} Reply An answer of one pane to a turn.
 * @property {string} id
 * @property {number} pane
 * @property {string} model as it was asked for
 * @property {string} project
 * @property {"waiting" | "streaming" | "done" | "stopped" | "failed"} state
 * @property {string} text
 * @property {string} reasoning
 * @property {any[]} toolCalls
 * @property {any} request
 * @property {number} askedAt
 * @property {number | null} firstAt of the first token
 * @property {number | null} lastAt
 * @property {import("../llmhub-client.js").Place | null} place
 * @property {any} usage
 * @property {string | null} finishReason
 * @property {{model: string, provider: string, cache: string} | null} started
 * @property {import("./words.js").Problem | null} problem
 *
 * @typedef {{id: string, role: string, content: string, replies: Reply[]}} Turn A message, and what it was answered.
 *
 * @typedef {object} State
 * @property {number} version
 * @property {number} user
 * @property {string} project
 * @property {string[]} panes models by id, '' for none
 * @property {string} system
 * @property {Record<string, any>} settings by parameter, without those left at their default
 * @property {Turn[]} turns
 * @property {string} draft
 */

export class Store {
  /**
   * @param {number} user @param {(problem: string) => void} complain
   * @param {() => void} forgotten told when another tab forgot the conversation
   */
  constructor(user, complain, forgotten) {
    this.user = user;
    this.complain = complain;
    const isKnown = localStorage.getItem(KEY) !== null; // else it was forgotten while this tab was elsewhere
    const own = isKnown ? this.kept(sessionStorage) : null;
    /** @type {State} */
    this.state = own ?? this.kept(localStorage) ?? this.empty();
    /** @type {Set<string>} the replies that ran when they came from another tab, which may still read them */
    this.borrowed = new Set(own ? [] : this.replies.filter(isRunning).map(({ id }) => id));
    this.timer = 0;
    this.isFull = false;
    this.isForgotten = false;
    addEventListener("pagehide", () => this.save());
    document.addEventListener("visibilitychange", () => document.hidden && this.save());
    addEventListener("storage", ({ key, newValue, storageArea }) => {
      if (storageArea === localStorage && (key === KEY || key === null) && newValue === null && !this.isForgotten) forgotten();
    });
  }

  /** @returns {State} */
  empty() {
    return { version: VERSION, user: this.user, project: "", panes: [""], system: "", settings: {}, turns: [], draft: "" };
  }

  /** @param {Storage} storage @returns {State | null} what is kept there, if it is this person's and whole */
  kept(storage) {
    try {
      const found = JSON.parse(storage.getItem(KEY) ?? "null");
      if (found?.version !== VERSION || found.user !== this.user || !Array.isArray(found.turns)) return null;
      return { ...this.empty(), ...unpacked(found) };
    } catch {
      return null;
    }
  }

  /** @returns {Reply[]} */
  get replies() {
    return this.state.turns.flatMap((turn) => turn.replies);
  }

  get isRunning() {
    return this.replies.some(isRunning);
  }

  /** Keep it soon: several changes become one write. */
  changed() {
    this.timer ||= setTimeout(() => this.save(), PAUSE_MS);
  }

  /** Keep nothing, from now on. */
  forget() {
    this.isForgotten = true;
    this.state = this.empty();
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
  }

  save() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.isForgotten) return;
    const text = JSON.stringify(packed(this.state));
    try {
      sessionStorage.setItem(KEY, text);
      localStorage.setItem(KEY, text);
      this.isFull = false;
    } catch {
      if (!this.isFull) this.complain("The conversation is too long for this browser to keep: it will be gone after a reload.");
      this.isFull = true;
    }
  }
}

/** @type {WeakMap<object, string>} messages as JSON: a long conversation is written many times */
const written = new WeakMap();

/**
 * As it is kept: what many requests hold, for each repeats all that was said before, stands there once.
 *
 * @param {State} state
 */
function packed(state) {
  /** @type {Map<string, number>} */
  const places = new Map();
  /** @type {any[]} */
  const messages = [];
  const place = (/** @type {any} */ message) => {
    const text = written.get(message) ?? JSON.stringify(message);
    written.set(message, text);
    const found = places.get(text) ?? messages.push(message) - 1;
    places.set(text, found);
    return found;
  };
  return { ...state, messages, turns: withMessages(state.turns, place) };
}

/** What `packed` made. @param {State & {messages?: any[]}} kept @returns {State} */
function unpacked({ messages, ...state }) {
  return messages ? { ...state, turns: withMessages(state.turns, (place) => messages[place]) } : state;
}

/** @param {Turn[]} turns @param {(message: any) => any} change of each message in their requests */
function withMessages(turns, change) {
  const changed = (/** @type {Reply} */ reply) => ({
    ...reply,
    request: { ...reply.request, messages: reply.request.messages.map(change) },
  });
  return turns.map((turn) => ({ ...turn, replies: turn.replies.map(changed) }));
}

/** @param {Reply} reply */
export const isRunning = ({ state }) => state === "waiting" || state === "streaming";

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
