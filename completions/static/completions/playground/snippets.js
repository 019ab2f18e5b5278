/** A request as code to copy. The key is read from the environment: none is shown, and none is kept. */

const LONGEST_ARGUMENT = 100_000; // bytes: of one argument, Linux takes 128 KiB

/** @param {any} body @param {string} hub e.g. https://hub.example.com */
export function curl(body, hub) {
  const json = JSON.stringify({ ...body, stream: true }, null, 2);
  const isLong = new TextEncoder().encode(json).length > LONGEST_ARGUMENT;
  const data = isLong ? `--data-binary @- <<'EOF'\n${json}\nEOF` : `-d '${json.replaceAll("'", "'\\''")}'`; // no line of JSON is EOF
  return `curl -N ${hub}/v1/chat/completions \\
  -H "Authorization: Bearer $LLMHUB_KEY" \\
  -H "Content-Type: application/json" \\
  ${data}`;
}

/** @param {any} body @param {string} hub */
export function python(body, hub) {
  const { known, others } = split(body);
  const lines = Object.entries(known).map(([name, value]) => `    ${name}=${literal(value, 1)},\n`).join("");
  const more = Object.keys(others).length ? `    extra_body=${literal(others, 1)},\n` : "";
  return `import os

from openai import OpenAI  # pip install openai

client = OpenAI(base_url="${hub}/v1", api_key=os.environ["LLMHUB_KEY"])
stream = client.chat.completions.create(
${lines}${more}    stream=True,
)
for chunk in stream:
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
`;
}

/** @param {any} body @param {string} hub */
export function javascript(body, hub) {
  return `import OpenAI from "openai"; // npm install openai

const client = new OpenAI({ baseURL: "${hub}/v1", apiKey: process.env.LLMHUB_KEY });
const stream = await client.chat.completions.create(${JSON.stringify({ ...body, stream: true }, null, 2)});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
`;
}

/** @param {any} body @param {string} hub */
export function browser(body, hub) {
  return `// In a page of yours, without a key: docs/streaming.md has the view that gives out tickets.
import { LLMHub } from "${hub}/static/completions/llmhub-client.js";

const headers = { "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value }; // of Django's csrf_token tag
const ticket = async () => (await (await fetch("/ticket/", { method: "POST", headers })).json()).ticket;
const hub = new LLMHub({ url: "${hub}", ticket });
const answer = hub.stream(${JSON.stringify(body, null, 2)}, {
  onToken: (text) => document.body.append(text),
});
const { text, usage } = await answer; // answer.cancel() stops it
`;
}

const OF_THE_SDK = new Set([
  "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "response_format",
  "frequency_penalty", "presence_penalty", "reasoning_effort", "tools", "tool_choice", "parallel_tool_calls", "logprobs",
  "top_logprobs", "logit_bias", "metadata", "n", "user", "store", "prediction", "modalities", "audio", "verbosity",
]);

/** What the SDK has an argument for, and what it does not know. @param {any} body */
function split(body) {
  const entries = Object.entries(body);
  return {
    known: Object.fromEntries(entries.filter(([name]) => OF_THE_SDK.has(name))),
    others: Object.fromEntries(entries.filter(([name]) => !OF_THE_SDK.has(name))),
  };
}

/** A JSON value as Python writes it. @param {any} value @param {number} depth @returns {string} */
function literal(value, depth) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const parts = Array.isArray(value)
    ? value.map((one) => literal(one, depth + 1))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, depth + 1)}`);
  const line = open + parts.join(", ") + close;
  if (line.length + depth * 4 < 88 && !line.includes("\n")) return line;
  const indent = "    ".repeat(depth);
  return `${open}\n${parts.map((part) => `${indent}    ${part},\n`).join("")}${indent}${close}`;
}
