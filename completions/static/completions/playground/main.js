/** The playground: its parts, and what they do to one another. */

import * as api from "./api.js";
import { Announcer } from "./announcer.js";
import { Budgets } from "./budget.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, h, icon } from "./dom.js";
import { empty, signedOut } from "./empty.js";
import { Inspector } from "./inspector.js";
import { Panes } from "./panes.js";
import { Runner } from "./runner.js";
import { Settings } from "./settings.js";
import { Store, isRunning, newId } from "./store.js";
import { Toast } from "./toast.js";
import { explained } from "./words.js";

/**
 * @typedef {import("./store.js").Reply} Reply
 * @typedef {import("./store.js").Turn} Turn
 * @typedef {{slug: string, name: string, mine: boolean}} Project
 */

const SETTLED_MS = [300, 1000, 4000]; // until a call that ended early is in the ledger, at the best and the worst
/** @type {{user: number, projects: Project[], call_url: string | null, add_provider_url: string | null, sign_in_url: string}} */
const facts = JSON.parse(byId("facts").textContent);
const toast = new Toast();
const store = new Store(facts.user, (problem) => toast.show(problem), forgotten);
const announcer = new Announcer();
const budgets = new Budgets();
const inspector = new Inspector(facts.call_url);
const settings = new Settings(store);
const panes = new Panes(byId("panes"), byId("compare"), store, panesChanged);
const runner = new Runner(store, replyChanged, replyEnded, connected);
const composer = new Composer(store, { send, stop: () => runner.stopAll(), canAsk: () => lastUnanswered() !== null, check: () => settings.check() });
const conversation = new Conversation(byId("turns"), byId("scroll"), byId("latest"), {
  retry: (reply) => retry(reply),
  inspect: (reply) => inspector.open(reply),
  stop: (reply) => runner.stop(reply),
  price: (model) => panes.model(model)?.price ?? null,
  provider: (slug) => panes.providers?.find((one) => one.slug === slug)?.name ?? slug,
  edit,
  remove: (turn) => change(store.state.turns.filter((one) => one !== turn), "Message removed"),
  signIn: facts.sign_in_url,
});

// --- what people do

/** @param {string} role @param {string} content @param {boolean} ask */
function send(role, content, ask) {
  toast.close();
  if (content.trim()) store.state.turns.push({ id: newId(), role, content, replies: [] });
  const turn = store.state.turns.at(-1);
  if (ask && turn) askAll(turn);
  refresh();
  conversation.follow();
}

/** @param {Turn} turn */
function askAll(turn) {
  store.state.panes.forEach((model, pane) => { if (model) runner.ask(turn, pane, model); });
}

/** @param {Reply} reply */
function retry(reply) {
  const turn = store.state.turns.find((one) => one.replies.includes(reply));
  if (!turn || !settings.check()) return;
  const another = reply.state === "done" ? "refresh" : undefined; // who has an answer wants not the same from the cache
  runner.ask(turn, reply.pane, store.state.panes[reply.pane] ?? reply.model, reply, another);
  refresh();
}

/** Gives whether the change was taken. @param {Turn} turn @param {string} role @param {string} content @param {boolean} ask */
function edit(turn, role, content, ask) {
  if (ask && !settings.check()) return false;
  if (ask) {
    const before = store.state.turns.slice(0, store.state.turns.indexOf(turn));
    const isLast = before.length === store.state.turns.length - 1;
    /** @type {Turn} another one, so that Undo can bring the old one back */
    const changed = { id: newId(), role, content, replies: [] };
    change([...before, changed], isLast ? "Message changed" : "Message changed, and those after it removed");
    askAll(changed);
    conversation.follow();
  } else {
    Object.assign(turn, { role, content });
  }
  store.changed();
  refresh();
  return true;
}

/** Have these messages from now on, until that is undone. @param {Turn[]} turns @param {string} said */
function change(turns, said) {
  const before = store.state.turns;
  put(turns);
  composer.focus();
  toast.show(said, () => {
    put(before);
    conversation.follow();
  });
}

/** Show these messages, and stop what answers others; but not what another tab asked. @param {Turn[]} turns */
function put(turns) {
  const running = store.replies.filter(isRunning);
  store.state.turns = turns;
  const kept = new Set(store.replies);
  for (const reply of running) if (!kept.has(reply) && !store.borrowed.has(reply.id)) runner.stop(reply);
  store.changed();
  refresh();
}

/** @param {boolean} [closed] one was: what was removed before still has the old numbers, and cannot come back */
function panesChanged(closed) {
  if (closed) toast.close();
  store.changed();
  refresh();
}

/** Another tab signed out. */
function forgotten() {
  const running = store.replies.filter(isRunning);
  store.forget();
  for (const reply of running) runner.stop(reply);
  toast.hide();
  if (byId("inspector").open) byId("inspector").close();
  byId("draft").value = "";
  settings.show();
  panes.none();
  composer.close();
  signedOut(byId("empty"), facts.sign_in_url);
  announcer.say("You are signed out.");
  notice("", "");
  refresh();
}

function lastUnanswered() {
  const turn = store.state.turns.at(-1);
  return turn && !turn.replies.length ? turn : null;
}

// --- what comes in

/** @param {Reply} reply */
function replyChanged(reply) {
  conversation.touch(reply);
  if (reply.state === "streaming" && isShown(reply)) announcer.follow(reply, store.replies.filter(isRunning).length === 1);
}

/** Its message was not removed meanwhile. @param {Reply} reply */
const isShown = (reply) => store.replies.includes(reply);

/** @param {Reply} reply */
function replyEnded(reply) {
  if (store.isForgotten) return;
  if (isShown(reply)) announcer.end(reply, !store.isRunning);
  refresh();
  if (!store.isRunning) budgets.load(store.state.project);
  if (reply.state !== "done" && reply.place) setTimeout(() => lookUp(reply, 0), SETTLED_MS[0]);
}

/** A call that was stopped or broke off is paid for too: the ledger knows what. @param {Reply} reply @param {number} tries */
async function lookUp(reply, tries) {
  const { place, project } = reply;
  reply.usage ??= place && await api.settled(place.stream, project).catch(() => null);
  if (!reply.usage && ++tries < SETTLED_MS.length) return setTimeout(() => lookUp(reply, tries), SETTLED_MS[tries]);
  replyChanged(reply);
  store.changed();
  budgets.load(store.state.project);
}

/** @param {import("../llmhub-client.js").Connection} connection */
function connected({ state }) {
  const running = store.replies.filter(isRunning);
  if (state === "waiting" && running.length) {
    const goesOn = running.some((reply) => reply.place);
    notice(goesOn ? "The connection is lost. The answer goes on at the hub, and comes when the connection is back."
      : "The hub cannot be reached at the moment. The question is sent as soon as it can.", "lost");
  } else if (state !== "connecting" && byId("notice").classList.contains("lost")) {
    notice("", "");
  }
}

// --- what is shown

function refresh() {
  const { turns } = store.state;
  conversation.show(turns);
  byId("empty").hidden = turns.length > 0;
  byId("clear").hidden = turns.length === 0;
  document.body.classList.toggle("comparing", store.state.panes.length > 1 || turns.some((turn) => turn.replies.length > 1));
  composer.refresh(store.isRunning, panes.all.length > 0);
}

/** @param {string} text @param {string} kind @param {...(Node | false)} more */
function notice(text, kind, ...more) {
  const element = byId("notice");
  element.hidden = !text;
  element.className = `notice ${kind}`;
  element.replaceChildren(...(text ? [icon("wrong"), h("span", null, text), ...more.filter((one) => one !== false)] : []));
}

/** @param {any} problem */
function complain(problem) {
  const { title, hint, signIn } = explained(problem);
  const text = [title, problem.message, hint].filter(Boolean).map((one) => one.replace(/\.$/, "")).join(". ");
  notice(`${text}.`, "bad", signIn ? h("a", { href: facts.sign_in_url }, "Sign in") : h("button", { type: "button", class: "tool", on: { click: load } }, "Try again"));
}

/** The project that pays: theirs to choose where there are several. */
function showProjects() {
  const { projects } = facts;
  if (!projects.some(({ slug }) => slug === store.state.project)) store.state.project = projects[0]?.slug ?? "";
  const option = (/** @type {Project} */ { slug, name }) => h("option", { value: slug, selected: slug === store.state.project }, name);
  const mine = projects.filter((one) => one.mine), others = projects.filter((one) => !one.mine);
  if (projects.length < 2) return byId("project").replaceChildren(projects[0] ? h("span", { class: "payer-name", title: "The project that pays" }, projects[0].name) : "");
  const groups = mine.length && others.length
    ? [h("optgroup", { label: "Your projects" }, ...mine.map(option)), h("optgroup", { label: "Other projects" }, ...others.map(option))]
    : projects.map(option);
  const select = h("select", { "aria-label": "The project that pays", title: "The project that pays" }, ...groups);
  select.addEventListener("change", () => {
    store.state.project = select.value;
    store.changed();
    load();
  });
  byId("project").replaceChildren(select);
}

async function load() {
  notice("", "");
  budgets.load(store.state.project);
  try {
    await panes.load();
    empty(byId("empty"), panes.all.length > 0, facts.add_provider_url, (text) => settings.check() && send("user", text, true));
  } catch (problem) {
    complain(problem);
  }
  store.changed();
  refresh();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !byId("inspector").open && store.isRunning) runner.stopAll();
});
byId("who").addEventListener("submit", () => store.forget());
byId("clear").append(icon("new"), "New");
byId("clear").title = "Begin a new conversation";
byId("clear").addEventListener("click", () => change([], "Conversation cleared"));
byId("compare").append(icon("columns"), "Compare");
byId("compare").title = "Ask one more model the same";
byId("open-settings").append(icon("sliders"), "Settings");
byId("latest").prepend(icon("down"));

showProjects();
refresh();
runner.resume();
conversation.follow();
if (facts.projects.length) {
  load();
} else {
  panes.none();
  composer.close();
  notice("You are a member of no project, so nobody pays for your calls. Ask staff to add you to one.", "bad");
}
