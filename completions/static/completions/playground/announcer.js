/** What a screen reader hears: that an answer began, its sentences every few seconds, and how it ended. */

import { byId } from "./dom.js";
import { explained, readable } from "./words.js";

/** @typedef {import("./store.js").Reply} Reply */

const PAUSE_MS = 4000;

export class Announcer {
  constructor() {
    this.element = byId("announcer");
    /** @type {Map<string, {told: number, at: number}>} by reply: letters that were told, and when */
    this.followed = new Map();
  }

  /** @param {string} text */
  say(text) {
    this.element.textContent = text;
  }

  /** A reply goes on. @param {Reply} reply @param {boolean} alone it is the only one that runs */
  follow(reply, alone) {
    const known = this.followed.get(reply.id);
    if (!known) {
      this.followed.set(reply.id, { told: reply.text.length, at: Date.now() });
      this.say(`${reply.model} is answering.`);
    } else if (alone && Date.now() - known.at > PAUSE_MS) {
      const end = lastSentence(reply.text);
      if (end <= known.told) return;
      this.say(spoken(reply.text.slice(known.told, end)));
      Object.assign(known, { told: end, at: Date.now() });
    }
  }

  /** @param {Reply} reply @param {boolean} alone */
  end(reply, alone) {
    const told = this.followed.get(reply.id)?.told ?? 0;
    this.followed.delete(reply.id);
    if (reply.problem) {
      const { title, hint } = explained(reply.problem);
      this.say(`${reply.model}: ${title}. ${readable(reply.problem.message)} ${hint}`);
    } else if (reply.state === "stopped") {
      this.say(`${reply.model} was stopped.`);
    } else {
      this.say(`${alone ? spoken(reply.text.slice(told)) : ""} Answer of ${reply.model} complete.`);
    }
  }
}

/** Where the last whole sentence ends. @param {string} text */
function lastSentence(text) {
  const ends = [...text.matchAll(/[.!?:][)"'*_]*\s|\n/g)];
  const last = ends.at(-1);
  return last ? last.index + last[0].length : 0;
}

/** Without what only the eye wants. @param {string} text */
function spoken(text) {
  return text.replace(/```[\s\S]*?(```|$)/g, " A block of code. ").replace(/[*_`#|>]+/g, " ").replace(/\s+/g, " ").trim();
}
