/** One answer of the hub as a page sees it: what came of it so far, and who wants to know. Part of llmhub-client.js. */

/**
 * @typedef {object} Handlers Each is optional. An exception in one is reported, and changes nothing.
 * @property {(accepted: {stream: string}) => void} [onAccepted] The call is made, and survives this page: see `place()`.
 * @property {(started: {model: string, provider: string, cache: string, stream: string}) => void} [onStarted]
 * @property {(piece: string, whole: string) => void} [onToken] A piece of the text, and all of it so far.
 * @property {(piece: string, whole: string) => void} [onReasoning] The same of what the model thinks aloud.
 * @property {(calls: object[]) => void} [onToolCalls] The tool calls so far, in OpenAI's shape.
 * @property {(usage: Usage) => void} [onUsage]
 * @property {(result: Result) => void} [onDone]
 * @property {(error: LLMHubError) => void} [onError] With it, the promise may be left alone.
 * @property {(result: Result) => void} [onCancelled]
 * @property {"on" | "off" | "refresh" | "only"} [cache] What this call wants of the hub's cache, see docs/caching.md.
 * @property {number} [cacheTtlSeconds]
 * @property {AbortSignal} [signal] Aborting it cancels the answer; the promise rejects with the signal's reason.
 *
 * @typedef {{prompt_tokens: number, completion_tokens: number, total_tokens: number, cost_usd: string | null,
 *   [part: string]: any}} Usage `cost_usd`: dollars as decimal text; null: no price is known.
 *
 * @typedef {object} Result
 * @property {string} text
 * @property {string} reasoning
 * @property {object[]} tool_calls
 * @property {Usage | null} usage
 * @property {string | null} finish_reason
 * @property {string | null} model
 * @property {string | null} provider
 * @property {string | null} cache HIT, MISS, COALESCED or BYPASS.
 * @property {string | null} stream The hub's id of it.
 * @property {boolean} cancelled
 *
 * @typedef {object} Place Where an answer stands: enough for another page to go on, see `resume`.
 * @property {string} id
 * @property {string} stream
 * @property {number} seq Of the last frame that came; -1: none.
 * @property {string} [text] What had come by then, so that the result is whole.
 * @property {string} [reasoning]
 * @property {object[]} [tool_calls]
 */

const START_MS = 20_000; // that a new call waits for a socket
const RESUME_MS = 300_000; // that a running answer does: the hub keeps it no longer

/**
 * What went wrong. `code` is the hub's (budget_exceeded, rate_limit_exceeded, model_not_found, upstream_timeout …,
 * see docs/api.md), or one of this client's: stream_lost, connection_failed, not_authenticated, permission_denied,
 * request_too_large.
 */
export class LLMHubError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{type?: string | null, param?: string | null, retry_after?: number | null}} [more]
   */
  constructor(code, message, more = {}) {
    super(message);
    this.name = "LLMHubError";
    this.code = code;
    this.type = more.type ?? null;
    this.param = more.param ?? null;
    /** Seconds after which another try makes sense, where the hub said so. @type {number | null} */
    this.retryAfter = more.retry_after ?? null;
    /** What had come of the answer. @type {Result | null} */
    this.result = null;
  }
}

/** One answer: what came of it, and who wants to know. */
export class Answer {
  /**
   * @param {string} id
   * @param {object | null} request null: it runs already
   * @param {Handlers} handlers
   * @param {Partial<Place>} place
   */
  constructor(id, request, handlers, place = {}) {
    this.id = id;
    this.request = request;
    this.handlers = handlers;
    this.seq = place.seq ?? -1;
    this.sent = false; // its start left on a socket; whether it arrived, only a frame tells
    this.over = false;
    this.gaps = 0;
    this.released = () => {}; // what its end sets free
    /** @type {number | null} */
    this.waitingSince = Date.now(); // for a socket
    /** @type {Result} */
    this.result = {
      text: place.text ?? "", reasoning: place.reasoning ?? "", tool_calls: structuredClone(place.tool_calls ?? []),
      usage: null, finish_reason: null, model: null, provider: null, cache: null, stream: place.stream ?? null,
      cancelled: false,
    };
    /** @type {Promise<Result>} */
    this.promise = new Promise((resolve, reject) => { this.resolve = resolve; this.reject = reject; });
    if (handlers.onError) this.promise.catch(() => {});
  }

  /** Milliseconds that it may wait for a socket. */
  get patience() { return this.result.stream === null || this.over ? START_MS : RESUME_MS; }

  /** @param {any} frame @returns {boolean} false: frames before it are missing */
  take(frame) {
    if (frame.stream && this.result.stream === null) {
      this.result.stream = frame.stream;
      this.tell("onAccepted", { stream: frame.stream });
    }
    if (frame.stream === null) { // of no stream: a refusal
      if (frame.type === "cancelled") this.cancelled();
      else this.fail(refusal(frame));
      return true;
    }
    if (typeof frame.seq !== "number" || frame.seq <= this.seq) return true; // it came already
    if (frame.seq > this.seq + 1) return false;
    this.seq = frame.seq;
    this.gaps = 0;
    if (!this.over) this.apply(frame);
    return true;
  }

  /** @param {any} frame the next one */
  apply(frame) {
    const { result } = this;
    if (frame.type === "started") {
      const { model, provider, cache } = frame;
      Object.assign(result, { model, provider, cache });
      this.tell("onStarted", { model, provider, cache, stream: result.stream });
    } else if (frame.type === "delta") {
      if (frame.reasoning) this.tell("onReasoning", frame.reasoning, result.reasoning += frame.reasoning);
      if (frame.content) this.tell("onToken", frame.content, result.text += frame.content);
      if (frame.tool_calls) this.tell("onToolCalls", joined(result.tool_calls, frame.tool_calls));
    } else if (frame.type === "usage") {
      const { type, id, stream, seq, ...usage } = frame;
      result.usage = usage;
      this.tell("onUsage", usage);
    } else if (frame.type === "done") {
      result.finish_reason = frame.finish_reason;
      this.end("onDone", result, () => this.resolve(result));
    } else if (frame.type === "cancelled") {
      this.cancelled();
    } else if (frame.type === "error") {
      this.fail(new LLMHubError(frame.error.code ?? "internal_error", frame.error.message, frame.error));
    }
  }

  /** @param {any} [reason] of an AbortSignal */
  cancelled(reason) {
    this.result.cancelled = true;
    this.end("onCancelled", this.result, () => {
      if (reason === undefined) return this.resolve(this.result);
      this.promise.catch(() => {}); // who aborts expects it
      this.reject(reason);
    });
  }

  /** @param {LLMHubError} error */
  fail(error) {
    error.result = this.result;
    this.end("onError", error, () => this.reject(error));
  }

  /** @param {keyof Handlers} name @param {any} fact @param {() => void} settle */
  end(name, fact, settle) {
    if (this.over) return;
    this.tell(name, fact);
    this.over = true;
    this.released();
    settle();
  }

  /** @param {keyof Handlers} name @param {any[]} facts */
  tell(name, ...facts) {
    if (this.over) return;
    try {
      /** @type {any} */ (this.handlers[name])?.(...facts);
    } catch (error) {
      setTimeout(() => { throw error; });
    }
  }
}

/** @param {any} frame that is no stream's */
function refusal(frame) {
  if (frame.resumed === undefined) return new LLMHubError(frame.error.code ?? "internal_error", frame.error.message, frame.error);
  return new LLMHubError("stream_lost", `The answer cannot be continued. ${frame.error.message}`, frame.error);
}

/** Add parts of tool calls to those that came. @param {any[]} calls @param {any[]} parts */
function joined(calls, parts) {
  for (const part of parts) {
    const { index = calls.length, function: made, ...rest } = part;
    const call = (calls[index] ??= { function: { name: "", arguments: "" } });
    for (const [name, value] of Object.entries(rest)) if (value != null) call[name] = value;
    call.function.name += made?.name ?? "";
    call.function.arguments += made?.arguments ?? "";
  }
  return calls;
}
