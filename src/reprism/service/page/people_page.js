// The page of people who were linked from camera to camera. Which view it shows is in its address, after the #.
// What the service says, names of cameras included, enters the page as text only.

import { showCameras } from "./cameras.js";
import { showAnswers, showChanges } from "./changes.js";
import { offerUndo } from "./decisions.js";
import { fail, say } from "./notices.js";
import { onMore, showPeople } from "./people.js";
import { showPerson } from "./person.js";
import { clearReview, showReview } from "./review.js";
import { ask } from "./service.js";
import { pictures } from "./sights.js";
import { askForToken, offerToken, onToken } from "./tokens.js";

const VIEWS = {
  people: showPeople, person: showPerson, review: showReview, cameras: showCameras, changes: showChanges,
  answers: showAnswers,
};

const $ = (id) => document.getElementById(id);

let session = { scopes: [], tokens: false, cameras: [], people: false };
let running = new AbortController(); // of what the view asks

/** Show the view that the address names, as in ``#person=7`` or ``#people&camera=gate``; others: the people. */
async function go() {
  running.abort();
  const mine = (running = new AbortController());
  const place = new URLSearchParams(location.hash.slice(1));
  const [named, id] = place.entries().next().value ?? ["people", ""];
  const view = Object.hasOwn(VIEWS, named) ? named : "people";
  if (!session.people) {
    show("none");
    return;
  }
  say("Loading …");
  offerUndo(null);
  try {
    // Before it is filled: a drawing wants to know how wide it may be.
    show(view);
    await VIEWS[view](id, place, session, mine.signal);
    if (mine === running) say("");
  } catch (problem) {
    if (mine.signal.aborted) return; // another view was asked for
    if (problem.status === 404) show("none");
    fail(problem, go);
  }
}

function show(view) {
  for (const node of document.querySelectorAll("main")) node.hidden = node.id !== `${view}-view`;
  for (const link of document.querySelectorAll("nav a")) {
    const aim = link.getAttribute("href");
    const isThis = aim === `#${view}` || (aim === "#people" && view === "person");
    if (isThis) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = $(`${view}-view`).querySelector("h2");
  document.title = `${title.firstChild?.data?.trim() || "People"} – Reprism`;
}

/** Go to a view, with the focus: what was pressed may not be there any more. */
async function turn() {
  await go();
  document.querySelector("main:not([hidden]) h2").focus({ preventScroll: true });
  scrollTo(0, 0);
}

async function enter(words = "") {
  try {
    session = await (await ask("session")).json();
  } catch (problem) {
    fail(problem, enter);
    return;
  }
  offerToken(session);
  await go();
  if (words) say(words);
  if (session.tokens && !session.scopes.length) askForToken();
}

onToken((words) => {
  pictures.forget();
  clearReview();
  enter(words);
});
onMore(fail);
addEventListener("hashchange", turn);
$("skip").onclick = (event) => {
  event.preventDefault(); // what follows the # in the address is the view
  $("content").focus();
};
enter();
