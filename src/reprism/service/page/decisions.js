// What somebody decides about people, and how it is taken back.

import { fail, say } from "./notices.js";
import { takeBack } from "./people_api.js";

const $ = (id) => document.getElementById(id);

/**
 * Decide something, say so, and offer to undo it.
 *
 * @param {() => Promise<import("./people_api.js").Decided>} decide
 * @param {(changes: import("./people_api.js").Change[]) => string} wordsOf says what came of it
 * @param {(changes: import("./people_api.js").Change[]) => unknown} refresh shows the people anew, after undoing too
 */
export async function decideAndSay(decide, wordsOf, refresh) {
  say("…");
  offerUndo(null);
  try {
    const { answer, changes } = await decide();
    await refresh(changes);
    say(wordsOf(changes));
    offerUndo(async () => {
      offerUndo(null);
      try {
        const back = await takeBack(answer.number);
        await refresh(back.changes);
        say("Taken back.");
      } catch (problem) {
        fail(problem);
      }
    });
  } catch (problem) {
    fail(problem);
  }
}

/** Offer to undo the last decision; null: no more. */
export function offerUndo(undo) {
  $("undo").hidden = !undo;
  $("undo").onclick = undo;
}

/**
 * Say how people changed.
 *
 * @param {import("./people_api.js").Change} change
 */
export function wordsOfChange({ kind, before, after, rows }) {
  const sights = rows.length === 1 ? "1 sight" : `${rows.length.toLocaleString()} sights`;
  if (kind === "merge") return `Person ${before} became one with person ${after}.`;
  if (kind === "split") return `${sights} of person ${before} became person ${after}.`;
  return `${sights} went from person ${before} to person ${after}.`;
}
