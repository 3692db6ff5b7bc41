// The review queue: two groups of sights side by side, and one question, which a key answers.

import { wordsOfChange } from "./decisions.js";
import { fail, say } from "./notices.js";
import { answer, readQuestions, readRow, takeBack } from "./people_api.js";
import { betweenTimes, face, faces, thumbnailOf } from "./sights.js";
import { cameraOf, percent } from "./words.js";

const BATCH = 10; // questions asked for at a time
const FILM = 12; // small pictures of a side, beside the large one; the arrows reach all
const HELD = 90_000; // milliseconds: the service keeps a question for us for 120 s
const WORDS = { same: "Same.", different: "Not the same.", unsure: "Cannot tell." };
const KEYS = { s: "same", d: "different", u: "unsure" };

const $ = (id) => document.getElementById(id);
const sides = ["one", "other"].map((name) => ({ name, node: $(`side-${name}`), rows: [], at: 0 }));

let queue = []; // of questions, the one that is shown first
let read = 0; // when they were asked for
let left = 0; // how many more the service has for us, beside the queue
let given = []; // answers of this visit that can be undone, with their questions
let isBusy = false; // an answer is under way: keys wait for the next question

/** Show what is most worth a question. */
export async function showReview(_, __, ___, signal) {
  await load(signal);
}

/** Forget what was decided, for another token is used. */
export function clearReview() {
  [queue, left, given] = [[], 0, []];
}

async function load(signal) {
  const found = await readQuestions(BATCH, signal);
  [queue, left, read] = [found.questions, found.left, Date.now()];
  present();
}

/** Go on with the next question, or with those that the service has by now. */
async function goOn() {
  if (queue.length && Date.now() - read < HELD) present();
  else await load();
}

// ---- what is shown ---------------------------------------------------------------------------------------

function present() {
  const [question, next] = queue;
  $("question").hidden = !question;
  $("review-none").hidden = Boolean(question);
  for (const button of $("decisions").querySelectorAll("[data-kind]")) button.disabled = !question;
  count();
  if (!question) return;
  const [first, second] = question.people;
  const titles = second === undefined ? ["Some sights", "The other sights"] : [`Person ${first}`, `Person ${second}`];
  const now = second === undefined ? `One person now, ${first}` : "Two people now";
  $("question-words").textContent = `${now}. ${percent(question.probability)} likely the same: ${question.sentence}.`;
  sides.forEach((side, place) => {
    [side.rows, side.at] = [question[side.name], 0];
    $(`side-${side.name}-title`).textContent = titles[place];
    const others = side.node.querySelector(".others");
    others.replaceChildren();
    if (side.rows.length > 1) others.append(faces(side.rows.slice(0, FILM), titles[place], (at) => show(side, at)));
    show(side, 0);
  });
  mark(sides[0]);
  // The next one's pictures are there when it comes.
  if (next) for (const { name } of sides) face(thumbnailOf(next[name][0]), "");
}

function count() {
  const decided = given.length;
  $("take-back").disabled = !decided;
  const waiting = queue.length + left;
  $("review-count").textContent = `${decided} decided, ${waiting} left`;
  $("review-progress").max = Math.max(1, decided + waiting);
  $("review-progress").value = decided;
}

/** Show one of a side's pictures large. */
async function show(side, at) {
  side.at = at;
  const row = side.rows[at];
  const title = $(`side-${side.name}-title`).textContent;
  const words = `${title}, picture ${at + 1} of ${side.rows.length}`;
  const [shown, caption] = [side.node.querySelector(".shown"), side.node.querySelector(".caption")];
  side.node.querySelectorAll(".faces button").forEach((button, place) => {
    button.toggleAttribute("aria-current", place === at);
  });
  shown.replaceChildren(face(thumbnailOf(row), words));
  caption.textContent = "…";
  const known = await rowOf(row).catch(() => null);
  if (side.rows[side.at] !== row) return; // another one is shown by now
  const place = side.rows.length > 1 ? `${at + 1} of ${side.rows.length}: ` : "";
  caption.textContent = known
    ? `${place}${cameraOf(known)}, ${betweenTimes(known.time, known.until ?? known.time)}` : `${place}not to be had`;
  if (known?.strip.length > 1) shown.replaceChildren(face(thumbnailOf(row), words, known.strip));
}

const known = new Map(); // row -> promise of what is known of it

function rowOf(row) {
  if (!known.has(row)) known.set(row, readRow(row));
  return known.get(row);
}

/** Mark the side whose pictures the arrow keys step through. */
function mark(side) {
  for (const each of sides) each.node.toggleAttribute("data-marked", each === side);
}

const marked = () => sides.find(({ node }) => node.hasAttribute("data-marked"));

function step(by) {
  const side = marked();
  const at = side.at + by;
  if (side.rows[at]) show(side, at);
}

// ---- deciding --------------------------------------------------------------------------------------------

/** Do something that changes people; whatever is pressed meanwhile is not taken for an answer to what comes next. */
async function alone(work) {
  if (isBusy) return;
  isBusy = true;
  $("decisions").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (problem) {
    fail(problem);
  } finally {
    isBusy = false;
    $("decisions").removeAttribute("aria-busy");
  }
}

const decide = (kind) => alone(async () => {
  const [question] = queue;
  if (!question) return;
  const decided = await answer(kind, question.one, question.other);
  queue.shift();
  given.push({ number: decided.answer.number, question });
  say([WORDS[kind], ...decided.changes.map(wordsOfChange)].join(" "));
  await goOn();
});

const undo = () => alone(async () => {
  const last = given.at(-1);
  if (!last) return;
  try {
    await takeBack(last.number);
  } catch (problem) {
    if (problem.status === 404 || problem.status === 409) given.pop(); // it does not hold any more
    count();
    throw problem;
  }
  given.pop();
  queue.unshift(last.question);
  say("Taken back: here is the question again.");
  present();
});

for (const button of $("decisions").querySelectorAll("[data-kind]")) button.onclick = () => decide(button.dataset.kind);
$("take-back").onclick = undo;
$("review-again").onclick = () => load().catch(fail);
for (const side of sides) side.node.addEventListener("focusin", () => mark(side));

document.addEventListener("keydown", (event) => {
  if ($("review-view").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) return;
  const key = event.key.toLowerCase();
  if (key.startsWith("arrow") && !queue.length) return;
  if (key === "arrowleft") step(-1);
  else if (key === "arrowright") step(1);
  else if (key === "arrowup" || key === "arrowdown") mark(sides.find((side) => side !== marked()));
  else if (event.repeat) return;
  else if (KEYS[key]) decide(KEYS[key]);
  else if (key === "z") undo();
  else return;
  event.preventDefault();
});
