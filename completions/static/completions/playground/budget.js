/** What is left of the budgets that pay for these calls. */

import * as api from "./api.js";
import { byId, h } from "./dom.js";
import { money, when } from "./format.js";

const PERIODS = /** @type {Record<string, string>} */ ({ day: "today", week: "this week", month: "this month", total: "in all" });

export class Budgets {
  constructor() {
    this.details = byId("budget");
    this.asked = 0;
    document.addEventListener("click", (event) => {
      if (this.details.open && !this.details.contains(/** @type {Node} */ (event.target))) this.details.open = false;
    });
    this.details.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || !this.details.open) return;
      event.stopPropagation();
      this.details.open = false;
      this.details.querySelector("summary").focus();
    });
  }

  /** @param {string} project */
  async load(project) {
    const asked = ++this.asked;
    try {
      const found = await api.budgets(project);
      if (asked === this.asked) this.show(found.filter((one) => !one.per_end_user && one.scope === "project"));
    } catch {
      // The next answer asks again; what is shown is what was last known.
    }
  }

  /** @param {any[]} found */
  show(found) {
    this.details.hidden = !found.length;
    if (!found.length) return;
    const tightest = [...found].sort((one, other) => Number(other.hard) - Number(one.hard) || share(one) - share(other))[0];
    byId("budget-left").textContent = Number(tightest.left) > 0 ? `${money(tightest.left)} left` : "Budget spent";
    this.details.dataset.level = level(tightest);
    gauge(byId("budget-gauge"), tightest);
    byId("budgets").replaceChildren(h("h2", null, "Budgets of this project"), ...found.map(row));
  }
}

/** @param {any} budget @returns {number} what is left, from 0 to 1 */
const share = (budget) => Number(budget.left) / (Number(budget.amount) || 1);

/** @param {any} budget */
const level = (budget) => (share(budget) <= 0 ? "spent" : share(budget) < 0.2 ? "low" : "good");

/** @param {any} element @param {any} budget */
function gauge(element, budget) {
  element.style.setProperty("--part", `${Math.min(1, share(budget)) * 100}%`);
  element.dataset.level = level(budget);
}

/** @param {any} budget */
function row(budget) {
  const bar = h("span", { class: "gauge" });
  gauge(bar, budget);
  const held = Number(budget.held) > 0 ? `, ${money(budget.held)} held for running calls` : "";
  const then = budget.resets_at ? ` Begins anew: ${when(budget.resets_at)}.` : "";
  return h(
    "div", { class: "budget-row" },
    h("p", null, h("strong", null, `${money(budget.left)} left`), ` of ${money(budget.amount)} ${PERIODS[budget.period]}`), bar,
    h("p", { class: "meaning" }, `${money(budget.spent)} spent${held}. ${budget.hard ? "Calls beyond it are refused." : "It only alerts."}${then}`),
  );
}
