/**
 * llmhub for browsers: answers over one websocket, each of which survives it. No dependency, no build step.
 *
 *     import { LLMHub } from "/static/completions/llmhub-client.js";
 *
 *     const hub = new LLMHub();
 *     const answer = hub.stream(
 *       { model: "demo-chat", messages: [{ role: "user", content: "Hello" }] },
 *       { onToken: (text) => output.append(text) },
 *     );
 *     const { text, usage, finish_reason } = await answer; // answer.cancel() stops it
 *
 * A lost socket is opened again, and every answer goes on after the last frame that came: the joined text is the
 * same to the byte. What the hub no longer knows ends in the error `stream_lost`. Nothing is ever asked twice.
 */

import { Answer, LLMHubError } from "./llmhub-answer.js";

export { LLMHubError };

/**
 * @typedef {object} Options
 * @property {string} [url] The hub, e.g. "https://hub.example.com". Left out: where this page came from.
 * @property {() => Promise<string>} [ticket] Gives a new ticket each time the socket is opened. Left out: asks
 *   POST /api/ws-tickets/ with the session of the person who is signed in, and its CSRF token.
 * @property {string} [project] Slug of the project that pays, for that default; left out: their first one.
 * @property {(connection: Connection) => void} [onConnection] Told whenever the socket's state changes.
 *
 * @typedef {object} Connection
 * @property {"connecting" | "open" | "waiting" | "closed"} state `waiting`: it was lost and will be opened again.
 * @property {number} [retryInMs] Of `waiting`.
 * @property {string} [reason] Of `waiting` and `closed`, where somebody said one.
 *
 * @typedef {import("./llmhub-answer.js").Handlers} Handlers
 * @typedef {import("./llmhub-answer.js").Result} Result
 * @typedef {import("./llmhub-answer.js").Place} Place
 *
 * @typedef {Promise<Result> & {cancel: () => void, place: () => Place | null}} Running
 *   `cancel()` ends it, and the promise resolves with `cancelled: true`. `place()` is null until the hub took it.
 */

const PING_MS = 4000; // of silence, then the hub is asked whether it is there
const PONG_MS = 4000; // within which it must answer
const PROBE_MS = 2000; // the same after the browser said that the network changed
const OPEN_MS = 10_000; // for a ticket and a socket
const IDLE_MS = 60_000; // then a socket without answers is closed
const LONGEST_PAUSE_MS = 10_000;
const TICK_MS = 250;
const MOST_BYTES = 1 << 20; // of one message
const MOST_GAPS = 3;
const NOT_AUTHENTICATED = 4401, NOT_ALLOWED = 4403, TOO_MANY = 4429, FLOODING = 1008, RESTART = 1012; // close codes

/** Many answers over one socket, which is opened when it is needed. */
export class LLMHub {
  #url; #ticket; #onConnection;
  /** @type {Map<string, Answer>} those the hub has not ended */
  #answers = new Map();
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #clock = undefined;
  #opening = 0; // when a socket began to be opened
  #attempt = 0; // number of the newest
  #tries = 0; // in a row that led to nothing
  #refusals = 0; // of tickets, in a row
  #retryAt = 0;
  #openedAt = 0;
  #heardAt = 0;
  #askedAt = 0; // a ping is unanswered since
  #pongMs = PONG_MS;
  #proven = false; // the hub said something on this socket
  /** @type {Set<Answer>} not sent yet, because the socket is in doubt */
  #held = new Set();
  #reason = ""; // of the last loss
  #changed = (/** @type {Event} */ event) => {
    if (event.type !== "pageshow" || /** @type {PageTransitionEvent} */ (event).persisted) this.#probe();
  };

  /** @param {Options} [options] */
  constructor({ url, ticket, project, onConnection } = {}) {
    this.#url = socketAddress(url);
    this.#ticket = ticket ?? (() => sessionTicket(this.#url, project));
    this.#onConnection = onConnection;
    for (const name of ["online", "offline", "pageshow"]) globalThis.addEventListener?.(name, this.#changed);
  }

  /**
   * Ask for an answer.
   * @param {object} request A chat completion body, as for POST /v1/chat/completions.
   * @param {Handlers} [handlers]
   * @returns {Running}
   */
  stream(request, handlers = {}) {
    const answer = new Answer(newId(), request, handlers);
    if (new TextEncoder().encode(JSON.stringify(request)).length > MOST_BYTES - 1024) {
      answer.fail(new LLMHubError("request_too_large", "The request is larger than 1 MiB. Shorten the conversation."));
    }
    return this.#run(answer);
  }

  /**
   * Go on with an answer that another page began: `place` is what its `place()` gave, with what had come.
   * @param {Place} place
   * @param {Handlers} [handlers]
   * @returns {Running}
   */
  resume(place, handlers = {}) {
    return this.#run(new Answer(place.id, null, handlers, place));
  }

  /** Close the socket for good. Answers that run fail with connection_failed; the hub keeps them for a while. */
  close() {
    for (const name of ["online", "offline", "pageshow"]) globalThis.removeEventListener?.(name, this.#changed);
    this.#failAll(new LLMHubError("connection_failed", "The connection was closed."));
    this.#drop();
    this.#tell({ state: "closed" });
    clearInterval(this.#clock);
  }

  /** @param {Answer} answer @returns {Running} */
  #run(answer) {
    const { signal } = answer.handlers;
    const abort = () => this.#cancel(answer, signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    answer.released = () => signal?.removeEventListener("abort", abort);
    if (!answer.over) {
      this.#answers.set(answer.id, answer);
      clearInterval(this.#clock);
      this.#clock = setInterval(() => this.#tick(), TICK_MS);
      if (this.#socket?.readyState === 1) this.#begin(answer);
      else if (!this.#opening && Date.now() >= this.#retryAt) this.#open();
    }
    const place = () => {
      const { stream, text, reasoning, tool_calls } = answer.result;
      return stream === null ? null : { id: answer.id, stream, seq: answer.seq, text, reasoning, tool_calls };
    };
    return Object.assign(answer.promise, { cancel: () => this.#cancel(answer), place });
  }

  /** @param {Answer} answer @param {any} [reason] */
  #cancel(answer, reason) {
    if (answer.over) return;
    answer.cancelled(reason);
    // What left for the hub stays known until the hub has ended it: it is told again if this message is lost.
    if (!answer.sent && answer.result.stream === null) this.#answers.delete(answer.id);
    else this.#sayCancel(answer);
  }

  /** Send it now, or once the socket that is in doubt has shown that it is good. @param {Answer} answer */
  #begin(answer) {
    const inDoubt = this.#askedAt || globalThis.navigator?.onLine === false;
    if (!inDoubt) return this.#send(answer);
    this.#held.add(answer);
    if (!this.#askedAt) this.#ask(PROBE_MS);
  }

  /** Begin an answer on the socket that is open, or go on with it. @param {Answer} answer */
  #send(answer) {
    const { id, request, seq, handlers } = answer;
    const { stream } = answer.result;
    answer.waitingSince = null;
    if (answer.over) {
      this.#sayCancel(answer);
      this.#answers.delete(id); // it is not read any more, so nothing will be heard of it
    } else if (stream !== null) {
      this.#say({ type: "resume", id, stream, last_seq: seq });
    } else {
      answer.sent = true;
      this.#say({ type: "start", id, request, cache: handlers.cache, cache_ttl_seconds: handlers.cacheTtlSeconds });
    }
  }

  /** @param {Answer} answer */
  #sayCancel({ id, result: { stream } }) {
    this.#say({ type: "cancel", ...(stream === null ? { id } : { stream }) });
  }

  /** @param {object} message */
  #say(message) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(message));
  }

  // --- the socket

  async #open() {
    const attempt = ++this.#attempt;
    const isOutdated = () => attempt !== this.#attempt;
    this.#opening = Date.now();
    this.#tell({ state: "connecting" });
    try {
      const ticket = await this.#ticket();
      if (isOutdated()) return;
      const socket = new WebSocket(this.#url, ["llmhub.v1", `llmhub.ticket.${ticket}`]);
      this.#socket = socket;
      socket.onopen = () => isOutdated() || this.#opened();
      socket.onmessage = ({ data }) => isOutdated() || this.#hear(JSON.parse(data));
      socket.onclose = ({ code, reason }) => isOutdated() || this.#lost(code, reason);
    } catch (error) {
      if (isOutdated()) return;
      if (error instanceof LLMHubError || error instanceof DOMException) this.#failAll(asError(error));
      this.#lost(0, error instanceof Error ? error.message : String(error));
    }
  }

  #opened() {
    this.#opening = 0;
    this.#proven = false;
    this.#openedAt = this.#heardAt = Date.now();
    this.#askedAt = 0;
    for (const answer of this.#answers.values()) this.#send(answer);
    this.#tell({ state: "open" });
  }

  /** @param {any} frame */
  #hear(frame) {
    this.#heardAt = Date.now();
    this.#askedAt = this.#tries = this.#refusals = 0;
    this.#proven = true;
    for (const answer of this.#held) if (!answer.over) this.#send(answer);
    this.#held.clear();
    const stream = frame.stream ?? frame.resumed;
    const all = [...this.#answers.values()];
    const answer = all.find((one) => stream && one.result.stream === stream) ?? this.#answers.get(frame.id);
    if (answer === undefined) return;
    if (!answer.take(frame)) {
      if (++answer.gaps < MOST_GAPS) return this.#lost(0, "Frames are missing."); // and asked for anew
      answer.fail(new LLMHubError("stream_lost", "Parts of the answer are missing, and could not be had again."));
    }
    const last = ["done", "error", "cancelled"].includes(frame.type);
    if (last || (answer.over && !answer.result.cancelled)) this.#answers.delete(answer.id);
  }

  /** @param {number} [code] of the close @param {string} [reason] */
  #lost(code = 0, reason = "") {
    const refused = !this.#proven && [NOT_AUTHENTICATED, NOT_ALLOWED, TOO_MANY].includes(code);
    const wasGood = this.#proven && Date.now() - this.#openedAt > 1000;
    this.#reason = reason;
    this.#drop();
    for (const answer of [...this.#answers.values()]) {
      answer.waitingSince ??= Date.now();
      if (!answer.sent || answer.result.stream !== null) continue;
      if (refused) answer.sent = false; // the hub looked at nothing on this socket
      else this.#end(answer, "stream_lost", "The connection broke before the hub confirmed the request. It may have run.");
    }
    if (code === NOT_ALLOWED) this.#failAll(new LLMHubError("permission_denied", reason));
    if (code === NOT_AUTHENTICATED && refused && ++this.#refusals > 1) {
      this.#failAll(new LLMHubError("not_authenticated", reason));
    }
    if (!this.#answers.size) return this.#tell({ state: "closed", reason });
    const pause = Math.min(LONGEST_PAUSE_MS, 250 * 2 ** this.#tries++) * (0.5 + Math.random() / 2);
    const retryInMs = [RESTART, FLOODING].includes(code) ? 500 + Math.random() * 2000 : wasGood ? 0 : pause;
    this.#retryAt = Date.now() + retryInMs;
    this.#tell({ state: "waiting", retryInMs, reason });
    if (!retryInMs) this.#open();
  }

  #drop() {
    const socket = this.#socket;
    this.#attempt++;
    this.#opening = 0;
    this.#proven = false;
    this.#held.clear();
    this.#socket = null;
    if (socket !== null && socket.readyState < 2) socket.close();
  }

  /** The network changed, or the page came back: is the socket still good? */
  #probe() {
    if (!this.#answers.size) this.#drop();
    else if (this.#socket?.readyState === 1) this.#ask(PROBE_MS);
    else if (globalThis.navigator?.onLine !== false) {
      this.#drop();
      this.#open();
    }
  }

  /** @param {number} pongMs within which it must answer */
  #ask(pongMs) {
    this.#askedAt = Date.now();
    this.#pongMs = pongMs;
    this.#say({ type: "ping" });
  }

  #tick() {
    const now = Date.now();
    for (const answer of [...this.#answers.values()]) {
      if (answer.waitingSince !== null && now - answer.waitingSince > answer.patience) {
        this.#end(answer, "connection_failed", `The hub cannot be reached. ${this.#reason}`.trim());
      }
    }
    const isOpen = this.#socket?.readyState === 1;
    if (!this.#answers.size) {
      if (isOpen && now - this.#heardAt < IDLE_MS) return;
      this.#drop();
      clearInterval(this.#clock);
      this.#tell({ state: "closed" });
    } else if (isOpen) {
      if (this.#askedAt && now - this.#askedAt > this.#pongMs) this.#lost(0, "The hub fell silent.");
      else if (!this.#askedAt && now - this.#heardAt > PING_MS) this.#ask(PONG_MS);
    } else if (this.#opening) {
      if (now - this.#opening > OPEN_MS) this.#lost(0, "The hub did not answer in time.");
    } else if (now >= this.#retryAt) {
      this.#open();
    }
  }

  /** @param {Answer} answer @param {string} code @param {string} message */
  #end(answer, code, message) {
    this.#answers.delete(answer.id);
    answer.fail(new LLMHubError(code, message));
  }

  /** @param {LLMHubError} error */
  #failAll({ code, message, retryAfter }) {
    for (const answer of [...this.#answers.values()]) {
      this.#answers.delete(answer.id);
      answer.fail(new LLMHubError(code, message, { retry_after: retryAfter }));
    }
  }

  /** @param {Connection} connection */
  #tell(connection) {
    this.#onConnection?.(connection);
  }
}

/** @param {string | undefined} url */
function socketAddress(url) {
  const address = new URL(url ?? "/", globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  if (address.pathname === "/") address.pathname = "/ws/completions/";
  return address.href;
}

/** A ticket for who is signed in. @param {string} url @param {string} [project] @returns {Promise<string>} */
async function sessionTicket(url, project) {
  const cookie = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1];
  const field = /** @type {HTMLInputElement | null} */ (document.querySelector("[name=csrfmiddlewaretoken]"));
  const headers = { "X-CSRFToken": cookie ?? field?.value ?? "", ...(project ? { "X-LLMHub-Project": project } : {}) };
  const address = new URL("/api/ws-tickets/", url.replace(/^ws/, "http"));
  const answer = await fetch(address, { method: "POST", headers, credentials: "same-origin" });
  if (answer.ok) return (await answer.json()).ticket;
  const { message } = await answer.json().catch(() => ({}));
  const said = message ?? `The hub answered ${answer.status} when it was asked for a ticket.`;
  if (answer.status === 401) throw new LLMHubError("not_authenticated", said);
  if (answer.status < 500 && answer.status !== 429) throw new LLMHubError("permission_denied", said);
  throw new Error(said); // it passes: it is tried again
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Error} error @returns {LLMHubError} */
function asError(error) {
  return error instanceof LLMHubError ? error : new LLMHubError("connection_failed", error.message);
}
