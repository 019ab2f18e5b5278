/**
 * Markdown as it streams in: blocks that are complete keep their elements, only the last one is made anew. The text
 * is never parsed as HTML: see inline.js for what a line may become.
 */

import { copyButton, h } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^( *)(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)(.*)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-+*]|\d{1,9}[.)])(?:([ \t]+)(.*))?$/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const LONGEST_MARK = 1000; // of a line that begins code or a table: longer ones would take long to look at
const DEEPEST = 10; // lists in quotes in lists …

/**
 * @typedef {{type: string, source: string, [fact: string]: any}} Block `source`: the lines it was made of.
 * @typedef {{lines: string[], at: number}} Cursor
 */

/** A part of the page that shows a text that grows. */
export class Markdown {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    /** @type {Block[]} */
    this.blocks = [];
  }

  /** @param {string} text all of it so far @param {boolean} [growing] more may come */
  show(text, growing = false) {
    const fresh = blocks(growing ? whole(text) : text);
    let same = 0;
    while (same < fresh.length && this.blocks[same]?.source === fresh[same].source && this.blocks[same].type === fresh[same].type) same++;
    const [old, next] = [this.blocks[same], fresh[same]];
    if (next?.type === "code" && old?.type === "code" && old.language === next.language) {
      const code = this.element.children[same].querySelector("code");
      if (code) code.textContent = next.code; // the figure stays, and how far it was scrolled
      same++;
    }
    while (this.element.children.length > same) this.element.lastElementChild?.remove();
    this.element.append(...fresh.slice(same).map((block) => rendered(block, 0)));
    this.blocks = fresh;
  }
}

/** The text with what was begun in its last line ended, so that marks do not flicker. @param {string} text */
function whole(text) {
  const line = text.slice(text.lastIndexOf("\n") + 1);
  if (line.length > 2000 || /^\s*(`{3,}|~{3,})/.test(line)) return text;
  if ((line.match(/`+/g) ?? []).length % 2) return text + (line.match(/`+/g) ?? []).at(-1);
  const bare = line.replace(/`+[^`]*`+/g, "");
  return (bare.match(/\*\*/g) ?? []).length % 2 && /\*\*[^\s*]/.test(bare) ? `${text.trimEnd()}**` : text;
}

/** @param {string} text @returns {Block[]} */
export function blocks(text) {
  const cursor = { lines: text.replaceAll("\r\n", "\n").split("\n"), at: 0 };
  const found = [];
  while (cursor.at < cursor.lines.length) {
    if (!cursor.lines[cursor.at].trim()) {
      cursor.at++;
      continue;
    }
    const from = cursor.at;
    const block = (fence(cursor) ?? heading(cursor) ?? rule(cursor) ?? quote(cursor) ?? list(cursor) ?? table(cursor)
      ?? paragraph(cursor));
    found.push({ ...block, source: cursor.lines.slice(from, cursor.at).join("\n") });
  }
  return found;
}

/** @param {Cursor} cursor */
function fence(cursor) {
  const opened = fenceOf(cursor.lines[cursor.at]);
  if (!opened) return null;
  const [, indent, marks, info] = opened;
  const code = [];
  while (++cursor.at < cursor.lines.length) {
    const line = cursor.lines[cursor.at];
    const closed = fenceOf(line);
    if (closed && closed[2][0] === marks[0] && closed[2].length >= marks.length && !closed[3].trim()) {
      cursor.at++;
      break;
    }
    code.push(line.slice(Math.min(indent.length, line.length - line.trimStart().length)));
  }
  return { type: "code", language: info.trim().split(/\s/)[0].slice(0, 30), code: code.join("\n") };
}

/** @param {string} line */
function fenceOf(line) {
  return line.length < LONGEST_MARK ? FENCE.exec(line) : null;
}

/** @param {Cursor} cursor */
function heading(cursor) {
  const found = HEADING.exec(cursor.lines[cursor.at]);
  if (!found) return null;
  cursor.at++;
  return { type: "heading", level: found[1].length, text: found[2].trim().replace(/(^|[ \t])#+$/, "") };
}

/** @param {Cursor} cursor */
function rule(cursor) {
  if (!RULE.test(cursor.lines[cursor.at])) return null;
  cursor.at++;
  return { type: "rule" };
}

/** @param {Cursor} cursor */
function quote(cursor) {
  if (!QUOTE.test(cursor.lines[cursor.at])) return null;
  const inner = [];
  for (; cursor.at < cursor.lines.length; cursor.at++) {
    const line = cursor.lines[cursor.at];
    if (!QUOTE.test(line) && (!line.trim() || begins(cursor, cursor.at))) break;
    inner.push(line.replace(QUOTE, ""));
  }
  return { type: "quote", inner: inner.join("\n") };
}

/** @param {Cursor} cursor */
function list(cursor) {
  const first = ITEM.exec(cursor.lines[cursor.at]);
  if (!first || first[1].length > 3) return null;
  const ordered = /\d/.test(first[2]);
  /** @type {string[][]} */
  const items = [];
  let width = 0, loose = false, blank = false;
  for (; cursor.at < cursor.lines.length; cursor.at++) {
    const line = cursor.lines[cursor.at];
    const indent = line.length - line.trimStart().length;
    if (!line.trim()) {
      if (blank) break;
      blank = true;
      continue;
    }
    const item = ITEM.exec(line);
    const inside = items.length > 0 && indent >= (item ? Math.min(width, first[1].length + 2) : blank ? Math.min(width, 2) : width);
    if (inside) {
      if (blank) items.at(-1)?.push("");
      loose ||= blank && !item;
      items.at(-1)?.push(line.slice(Math.min(indent, width)));
    } else if (item && /\d/.test(item[2]) === ordered && (ordered || item[2] === first[2]) && !RULE.test(line)) {
      width = item[1].length + item[2].length + Math.min(item[3]?.length ?? 1, 4);
      loose ||= blank && items.length > 0;
      items.push([item[4] ?? ""]);
    } else if (!items.length || blank || begins(cursor, cursor.at)) {
      break;
    } else {
      items.at(-1)?.push(line.trimStart()); // a paragraph goes on without its indent
    }
    blank = false;
  }
  if (!items.length) return null;
  return { type: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, items: items.map((one) => one.join("\n")), loose };
}

/** @param {Cursor} cursor */
function table(cursor) {
  if (!isTable(cursor, cursor.at)) return null;
  const head = cells(cursor.lines[cursor.at]);
  const sides = cells(cursor.lines[cursor.at + 1]).map((cell) => {
    const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
    return left && right ? "middle" : right ? "right" : null;
  });
  const rows = [];
  cursor.at += 2;
  while (cursor.at < cursor.lines.length && cursor.lines[cursor.at].includes("|")) rows.push(cells(cursor.lines[cursor.at++]));
  return { type: "table", head, sides, rows };
}

/** @param {Cursor} cursor @param {number} at */
function isTable({ lines }, at) {
  const next = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || next.length > LONGEST_MARK || !DIVIDER.test(next)) return false;
  return cells(lines[at]).length === cells(lines[at + 1]).length;
}

/** @param {string} line */
function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @param {Cursor} cursor */
function paragraph(cursor) {
  const lines = [cursor.lines[cursor.at++].trimStart()];
  while (cursor.at < cursor.lines.length && cursor.lines[cursor.at].trim() && !begins(cursor, cursor.at)) {
    lines.push(cursor.lines[cursor.at++].trimStart());
  }
  return { type: "paragraph", text: lines.join("\n").trimEnd() };
}

/** Whether a line ends a paragraph by beginning something else. @param {Cursor} cursor @param {number} at */
function begins(cursor, at) {
  const line = cursor.lines[at];
  const item = ITEM.exec(line);
  return fenceOf(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)
    || (item !== null && Boolean(item[4]) && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1)) || isTable(cursor, at);
}

// --- elements

/** @param {Block} block @param {number} depth @returns {HTMLElement} */
function rendered(block, depth) {
  if (depth > DEEPEST) return h("p", { dir: "auto" }, block.source);
  if (block.type === "code") return codeFigure(block);
  if (block.type === "heading") return h(`h${Math.min(6, block.level + 2)}`, { class: `level-${block.level}`, dir: "auto" }, ...inline(block.text));
  if (block.type === "rule") return h("hr");
  if (block.type === "quote") return h("blockquote", { dir: "auto" }, ...blocks(block.inner).map((one) => rendered(one, depth + 1)));
  if (block.type === "table") return tableOf(block);
  if (block.type === "list") {
    const facts = block.ordered && block.start !== 1 ? { start: block.start } : null;
    return h(block.ordered ? "ol" : "ul", facts, ...block.items.map((/** @type {string} */ item) => itemOf(item, block.loose, depth)));
  }
  return h("p", { dir: "auto" }, ...inline(block.text));
}

/** @param {string} source @param {boolean} loose @param {number} depth */
function itemOf(source, loose, depth) {
  const task = /^\[([ xX])\]\s+/.exec(source);
  const inner = blocks(task ? source.slice(task[0].length) : source);
  const box = task && h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": task[1] === " " ? "open" : "done" });
  const nodes = inner.flatMap((one) => (one.type === "paragraph" && !loose ? inline(one.text) : [rendered(one, depth + 1)]));
  return h("li", { dir: "auto", class: task && "task" }, box, ...nodes);
}

/** @param {Block} block */
function codeFigure(block) {
  const code = h("code", null, block.code);
  const button = copyButton(() => code.textContent ?? "", "Copy the code", "Copy");
  const caption = h("figcaption", null, h("span", null, block.language || "text"), button);
  return h("figure", { class: "block" }, caption, h("pre", { tabindex: 0, role: "group", "aria-label": `Code, ${block.language || "text"}` }, code));
}

/** @param {Block} block */
function tableOf({ head, sides, rows }) {
  const row = (/** @type {string} */ tag, /** @type {string[]} */ texts) =>
    h("tr", null, ...head.map((/** @type {string} */ _, /** @type {number} */ at) => h(tag, { class: sides[at], dir: "auto", scope: tag === "th" ? "col" : null }, ...inline(texts[at] ?? ""))));
  const body = h("tbody", null, ...rows.map((/** @type {string[]} */ one) => row("td", one)));
  return h("div", { class: "table", tabindex: 0, role: "group", "aria-label": "Table" }, h("table", null, h("thead", null, row("th", head)), body));
}
