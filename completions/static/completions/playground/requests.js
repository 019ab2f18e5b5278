/** Requests as the hub takes them: chat completion bodies, of the conversation and the settings. */

/**
 * @typedef {import("./store.js").State} State
 * @typedef {import("./store.js").Turn} Turn
 * @typedef {import("./store.js").Reply} Reply
 */

/**
 * The body that asks `model` to answer the conversation up to `turn`, as pane `pane` saw it.
 * @param {State} state @param {Turn} turn @param {number} pane @param {string} model
 */
export function requestFor(state, turn, pane, model) {
  const messages = state.system.trim() ? [{ role: "system", content: state.system }] : [];
  for (const one of state.turns) {
    messages.push({ role: one.role, content: one.content });
    if (one === turn) break;
    const reply = replyFor(one, pane, model);
    if (reply) messages.push({ role: "assistant", content: reply.text });
  }
  return { model, messages, ...parameters(state.settings) };
}

/**
 * What a pane takes for the answer to a turn: its own, else the first that has any text. Closed panes share a number.
 * @param {Turn} turn @param {number} pane @param {string} model
 */
function replyFor(turn, pane, model) {
  const told = turn.replies.filter((reply) => reply.text);
  return told.find((reply) => reply.pane === pane && (pane >= 0 || reply.model === model)) ?? told[0];
}

/** What the settings add to a body; not `stream`: this page always streams. @param {Record<string, any>} settings */
export function parameters({ response_format: format, schema, stop, extra, ...plain }) {
  const body = { ...plain };
  if (format === "json_object") body.response_format = { type: "json_object" };
  if (format === "json_schema") {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: parsed(schema) ?? { type: "object" }, strict: true } };
  }
  const stops = (stop ?? "").split("\n").filter((/** @type {string} */ text) => text);
  if (stops.length) body.stop = stops;
  const { stream, ...more } = parsed(extra) ?? {};
  return { ...body, ...more };
}

/** @param {string | undefined} text @returns {any} an object, or null where it is none */
export function parsed(text) {
  try {
    const found = JSON.parse(text || "null");
    return typeof found === "object" && !Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}

/** The reply in the shape of a chat completion. @param {Reply} reply */
export function responseOf(reply) {
  /** @type {Record<string, any>} */
  const message = { role: "assistant", content: reply.text || null };
  if (reply.reasoning) message.reasoning = reply.reasoning;
  if (reply.toolCalls.length) message.tool_calls = reply.toolCalls;
  const body = {
    id: reply.place?.stream ?? null,
    model: reply.started?.model ?? reply.model,
    provider: reply.started?.provider ?? null,
    cache: reply.started?.cache ?? null,
    choices: [{ index: 0, message, finish_reason: reply.finishReason }],
    usage: reply.usage,
  };
  if (!reply.problem) return body;
  const { code, message: text } = reply.problem;
  return { ...body, error: { code, message: text } };
}
