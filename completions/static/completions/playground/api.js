/** The hub's `/api`, as the page asks it: with the session, for one project. */

/** @typedef {import("./words.js").Problem} Problem */
/** @typedef {{prompt: number, completion: number}} Price of a token, in dollars */
/** @typedef {{id: string, name: string, provider: string, window: number | null, most: number | null, price: Price | null}} Model */
/** @typedef {{slug: string, name: string, health: string, models: Model[], isDefault: string}} Provider */

const CODES = /** @type {Record<string, string>} */ ({ AUTHENTICATION_FAILED: "not_authenticated", UNAVAILABLE: "hub_unavailable" });

/** @param {string} path @param {string} project @returns {Promise<any>} Rejects with a Problem. */
async function get(path, project) {
  let answer;
  try {
    answer = await fetch(path, { headers: project ? { "X-LLMHub-Project": project } : {}, credentials: "same-origin" });
  } catch {
    throw { code: "connection_failed", message: "" };
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const code = CODES[body.code] ?? String(body.code ?? "").toLowerCase();
  throw { code, message: body.message ?? `The hub answered ${answer.status}.`, retryAfter: body.details?.retry_after ?? null };
}

/** Providers with the models that can chat, in the order in which the hub prefers them. @param {string} project @returns {Promise<Provider[]>} */
export async function providers(project) {
  const paths = ["/api/models/", "/api/providers/", "/playground/prices/"];
  const [models, known, prices] = await Promise.all(paths.map((path) => get(path, project)));
  const facts = new Map(known.results.map((/** @type {any} */ one) => [one.slug, one]));
  const seen = new Map(); // how many providers have a model of that name
  for (const { id } of models.results) seen.set(id, (seen.get(id) ?? 0) + 1);
  /** @type {Map<string, Provider>} */
  const found = new Map();
  for (const { id, provider, context_window, max_output, capabilities } of models.results) {
    if (capabilities.length && !capabilities.includes("chat") && capabilities.includes("embeddings")) continue;
    const { name = provider, health = "unknown", default_model } = facts.get(provider) ?? {};
    if (!found.has(provider)) found.set(provider, { slug: provider, name, health, models: [], isDefault: default_model });
    const full = seen.get(id) > 1 ? `${provider}/${id}` : id;
    const price = tokenPrice(prices[`${provider}/${id}`]);
    found.get(provider)?.models.push({ id: full, name: id, provider, window: context_window, most: max_output, price });
  }
  return [...found.values()];
}

/** @param {string} project @returns {Promise<any[]>} */
export async function budgets(project) {
  return (await get("/api/budgets/", project)).results;
}

/** A call's id as addresses have it. @param {string} stream */
export const callId = (stream) => stream.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");

/** What became of a call, by the ledger: its tokens and its cost; null while it runs. @param {string} stream @param {string} project */
export async function settled(stream, project) {
  const row = await get(`/api/completions/${callId(stream)}/`, project);
  if (row.state === "running") return null;
  const { prompt_tokens, completion_tokens, total_tokens, cost } = row;
  return prompt_tokens === null ? null : { prompt_tokens, completion_tokens, total_tokens, cost_usd: cost };
}

/** @param {{prompt: string, completion: string} | null | undefined} millions @returns {Price | null} */
function tokenPrice(millions) {
  return millions ? { prompt: Number(millions.prompt) / 1e6, completion: Number(millions.completion) / 1e6 } : null;
}
