/** Numbers as people read them. */

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** @param {number} number */
export const count = (number) => whole.format(number);

/** Dollars, as many digits as it takes: $12.34, $0.0123, $0.000058. @param {number | string} dollars */
export function money(dollars) {
  const amount = Number(dollars);
  if (amount === 0) return "$0";
  if (Math.abs(amount) >= 0.995) return `$${amount.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  const digits = Math.min(9, 2 - Math.floor(Math.log10(Math.abs(amount))));
  return `$${amount.toFixed(digits).replace(/(\.\d\d\d*?)0+$/, "$1")}`;
}

/** @param {number} ms */
export function seconds(ms) {
  if (ms < 995) return `${Math.round(ms)} ms`;
  return ms < 99_500 ? `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s` : span(ms / 1000);
}

/** A wait: 42 s, 3 min, 2 h. @param {number} time in seconds */
export function span(time) {
  if (time < 100) return `${Math.max(1, Math.ceil(time))} s`;
  return time < 5400 ? `${Math.round(time / 60)} min` : `${Math.round(time / 3600)} h`;
}

/** 128k, 1M. @param {number} tokens */
export function size(tokens) {
  const round = (/** @type {number} */ number) => number.toLocaleString("en-US", { maximumFractionDigits: number < 10 ? 1 : 0 });
  if (tokens >= 1e6) return `${round(tokens / 1e6)}M`;
  return tokens >= 1000 ? `${round(tokens / (tokens % 1024 ? 1000 : 1024))}k` : String(tokens);
}

/** Tokens of a text, roughly: about four letters each, of scripts without an alphabet about one. @param {string} text */
export function roughTokens(text) {
  const dense = (text.match(/[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]/g) ?? []).length;
  return Math.ceil((text.length - dense) / 4 + dense);
}

/** @param {string | null} moment ISO 8601 */
export function when(moment) {
  if (!moment) return "never";
  const date = new Date(moment);
  const today = date.toDateString() === new Date().toDateString();
  const time = { hour: "2-digit", minute: "2-digit" };
  const format = today ? time : { day: "numeric", month: "short", ...(date.getTime() - Date.now() < 6e8 ? time : {}) };
  return date.toLocaleString([], /** @type {any} */ (format));
}
