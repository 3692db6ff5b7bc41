// One person: where and when they were seen, why two sights in a row are linked, and what is wrong about it.

import { decideAndSay, wordsOfChange } from "./decisions.js";
import { answer, readPerson } from "./people_api.js";
import { betweenTimes, face, faces, pictures, stripOf, surenessOf, thumbnailOf } from "./sights.js";
import { film } from "./strips.js";
import { drawTimeline } from "./timeline.js";
import { counted, percent, timeOf } from "./words.js";

const WAIT = 250; // milliseconds after the last digit of a number

const $ = (id) => document.getElementById(id);

let person = null; // the one that is shown
let other = null; // whom it may be merged with
let typed = 0; // a timer

/** Show the person of a number. */
export async function showPerson(number, _, __, signal) {
  const found = await readPerson(number, signal);
  person = found;
  $("person-title").textContent = `Person ${found.id}`;
  document.title = `Person ${found.id} – Reprism`;
  $("person-facts").textContent = [
    found.cameras.join(", "), betweenTimes(found.first, found.last), counted(found.rows, "sight"),
    found.rows > 1 ? `how sure: ${surenessOf(found)}` : "",
  ].filter(Boolean).join(" · ");
  const links = new Map(found.links.map((link) => [link.other, link]));
  const cards = found.sights.map((sight, place) => sightCard(sight, place, links.get(sight.id)));
  $("person-sights").replaceChildren(...cards);
  drawTimeline($("person-lanes"), found.sights.map((sight, place) => ({ ...sight, rank: place + 1 })), {
    camera: ({ camera }) => camera,
    label: (sight) => `Sight ${sight.rank}: camera ${sight.camera}, ${timeOf(sight)}`,
    preview,
    open: (sight) => goTo(sight.rank - 1),
    each: "sight",
    best: 0,
  });
  $("merge-form").reset();
  offerMerge(null);
  countChosen();
}

function sightCard(sight, place, link) {
  const item = $("sight-template").content.cloneNode(true).firstElementChild;
  const [title, time] = [`${place + 1}. ${sight.camera}`, timeOf(sight)];
  const tick = item.querySelector("input");
  tick.value = sight.id;
  tick.onchange = countChosen;
  item.querySelector(".words").append(
    Object.assign(document.createElement("strong"), { textContent: title }),
    Object.assign(document.createElement("span"), { textContent: time, className: "soft" }),
  );
  item.querySelector(".link").textContent = link
    ? `Linked to ${place}: ${link.sentence}${link.probability === null ? "" : ` (${percent(link.probability)})`}`
    : "";
  item.querySelector(".pictures").append(
    sight.strip > 1
      ? film(stripOf(sight.id, sight.strip), pictures) : face(sight.thumbnail && thumbnailOf(sight.id), title),
  );
  return item;
}

function preview(sight) {
  const box = Object.assign(document.createElement("div"), { className: "preview" });
  const words = document.createElement("div");
  for (const line of [`Sight ${sight.rank}`, `camera ${sight.camera}`, timeOf(sight)]) {
    words.append(Object.assign(document.createElement("div"), { textContent: line }));
  }
  box.append(face(sight.thumbnail && thumbnailOf(sight.id), `Sight ${sight.rank}`), words);
  return box;
}

function goTo(place) {
  const item = $("person-sights").children[place];
  item.scrollIntoView({ block: "center" });
  item.querySelector("input").focus();
}

// ---- splitting -------------------------------------------------------------------------------------------

function chosenSights() {
  return new FormData($("split-form")).getAll("sight");
}

function countChosen() {
  const [chosen, all] = [chosenSights().length, person.sights.length];
  $("split").disabled = !chosen || chosen === all;
  $("split-count").textContent = !chosen
    ? "Choose the sights of somebody else."
    : chosen === all ? "Choose some of the sights, not all." : `${chosen} of ${counted(all, "sight")} chosen.`;
}

$("split-form").onsubmit = (event) => {
  event.preventDefault();
  const chosen = chosenSights();
  const rest = person.sights.map(({ id }) => id).filter((id) => !chosen.includes(id));
  if (chosen.length && rest.length) decide("different", chosen, rest);
};
$("split-form").onreset = () => setTimeout(countChosen);

// ---- merging ---------------------------------------------------------------------------------------------

function offerMerge(found, words = "") {
  other = found;
  $("merge").disabled = !found;
  $("merge-preview").replaceChildren();
  if (!found && !words) return;
  const said = found ? `${found.cameras.join(", ")} · ${betweenTimes(found.first, found.last)}` : words;
  if (found) $("merge-preview").append(faces(found.faces, `Person ${found.id}`));
  $("merge-preview").append(Object.assign(document.createElement("p"), { textContent: said, className: "soft" }));
}

async function lookUp() {
  const number = $("merge-with").value;
  if (!number) return offerMerge(null);
  if (Number(number) === person.id) return offerMerge(null, "This is the person shown here.");
  try {
    const found = await readPerson(number);
    if ($("merge-with").value === number) offerMerge(found);
  } catch (problem) {
    if ($("merge-with").value === number) offerMerge(null, problem.message);
  }
}

$("merge-with").oninput = () => {
  clearTimeout(typed);
  offerMerge(null);
  typed = setTimeout(lookUp, WAIT);
};
$("merge-form").onsubmit = (event) => {
  event.preventDefault();
  if (other) decide("same", person.sights.map(({ id }) => id), other.sights.map(({ id }) => id));
};

function decide(kind, one, two) {
  decideAndSay(
    () => answer(kind, one, two),
    (changes) => changes.map(wordsOfChange).join(" ") || "It is noted; nobody changed by it.",
    async (changes) => {
      if (!location.hash.startsWith("#person=")) return; // another view was asked for meanwhile
      // Who is a part of somebody else now is shown as they are now.
      const merged = changes.find((change) => change.kind === "merge" && change.before === person.id);
      const shown = merged ? merged.after : person.id;
      history.replaceState(null, "", `#person=${shown}`);
      await showPerson(shown);
    },
  );
}
