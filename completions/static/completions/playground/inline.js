/**
 * Markdown within a line, as nodes: emphasis, code, links, line breaks. HTML is text; a link goes nowhere but to
 * http and https; a picture is a link, because loading it would tell another host that the answer was read.
 */

import { h } from "./dom.js";

const SPECIAL = /[\\`*_~[!<\n]|https?:\/\//g;
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}\p{S}]/u;
const MOST_MARKS = 400; // of emphasis in one text; beyond it they are text
const LONGEST_LABEL = 2000;
const DEEPEST = 8;

/**
 * @typedef {{node: Node | string, mark?: string, count?: number, opens?: boolean, closes?: boolean}} Item
 *   A node, or a run of `count` marks that may begin or end emphasis.
 */

/** @param {string} source @param {number} [depth] @returns {(Node | string)[]} */
export function inline(source, depth = 0) {
  /** @type {Item[]} */
  const items = [];
  let plain = "";
  let at = 0;
  const push = (/** @type {Item} */ item) => {
    if (plain) items.push({ node: plain });
    plain = "";
    items.push(item);
  };
  while (at < source.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(source);
    plain += source.slice(at, found?.index);
    if (!found) break;
    at = found.index;
    const read = readers[source[at]]?.(source, at, depth) ?? null;
    if (read === null) {
      plain += source[at++];
      continue;
    }
    if (read.text !== undefined) plain += read.text;
    else push(/** @type {Item} */ (read));
    at = read.end;
  }
  if (plain) items.push({ node: plain });
  return emphasised(items);
}

/** @typedef {Item & {end: number, text?: string} | {text: string, end: number}} Read */
/** @type {Record<string, (source: string, at: number, depth: number) => any>} */
const readers = {
  "\\": (source, at) => {
    const next = source[at + 1];
    if (next === "\n") return { node: h("br"), end: at + 2 };
    return next !== undefined && /[!-/:-@[-`{-~]/.test(next) ? { text: next, end: at + 2 } : null;
  },
  "\n": (source, at) => ({ node: h("br"), end: at + 1 + (/^ +/.exec(source.slice(at + 1, at + 9))?.[0].length ?? 0) }),
  "`": (source, at) => {
    const run = runAt(source, at);
    const close = closing(source, at + run, run);
    if (close < 0) return { text: "`".repeat(run), end: at + run };
    let code = source.slice(at + run, close).replaceAll("\n", " ");
    if (/^ .*[^ ].* $/.test(code)) code = code.slice(1, -1);
    return { node: h("code", null, code), end: close + run };
  },
  "*": marks, "_": marks, "~": marks,
  "[": (source, at, depth) => link(source, at, depth),
  "!": (source, at, depth) => {
    if (source[at + 1] !== "[") return null;
    const read = link(source, at + 1, depth);
    read?.node.classList.add("picture");
    return read;
  },
  "<": (source, at) => {
    const address = /^<(https?:\/\/[^\s<>]{1,2000})>/i.exec(source.slice(at, at + 2010));
    const node = address && anchor(address[1], [address[1]]);
    return node ? { node, end: at + address[0].length } : null;
  },
  h: (source, at) => {
    if (/\w/.test(source[at - 1] ?? "")) return null;
    let address = /^https?:\/\/[^\s<>"'`*]+/i.exec(source.slice(at, at + 2010))?.[0] ?? "";
    for (let last = ""; (last = address.at(-1) ?? "") && /[.,;:!?)\]_~]/.test(last); address = address.slice(0, -1)) {
      if (last === ")" && count(address, "(") >= count(address, ")")) break;
    }
    const node = anchor(address, [address]);
    return node ? { node, end: at + address.length } : null;
  },
};

/** @param {string} source @param {number} at */
function runAt(source, at) {
  let end = at + 1;
  while (source[end] === source[at]) end++;
  return end - at;
}

/** Where a run of exactly `length` backticks begins. @param {string} source @param {number} from @param {number} length */
function closing(source, from, length) {
  for (let at = source.indexOf("`", from); at >= 0; at = source.indexOf("`", at)) {
    const run = runAt(source, at);
    if (run === length) return at;
    at += run;
  }
  return -1;
}

/** @param {string} source @param {number} at */
function marks(source, at) {
  const mark = source[at];
  const count = runAt(source, at);
  if (mark === "~" && count !== 2) return { text: mark.repeat(count), end: at + count };
  const before = source[at - 1] ?? " ", after = source[at + count] ?? " ";
  const left = !/\s/.test(after) && (!PUNCTUATION.test(after) || /\s/.test(before) || PUNCTUATION.test(before));
  const right = !/\s/.test(before) && (!PUNCTUATION.test(before) || /\s/.test(after) || PUNCTUATION.test(after));
  const word = mark === "_"; // within a word it is a letter, as in snake_case
  return {
    node: mark.repeat(count), mark, count, end: at + count,
    opens: left && (!word || !right || PUNCTUATION.test(before)),
    closes: right && (!word || !left || PUNCTUATION.test(after)),
  };
}

/** @param {string} source @param {number} at of the bracket @param {number} depth */
function link(source, at, depth) {
  if (depth >= DEEPEST) return null;
  let open = 0, end = at;
  for (; end < source.length && end - at < LONGEST_LABEL; end++) {
    if (source[end] === "\\") end++;
    else if (source[end] === "[") open++;
    else if (source[end] === "]" && --open === 0) break;
  }
  if (source[end] !== "]" || source[end + 1] !== "(") return null;
  const rest = source.slice(end + 2, end + 2 + LONGEST_LABEL);
  const target = /^\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\([^\s()]*\))*))(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)/.exec(rest);
  if (!target) return null;
  const label = source.slice(at + 1, end);
  const node = anchor(target[1] ?? target[2] ?? "", label ? inline(label, depth + 1) : [target[1] ?? target[2]]);
  return node ? { node, end: end + 2 + target[0].length } : null;
}

/** A link that leaves without a trace; null where the address is none of the web's. @param {string} address @param {(Node | string)[]} label */
function anchor(address, label) {
  if (!/^https?:\/\/[^/]/i.test(address)) return null;
  try {
    const url = new URL(address);
    if (url.protocol !== "http:" && url.protocol !== "https:") return null;
    return h("a", { href: url.href, rel: "noopener noreferrer nofollow", target: "_blank", title: url.href }, ...label);
  } catch {
    return null;
  }
}

/** @param {string} text @param {string} letter */
function count(text, letter) {
  return text.split(letter).length - 1;
}

/** Runs of marks become emphasis, as CommonMark pairs them. @param {Item[]} items @returns {(Node | string)[]} */
function emphasised(items) {
  if (items.filter((item) => item.mark).length > MOST_MARKS) return items.map((item) => item.node);
  for (let closer = 0; closer < items.length; closer++) {
    const end = items[closer];
    if (!end.mark || !end.closes) continue;
    const opener = openerOf(items, closer);
    if (opener < 0) continue;
    const begin = items[opener];
    const both = Math.min(begin.count ?? 0, end.count ?? 0, 2);
    const tag = end.mark === "~" ? "s" : both === 2 ? "strong" : "em";
    const inner = items.splice(opener + 1, closer - opener - 1).map((item) => item.node);
    items.splice(opener + 1, 0, { node: h(tag, null, ...inner) });
    for (const run of [begin, end]) {
      run.count = (run.count ?? 0) - both;
      run.node = (run.mark ?? "").repeat(run.count);
    }
    const last = opener + 2;
    if (!end.count) items.splice(last, 1);
    if (!begin.count) items.splice(opener, 1);
    closer = Math.max(-1, opener - 1); // what is left of both may pair again
  }
  return items.map((item) => item.node);
}

/** @param {Item[]} items @param {number} closer */
function openerOf(items, closer) {
  const end = items[closer];
  for (let at = closer - 1; at >= 0; at--) {
    const item = items[at];
    if (item.mark !== end.mark || !item.opens || !item.count) continue;
    const odd = (item.closes || end.opens) && ((item.count ?? 0) + (end.count ?? 0)) % 3 === 0;
    if (!odd || ((item.count ?? 0) % 3 === 0 && (end.count ?? 0) % 3 === 0)) return at;
  }
  return -1;
}
