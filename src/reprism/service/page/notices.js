// What the page says of itself: how things stand, and what went wrong, each in its one place.

import { Problem } from "./service.js";
import { askForToken } from "./tokens.js";

const $ = (id) => document.getElementById(id);

export function say(words) {
  $("error").hidden = true;
  $("status").textContent = words;
}

/** Tell of a problem; ``again`` is what "Try again" does, where that may help. */
export function fail(problem, again = null) {
  const known = problem instanceof Problem;
  say("");
  $("error").hidden = false;
  $("error-words").textContent = known ? problem.message : `The page failed: ${problem.message}`;
  $("retry").hidden = !(known && problem.retry && again);
  $("retry").onclick = again;
  if (problem.status === 401) askForToken();
}
