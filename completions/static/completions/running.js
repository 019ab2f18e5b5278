/** Keeps the page of running calls up to date, and ends a call without leaving it. Without it, the page reloads. */

const EVERY_MS = 2000;

const page = element("running");
const rows = element("running-rows");
const told = element("running-told");
const pause = element("running-pause");
let paused = false;
let asking = false;
/** @type {Date} when it was last seen as it is */
let seen = new Date();

pause.hidden = false;
element("running-reload").hidden = true;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Go on" : "Pause";
  refresh();
});
document.addEventListener("visibilitychange", refresh);
rows.addEventListener("click", (event) => {
  const link = /** @type {Element} */ (event.target).closest("a.hub-end");
  if (!(link instanceof HTMLAnchorElement)) return;
  event.preventDefault();
  end(link);
});
setInterval(refresh, EVERY_MS);

async function refresh() {
  if (paused || asking || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch(page.dataset.rows ?? "", { headers: { Accept: "text/html" } });
    if (answer.redirected || answer.status === 403) return location.reload(); // signed out
    if (!answer.ok) throw new Error(`The hub answered ${answer.status}.`);
    show(new DOMParser().parseFromString(await answer.text(), "text/html").body);
    seen = new Date();
    if (told.dataset.kind === "lost") say("");
  } catch {
    say(`The hub cannot be reached: this is as of ${seen.toLocaleTimeString()}.`, "lost");
  } finally {
    asking = false;
  }
}

/** Put in place what changed, and nothing else: where the focus is, it stays. @param {HTMLElement} fresh */
function show(fresh) {
  const before = new Map([...rows.querySelectorAll("tbody tr")].map((row) => [row.id, row]));
  const body = rows.querySelector("tbody");
  const count = fresh.querySelector("#running-count");
  const old = rows.querySelector("#running-count");
  if (count && old && count.textContent !== old.textContent) old.replaceWith(count);
  for (const row of fresh.querySelectorAll("tbody tr")) {
    const mine = before.get(row.id);
    if (mine === undefined) body?.append(row);
    else update(mine, row);
    before.delete(row.id);
  }
  for (const row of before.values()) row.remove();
}

/** @param {Element} row @param {Element} fresh */
function update(row, fresh) {
  [...fresh.children].forEach((cell, index) => {
    const mine = row.children[index];
    if (mine && mine.innerHTML !== cell.innerHTML && !mine.contains(document.activeElement)) mine.replaceWith(cell);
  });
}

/** @param {HTMLAnchorElement} link */
async function end(link) {
  if (!confirm(`End the call to ${link.dataset.name}? What came of its answer is billed; its caller gets an error.`)) return;
  link.setAttribute("aria-disabled", "true");
  const token = /** @type {HTMLInputElement | null} */ (page.querySelector("[name=csrfmiddlewaretoken]"))?.value ?? "";
  try {
    const headers = { Accept: "application/json", "X-CSRFToken": token };
    const answer = await fetch(link.href, { method: "POST", headers });
    if (!answer.ok) throw new Error(`The hub answered ${answer.status}.`);
    say((await answer.json()).told);
  } catch (error) {
    say(`It could not be ended. ${error instanceof Error ? error.message : error}`);
  } finally {
    link.removeAttribute("aria-disabled");
    link.blur();
    refresh();
  }
}

/** @param {string} text @param {string} [kind] */
function say(text, kind = "") {
  told.textContent = text;
  told.hidden = !text;
  told.dataset.kind = kind;
}

/** @param {string} id @returns {HTMLElement} */
function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`This page has no ${id}.`);
  return found;
}
