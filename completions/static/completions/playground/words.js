/** What went wrong, in words: a title, and what one can do about it. */

import { money, when } from "./format.js";

/**
 * @typedef {{code: string, message: string, retryAfter?: number | null, param?: string | null}} Problem
 * @typedef {{title: string, hint: string, retry: boolean, signIn?: boolean}} Told `retry`: another try may end otherwise.
 */

/** @type {Record<string, [title: string, hint: string, retry: boolean]>} */
const TOLD = {
  budget_exceeded: ["The budget is spent", "Ask for a shorter answer, wait until the budget begins anew, or have it raised.", true],
  model_not_priced: ["This model has no price yet", "A budget with a hard limit cannot pay for it. Staff add prices in the admin.", true],
  rate_limit_exceeded: ["Too many requests at the moment", "The limit frees up by itself.", true],
  model_not_found: ["This model is gone", "It was disabled or renamed. Choose another one.", true],
  context_length_exceeded: ["The conversation is too long for this model", "Remove messages, or choose a model with a larger context window.", true],
  invalid_value: ["The request was refused", "Change the setting that the message names.", true],
  body_too_large: ["The conversation is too large", "Remove messages, or begin a new conversation.", false],
  request_too_large: ["The conversation is too large", "Remove messages, or begin a new conversation.", false],
  permission_denied: ["You may not do this", "Choose another project, or ask staff to add you to one.", true],
  not_authenticated: ["You are signed out", "Sign in again; the conversation is kept in this browser.", true],
  invalid_api_key: ["The hub did not accept your sign-in", "Sign in again; the conversation is kept in this browser.", true],
  connection_failed: ["The hub cannot be reached", "Check your network connection, then try again.", true],
  stream_lost: ["The rest of this answer is lost", "What had come is kept. Nothing was asked again: a new try is a new call.", true],
  call_ended: ["The call was ended", "Nobody had read it for a while, or staff ended it.", true],
  shutting_down: ["The hub is restarting", "It will be back in a moment.", true],
  hub_unavailable: ["The hub cannot take calls now", "Its database is away. Try again in a moment.", true],
  overloaded: ["The hub is busy", "Try again in a moment.", true],
  circuit_open: ["This provider is resting", "It failed several times in a row, and is left alone for a short while.", true],
  server_is_overloaded: ["The provider is overloaded", "Try again in a moment, or choose another model.", true],
  upstream_auth_error: ["The provider refused the hub's key", "Staff can check the provider's key in the admin.", true],
  upstream_unreachable: ["The provider cannot be reached", "Try again in a moment, or choose another model.", true],
  upstream_timeout: ["The provider took too long", "Try again in a moment, or choose another model.", true],
  upstream_truncated: ["The answer broke off", "The provider closed the connection too early. What came is kept, and paid for.", true],
  upstream_invalid: ["The provider answered nonsense", "Try again, or choose another model.", true],
};

/** @param {Problem} problem @returns {Told} */
export function explained({ code, message }) {
  const [title, hint, retry] = TOLD[code] ?? ["That did not work", message ? "" : "The hub gave no reason.", true];
  return { title, hint, retry, signIn: code === "not_authenticated" || code === "invalid_api_key" };
}

/** A message of the hub with its amounts and times as people write them. @param {string} message */
export function readable(message) {
  return message
    .replace(/\$(\d+\.\d+)/g, (_, amount) => money(amount))
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)/g, (moment) => when(moment));
}

/** Seconds to wait, where the hub said so: as a number, or in its message. @param {Problem} problem */
export function waitOf({ code, message, retryAfter }) {
  if (typeof retryAfter === "number") return retryAfter;
  const said = code === "rate_limit_exceeded" && /try again in ((?:[\d.]+(?:ms|s|m|h) ?)+)/i.exec(message);
  if (!said) return null;
  const units = /** @type {Record<string, number>} */ ({ ms: 0.001, s: 1, m: 60, h: 3600 });
  return [...said[1].matchAll(/([\d.]+)(ms|s|m|h)/g)].reduce((sum, [, number, unit]) => sum + Number(number) * units[unit], 0);
}

/** @param {string | null} reason why an answer ended @returns {string} empty where it ended as it should */
export function ending(reason) {
  if (reason === "length") return "Cut off at the longest answer allowed.";
  if (reason === "content_filter") return "Stopped by the provider's content filter.";
  return "";
}
